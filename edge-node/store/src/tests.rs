//! The suite of the store, run over every disk and ledger, and power cuts over the simulated ones.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use record::{Batch, BatchBuilder, NewRecord, StreamName};

use crate::disk::{Disk, RealDisk, SimulatedDisk};
use crate::ledger::{Change, Ledger, MemoryLedger, SledLedger, Table};
use crate::segment::Producer;
use crate::*;

mod delayed;
mod disk_fails;
mod expired;
mod gaps;
mod local;
mod retained;
mod retained_count;
mod sessions;
mod shared_bound;
mod wills;

const OUTBOX: LogId = LogId::Outbox(Lane::DEFAULT);

/// A place where a store can be opened again and again.
struct Place {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    ledger: Box<dyn Fn() -> Arc<dyn Ledger>>,
    _temporary: Option<tempfile::TempDir>,
}

impl Place {
    fn real() -> Place {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("store");
        let ledger = temporary.path().join("ledger");
        Place {
            disk: Arc::new(RealDisk),
            dir,
            ledger: Box::new(move || Arc::new(SledLedger::open(&ledger).unwrap())),
            _temporary: Some(temporary),
        }
    }

    fn simulated() -> (Place, SimulatedDisk, MemoryLedger) {
        let (disk, ledger) = (SimulatedDisk::new(), MemoryLedger::new());
        let theirs = ledger.clone();
        let place = Place {
            disk: Arc::new(disk.clone()),
            dir: "/edge".into(),
            ledger: Box::new(move || Arc::new(theirs.clone())),
            _temporary: None,
        };
        (place, disk, ledger)
    }

    fn both() -> [Place; 2] {
        [Place::real(), Place::simulated().0]
    }

    fn open_with(&self, change: impl FnOnce(&mut Config)) -> Arc<Store> {
        let mut config = Config {
            segment_bytes: 4096,
            ..Config::new(0x1234_5678_9abc_def0)
        };
        change(&mut config);
        let opened = Store::open(self.disk.clone(), (self.ledger)(), &self.dir, config);
        Arc::new(opened.unwrap())
    }

    fn open(&self) -> Arc<Store> {
        self.open_with(|_| {})
    }
}

/// After a restart.
fn again(place: &Place, store: Arc<Store>) -> Arc<Store> {
    drop(store);
    place.open()
}

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

fn message(stream_name: &str, key: &str, value: &str) -> NewMessage {
    NewMessage {
        lane: Lane::DEFAULT,
        stream: stream(stream_name),
        record: NewRecord {
            timestamp: 1,
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            headers: Vec::new(),
        },
        retained: false,
        packet: None,
        blind: None,
        view: None,
        delayed: None,
    }
}

fn session(epoch: u64, bytes: &'static str) -> Session {
    Session {
        epoch,
        checkpoints: Vec::new(),
        bytes: Bytes::from_static(bytes.as_bytes()),
    }
}

async fn frames(store: &Arc<Store>, log: LogId) -> Vec<Arc<Frame>> {
    let mut frames = Vec::new();
    let mut from = store.oldest(log).number;
    loop {
        let read = store.read(log, From::Number(from), 1000).await.unwrap();
        if read.frames.is_empty() {
            return frames;
        }
        from = read.next.number;
        frames.extend(read.frames);
    }
}

fn values(frames: &[Arc<Frame>]) -> Vec<String> {
    let records = frames.iter().flat_map(|f| f.batch.records().unwrap());
    records
        .map(|r| String::from_utf8(r.unwrap().value.unwrap().to_vec()).unwrap())
        .collect()
}

/// What a core would say to these batches: sequences of each producer, epoch and stream without a hole.
fn check_sequences(frames: &[Arc<Frame>]) {
    let mut next: HashMap<(i64, i16, StreamName), i32> = HashMap::new();
    for frame in frames {
        frame.batch.check_crc().unwrap();
        let key = (
            frame.batch.producer_id(),
            frame.batch.producer_epoch(),
            frame.stream.clone(),
        );
        if let Some(expected) = next.get(&key) {
            assert_eq!(*expected, frame.batch.base_sequence(), "{key:?}");
        }
        next.insert(key, record::next_sequence(frame.batch.last_sequence()));
    }
}

async fn publish(store: &Arc<Store>, values: impl IntoIterator<Item = u32>) {
    let publishes = values.into_iter().map(|n| {
        let store = store.clone();
        async move { store.publish(message("s", "s/k", &format!("{n:06}"))).await }
    });
    let publishes: Vec<_> = publishes.map(tokio::spawn).collect();
    for publish in publishes {
        publish.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn what_is_stored_is_there_after_a_restart_in_order_with_the_next_sequence() {
    for place in Place::both() {
        let store = place.open();
        let producer = store.producer();
        assert_eq!(producer.id & (1 << 62), 1 << 62);
        for n in 0..300 {
            store
                .publish(message("s", "s/k", &n.to_string()))
                .await
                .unwrap();
            store
                .publish(message("t", "t/k", &format!("t{n}")))
                .await
                .unwrap();
        }
        let before = frames(&store, OUTBOX).await;
        drop(store);
        let store = place.open();
        let again = store.producer();
        assert_eq!((again.id, again.epoch), (producer.id, producer.epoch + 1));
        store.publish(message("s", "s/k", "300")).await.unwrap();
        let after = frames(&store, OUTBOX).await;
        assert_eq!(values(&after)[..600], values(&before));
        let last = &after.last().unwrap().batch;
        assert_eq!((last.producer_epoch(), last.base_sequence()), (1, 0));
        check_sequences(&after);
    }
}

#[tokio::test]
async fn publishes_that_wait_share_batches_and_syncs() {
    let (place, _, _) = Place::simulated();
    let store = place.open();
    publish(&store, 0..2000).await;
    let all = frames(&store, OUTBOX).await;
    assert!(all.len() < 1000, "{} batches for 2000 messages", all.len());
    assert!(store.stats().syncs < 1000);
    check_sequences(&all);
}

#[tokio::test]
async fn reading_by_position_gives_the_frame_that_holds_it() {
    for place in Place::both() {
        let store = place.open();
        publish(&store, 0..500).await;
        for position in [0, 1, 77, 499] {
            let read = store
                .read(OUTBOX, From::Position(position), 1)
                .await
                .unwrap();
            let frame = &read.frames[0];
            assert!(frame.position <= position && position < frame.end());
        }
        let read = store.read(OUTBOX, From::Position(500), 1).await.unwrap();
        assert!(read.frames.is_empty());
        assert_eq!(read.next.position, 500);
    }
}

#[tokio::test]
async fn segments_go_when_uplink_and_sessions_have_passed_and_space_returns() {
    for place in Place::both() {
        let store = place.open();
        store.progress(
            "reader",
            vec![Checkpoint {
                log: OUTBOX,
                position: 0,
            }],
        );
        for n in 0..400 {
            store
                .publish(message("s", "s/k", &format!("{n:050}")))
                .await
                .unwrap();
        }
        let full = store.stats().disk_bytes;
        store.advance_uplink(Lane::DEFAULT, store.end(OUTBOX));
        store.checkpoint().await.unwrap();
        assert_eq!(store.stats().disk_bytes, full, "the session still holds it");
        assert_eq!(store.stats().outbox_messages, 0);
        store.progress("reader", vec![]);
        store.checkpoint().await.unwrap();
        assert!(store.stats().disk_bytes < 3 * 4096 + 3 * 200);
        drop(store);
        let store = place.open();
        assert_eq!(store.uplink(Lane::DEFAULT), store.end(OUTBOX));
        assert_eq!(store.uplink(Lane::DEFAULT).position, 400);
        store.publish(message("s", "s/k", "x")).await.unwrap();
        let all = frames(&store, OUTBOX).await;
        assert_eq!(values(&all).last().unwrap(), "x");
    }
}

#[tokio::test]
async fn a_session_that_lags_too_far_holds_nothing_more() {
    let (place, _, _) = Place::simulated();
    let store = place.open_with(|config| config.session_bytes = 20_000);
    let session = Session {
        epoch: 1,
        checkpoints: vec![Checkpoint {
            log: OUTBOX,
            position: 0,
        }],
        bytes: Bytes::from_static(b"x"),
    };
    store.save_session("late", session.clone()).await.unwrap();
    for n in 0..1000 {
        store
            .publish(message("s", "s/k", &n.to_string()))
            .await
            .unwrap();
    }
    store.advance_uplink(Lane::DEFAULT, store.end(OUTBOX));
    store.checkpoint().await.unwrap();
    assert!(store.oldest(OUTBOX).position > 0);
    assert_eq!(store.stats().sessions_lagging, 1);
    assert_eq!(store.load_session("late").unwrap(), Some(session));
}

#[tokio::test]
async fn a_full_outbox_refuses_and_takes_again_when_it_is_drained() {
    let (place, _, _) = Place::simulated();
    let store = place.open_with(|config| config.lanes[0].max_bytes = 30_000);
    let mut stored = 0;
    let refused = loop {
        match store.publish(message("s", "s/k", &"x".repeat(500))).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, WriteError::Full("data".into()));
    assert_eq!(frames(&store, OUTBOX).await.len(), stored);
    store.advance_uplink(Lane::DEFAULT, store.end(OUTBOX));
    store.checkpoint().await.unwrap();
    store.publish(message("s", "s/k", "y")).await.unwrap();
}

#[tokio::test]
async fn sessions_are_kept_and_a_stale_connection_cannot_replace_them() {
    for place in Place::both() {
        let store = place.open();
        let session = |epoch| Session {
            epoch,
            checkpoints: vec![Checkpoint {
                log: LogId::Inbox,
                position: 7,
            }],
            bytes: vec![epoch as u8; 30_000].into(),
        };
        store.save_session("c", session(2)).await.unwrap();
        assert!(matches!(
            store.save_session("c", session(1)).await,
            Err(SessionError::TakenOver {
                stored: 2,
                given: 1
            })
        ));
        drop(store);
        let store = place.open();
        assert_eq!(store.load_session("c").unwrap(), Some(session(2)));
        store.save_session("c", session(3)).await.unwrap();
        assert_eq!(store.sessions().unwrap(), [("c".to_owned(), session(3))]);
        store.delete_session("c").await.unwrap();
        drop(store);
        assert!(place.open().sessions().unwrap().is_empty());
    }
}

fn down(n: i64) -> (Batch, Origin) {
    let mut builder = BatchBuilder::new();
    builder
        .push(&message("cmd", "cmd/e/x", &n.to_string()).record)
        .unwrap();
    let origin = Origin {
        stream: 9,
        partition: 0,
        next: n + 1,
    };
    (builder.build().unwrap(), origin)
}

#[tokio::test]
async fn a_command_that_comes_again_is_stored_once_also_over_restarts() {
    for place in Place::both() {
        for round in 0..3 {
            let store = place.open();
            for n in 0..100 + round {
                let (batch, origin) = down(n);
                store
                    .receive(stream("cmd"), batch, origin, vec![0])
                    .await
                    .unwrap();
            }
            let all = frames(&store, LogId::Inbox).await;
            assert_eq!(values(&all).last().unwrap(), &(99 + round).to_string());
            assert_eq!(store.end(LogId::Inbox).position as i64, 100 + round);
        }
    }
}

#[tokio::test]
async fn sequences_are_never_used_again_when_segments_are_lost() {
    let (place, disk, _) = Place::simulated();
    let store = place.open();
    publish(&store, 0..50).await;
    store.advance_uplink(Lane::DEFAULT, store.end(OUTBOX));
    store.checkpoint().await.unwrap();
    let (old, end) = (store.producer(), store.end(OUTBOX));
    drop(store);
    let dir = place.dir.join("outbox/data");
    for name in disk.list(&dir).unwrap() {
        disk.remove(&dir.join(name)).unwrap();
    }
    let store = place.open();
    assert_eq!(
        store.producer(),
        Producer {
            epoch: old.epoch + 1,
            ..old
        }
    );
    assert!(store.end(OUTBOX).number > end.number);
    store.publish(message("s", "s/k", "x")).await.unwrap();
    let read = store
        .read(OUTBOX, From::Number(store.uplink(Lane::DEFAULT).number), 1)
        .await
        .unwrap();
    assert_eq!(
        (
            read.frames[0].batch.producer_epoch(),
            read.frames[0].batch.base_sequence()
        ),
        (1, 0)
    );
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let place = Place::real();
    drop(place.open());
    let dir = place.dir.join("outbox/data");
    let path = std::fs::read_dir(&dir)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[9] += 1;
    std::fs::write(&path, &bytes).unwrap();
    let store = place.open();
    assert_eq!(store.stats().set_aside, 1, "a bit flipped, no more");
    drop(store);
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::create_dir(&dir).unwrap();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[8..15]), &bytes[19..]);
    bytes[15..19].copy_from_slice(&crc.to_be_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let opened = Store::open(
        place.disk.clone(),
        (place.ledger)(),
        &place.dir,
        Config::new(1),
    );
    assert!(matches!(opened, Err(OpenError::Newer { .. })));
}

#[test]
fn a_broken_sled_is_set_aside_and_a_new_one_has_what_could_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let put = |ledger: &SledLedger, table, key: &[u8], value: &[u8]| {
        let (key, value) = (key.to_vec(), value.to_vec());
        ledger
            .apply(vec![Change::Put { table, key, value }])
            .unwrap();
        ledger.flush().unwrap();
    };
    let ledger = SledLedger::open(&path).unwrap();
    let large = vec![7; 50_000];
    put(&ledger, Table::Session, b"client", &large);
    put(&ledger, Table::Cursor, b"uplink/0", b"v");
    // What the segments tell better.
    put(&ledger, Table::Cursor, b"applied/0", b"v");
    put(&ledger, Table::Unreleased, b"client", b"");
    drop(ledger);
    for damaged in ["conf", "db"] {
        // Of the file nothing is left, and of what says how to read it nothing is needed.
        std::fs::write(path.join(damaged), b"not a sled").unwrap();
        let ledger = SledLedger::open(&path).unwrap();
        assert!(ledger.set_aside.as_deref().is_some_and(Path::exists) || damaged == "db");
        let get = |table, key: &[u8]| ledger.get(table, key).unwrap();
        let is_there = damaged == "conf";
        assert_eq!(ledger.is_new(), !is_there);
        assert_eq!(
            get(Table::Session, b"client").is_some_and(|value| value == large),
            is_there
        );
        assert_eq!(get(Table::Cursor, b"uplink/0").is_some(), is_there);
        assert_eq!(get(Table::Cursor, b"applied/0"), None);
        assert_eq!(get(Table::Unreleased, b"client"), None);
        drop(ledger);
        let names = std::fs::read_dir(dir.path()).unwrap();
        let names: Vec<_> = names.map(|name| name.unwrap().file_name()).collect();
        let known = |name: &std::ffi::OsString| {
            let name = name.to_string_lossy();
            *name == *"ledger" || name.starts_with("ledger.broken-")
        };
        assert!(names.iter().all(known), "{names:?}");
    }
}

fn seed() -> u64 {
    let given = std::env::var("TOWLINE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.unwrap().as_nanos() as u64
    })
}

/// Cuts the power again and again, in the middle of publishes. After each, everything acknowledged is there once, in order, and
/// no sequence has two meanings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_lose_nothing_that_was_acknowledged() {
    let seed = seed();
    println!("TOWLINE_SEED={seed}");
    for run in 0..40u64 {
        let (place, disk, ledger) = Place::simulated();
        let mut acknowledged: BTreeSet<u32> = BTreeSet::new();
        // What a core has seen, by the numbers that tell repetitions.
        let mut core: HashMap<(i64, i16, i32), String> = HashMap::new();
        let mut next = 0u32;
        for cut in 0..6u64 {
            let random = seed.wrapping_mul(31).wrapping_add(run * 1000 + cut);
            let store = place.open();
            let publishes: Vec<_> = (0..60)
                .map(|n| {
                    let (store, value) = (store.clone(), next + n);
                    tokio::spawn(async move {
                        let text = format!("{value:06}");
                        let stored = store.publish(message("s", "s/k", &text)).await;
                        stored.is_ok().then_some(value)
                    })
                })
                .collect();
            next += 60;
            for _ in 0..random % 40 {
                tokio::task::yield_now().await;
            }
            disk.cut_power(random);
            let left_of_ledger = ledger.left_by_power_cut(random);
            for publish in publishes {
                acknowledged.extend(publish.await.unwrap());
            }
            drop(store);
            if random.is_multiple_of(5) {
                ledger.lose();
            } else {
                ledger.become_as(&left_of_ledger);
            }
            let store = place.open();
            let all = frames(&store, OUTBOX).await;
            check_sequences(&all);
            for frame in &all {
                let first = frame.batch.base_sequence();
                for (n, value) in (first..).zip(values(std::slice::from_ref(frame))) {
                    let key = (frame.batch.producer_id(), frame.batch.producer_epoch(), n);
                    let known = core.entry(key).or_insert_with(|| value.clone());
                    assert_eq!(
                        *known, value,
                        "TOWLINE_SEED={seed}: a sequence was used twice"
                    );
                }
            }
            let found: Vec<u32> = values(&all).iter().map(|v| v.parse().unwrap()).collect();
            let unique: BTreeSet<u32> = found.iter().copied().collect();
            assert_eq!(
                unique.len(),
                found.len(),
                "TOWLINE_SEED={seed}: a message is there twice"
            );
            let lost: Vec<_> = acknowledged.difference(&unique).collect();
            assert!(
                lost.is_empty(),
                "TOWLINE_SEED={seed}, run {run}, cut {cut}: lost {lost:?}"
            );
        }
    }
}
