//! What an edge sends is in the log once and in order, or refused with a reason.

use frontend::retained;
use record::{BatchBuilder, Header, Namespace, NewRecord};
use sync_quic::{BatchFlags, BatchFrame, Event, Identity, RefuseCode};

use crate::core::*;

/// Repeatable chance: splitmix64.
struct Chance(u64);

impl Chance {
    fn new() -> Chance {
        let seed = std::env::var("SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(rand::random);
        println!("SEED={seed}");
        Chance(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// An edge's outbox as it is on its disk: batches, and a cursor that may lag behind what was acknowledged.
struct Outbox {
    frames: Vec<BatchFrame>,
    cursor: u64,
    records: usize,
}

impl Outbox {
    fn fill(chance: &mut Chance, frames: u64) -> Outbox {
        let (mut out, mut sequence) = (Vec::new(), 0_i32);
        for number in 1..=frames {
            let records: Vec<_> = (0..=chance.below(5))
                .map(|index| {
                    record(
                        "plant/line",
                        (sequence + index as i32).to_string().as_bytes(),
                    )
                })
                .collect();
            out.push(frame(number, &batch(PRODUCER, sequence, &records)));
            sequence += records.len() as i32;
        }
        Outbox {
            frames: out,
            cursor: 0,
            records: sequence as usize,
        }
    }

    fn is_empty(&self) -> bool {
        self.cursor == self.frames.len() as u64
    }
}

/// One life of a connection: sends from the cursor, hears acknowledgements, and ends at a random moment.
async fn one_connection(core: &str, identity: &Identity, outbox: &mut Outbox, chance: &mut Chance) {
    let Ok((connection, mut events)) = connect(core, identity, PRODUCER).await else {
        return;
    };
    // Acknowledgements are cumulative and quick: what is sent is limited, so that there are many lives.
    let (most, until) = (1 + chance.below(60) as usize, chance.below(4));
    let sending = {
        let (connection, from) = (connection.clone(), outbox.cursor as usize);
        let frames = outbox.frames[from..]
            .iter()
            .take(most)
            .cloned()
            .collect::<Vec<_>>();
        tokio::spawn(async move {
            for frame in frames {
                if connection.send_batch(frame).await.is_err() {
                    return;
                }
            }
        })
    };
    let sent = outbox.frames.len().min(outbox.cursor as usize + most) as u64;
    for _ in 0..until {
        match events.next().await {
            Event::Ack { frame, .. } => {
                // A crash may forget the newest step of the cursor.
                if chance.below(3) != 0 {
                    outbox.cursor = frame;
                }
                if frame == sent {
                    break;
                }
            }
            Event::Refused(refused) => panic!("refused: {refused:?}"),
            Event::Down(_) | Event::Pace(_) => {}
            other @ (Event::Dictionary(_) | Event::Query(_)) => panic!("not asked for: {other:?}"),
            Event::Closed(_) => break,
        }
    }
    connection.close();
    sending.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_through_cuts_and_restarts_of_both() {
    let mut chance = Chance::new();
    let dir = tempfile::tempdir().unwrap();
    let mut core = Core::start(dir.path(), "127.0.0.1:0").await;
    let address = core.address();
    let identity = core.enrol("e1").await;
    let mut outbox = Outbox::fill(&mut chance, 1000);
    let (mut lives, mut duplicates) = (0, 0);
    while !outbox.is_empty() {
        lives += 1;
        assert!(
            lives < 1000,
            "no progress: cursor {} of {}",
            outbox.cursor,
            outbox.frames.len()
        );
        one_connection(&address, &identity, &mut outbox, &mut chance).await;
        if chance.below(10) == 0 {
            duplicates += core.counter("towline_sync_duplicates_total");
            core.stop().await;
            core = Core::start(dir.path(), &address).await;
        }
    }
    duplicates += core.counter("towline_sync_duplicates_total");
    println!("{lives} connections, {duplicates} batches came again");
    assert!(
        duplicates > 0,
        "nothing came twice: the test has not tested what it is for"
    );
    let values: Vec<_> = core
        .records("plant", "e1")
        .await
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    let all: Vec<_> = (0..outbox.records)
        .map(|number| number.to_string().into_bytes())
        .collect();
    assert_eq!(values.len(), all.len());
    assert!(values == all, "lost, duplicated or out of order");
    let edge = core.sync.edge("e1").unwrap();
    assert_eq!(
        (edge.lanes[0].last_frame, edge.producer_id),
        (Some(1000), Some(PRODUCER))
    );
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_edge_may_not_send_is_refused_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let identity = core.enrol("e1").await;
    let (connection, mut events) = core.connect(&identity, PRODUCER).await.unwrap();
    let good = batch(PRODUCER, 0, &[record("plant/a", b"x")]);
    let mut damaged = good.bytes().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let table = [
        (
            BatchFrame {
                batch: damaged.into(),
                ..frame(1, &good)
            },
            RefuseCode::Malformed,
        ),
        (
            BatchFrame {
                batch: vec![0; 9].into(),
                ..frame(2, &good)
            },
            RefuseCode::Malformed,
        ),
        (
            frame(3, &batch(PRODUCER + 1, 0, &[record("plant/a", b"x")])),
            RefuseCode::WrongProducer,
        ),
        (
            BatchFrame {
                stream: "no such/name".to_owned(),
                ..frame(4, &good)
            },
            RefuseCode::InvalidStream,
        ),
        (
            frame(
                5,
                &BatchBuilder::new()
                    .producer(PRODUCER, 0, 0)
                    .control()
                    .with(&record("k", b"v")),
            ),
            RefuseCode::Malformed,
        ),
    ];
    for (frame, code) in table {
        let number = frame.frame;
        connection.send_batch(frame).await.unwrap();
        let Event::Refused(refused) = events.next().await else {
            panic!("frame {number} was taken")
        };
        assert_eq!((refused.frame, refused.code), (number, code));
        assert_eq!(
            events.next().await,
            Event::Ack {
                lane: 0,
                frame: number
            },
            "settled by its refusal"
        );
    }
    connection.send_batch(frame(6, &good)).await.unwrap();
    assert_eq!(events.next().await, Event::Ack { lane: 0, frame: 6 });
    // A missing sequence is never papered over.
    connection
        .send_batch(frame(7, &batch(PRODUCER, 5, &[record("plant/a", b"y")])))
        .await
        .unwrap();
    let Event::Refused(refused) = events.next().await else {
        panic!("a gap was taken")
    };
    assert_eq!(refused.code, RefuseCode::OutOfOrder);
    assert_eq!(
        core.records("plant", "e1").await,
        [("plant/a".to_owned(), b"x".to_vec())]
    );
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retained_messages_are_set_with_the_batch() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let identity = core.enrol("e1").await;
    let (connection, mut events) = core.connect(&identity, PRODUCER).await.unwrap();
    // What an edge's broker writes for RETAIN = 1 at QoS 1 (see `frontend::retained`).
    let retain = Header {
        name: "_tl.mqtt".into(),
        value: Some(vec![1, 0x05].into()),
    };
    let kept = NewRecord {
        headers: vec![retain.clone()],
        ..record("plant/kept", b"on")
    };
    let cleared = NewRecord {
        headers: vec![retain],
        ..record("plant/cleared", b"")
    };
    let batch = batch(
        PRODUCER,
        0,
        &[kept, record("plant/passing", b"by"), cleared],
    );
    let flags = BatchFlags::HAS_RETAINED;
    connection
        .send_batch(BatchFrame {
            flags,
            ..frame(1, &batch)
        })
        .await
        .unwrap();
    assert_eq!(events.next().await, Event::Ack { lane: 0, frame: 1 });
    let namespace = Namespace::default();
    let found = core
        .ctx
        .kernel
        .table_scan(retained::TABLE, &retained::prefix(&namespace));
    assert_eq!(found.len(), 1);
    assert_eq!(retained::topic(&namespace, &found[0].0), Some("plant/kept"));
    assert_eq!(
        retained::record(found[0].1.clone()).unwrap().value.unwrap(),
        "on"
    );
    core.stop().await;
}
