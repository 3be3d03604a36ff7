//! Random work on a simulated disk, power cuts at random operations, and a plain model beside it: what was acknowledged is there, exactly
//! once and in order, and of what was not, a prefix. One thread, one seed.
//! `KERNEL_SEED=n` runs one seed.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use kernel::{
    Command, CursorName, CursorPosition, Entry, HolderId, Kernel, KernelConfig, OpenError,
    PartitionId, Ports, Queue, QueueName, QueueSource, SequenceRule, Stepper, Verdict, WriteError,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use support::sim_disk::{SimClock, SimDisk};
use support::{address, batch, produced, values};

fn config() -> KernelConfig {
    KernelConfig {
        wal_file_bytes: 4096,
        tail_bytes: 3000,
        checkpoint_wal_bytes: 6000,
        group_bytes: 4096,
        reader_threads: 0,
        ..KernelConfig::default()
    }
}

fn ports(disk: &SimDisk) -> Ports {
    Ports {
        disk: Arc::new(disk.clone()),
        clock: Arc::new(SimClock::default()),
    }
}

fn open(disk: &SimDisk) -> Result<(Kernel, Stepper), OpenError> {
    Kernel::open_stepped(ports(disk), config())
}

/// Polls once.
fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Drives the writer until the future is done.
fn drive<F: Future>(stepper: &mut Stepper, future: F) -> F::Output {
    let mut future = pin!(future);
    for _ in 0..10_000 {
        if let Some(output) = poll(future.as_mut()) {
            return output;
        }
        stepper.step();
    }
    panic!("it never ends");
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    logs: BTreeMap<u32, (i64, Vec<String>)>,
    table: BTreeMap<String, String>,
    cursor: BTreeMap<u32, i64>,
    settled: BTreeSet<i64>,
    sequences: BTreeMap<(u32, i64), i32>,
}

#[derive(Debug, Clone)]
enum Change {
    Append {
        partition: u32,
        values: Vec<String>,
    },
    Sequence {
        partition: u32,
        producer: i64,
        next: i32,
    },
    Put(String, String),
    Delete(String),
    Cursor(u32, i64),
    Trim(u32, i64),
    Settle(Vec<i64>),
}

impl Model {
    fn apply(&mut self, changes: &[Change]) {
        for change in changes.iter().cloned() {
            match change {
                Change::Append { partition, values } => {
                    self.logs.entry(partition).or_default().1.extend(values)
                }
                Change::Sequence {
                    partition,
                    producer,
                    next,
                } => {
                    self.sequences.insert((partition, producer), next);
                }
                Change::Put(key, value) => {
                    self.table.insert(key, value);
                }
                Change::Delete(key) => {
                    self.table.remove(&key);
                }
                Change::Cursor(partition, offset) => {
                    self.cursor.insert(partition, offset);
                }
                Change::Trim(partition, offset) => {
                    let log = self.logs.entry(partition).or_default();
                    log.0 = log.0.max(offset);
                }
                Change::Settle(offsets) => self.settled.extend(offsets),
            }
        }
    }

    fn end(&self, partition: u32) -> i64 {
        self.logs
            .get(&partition)
            .map_or(0, |(_, values)| values.len() as i64)
    }

    /// What can be seen of it from outside.
    fn visible(&self) -> Visible {
        let start = self.logs.get(&0).map_or(0, |(start, _)| *start);
        let mut logs = BTreeMap::new();
        for partition in 0..3 {
            let (start, values) = self.logs.get(&partition).cloned().unwrap_or_default();
            logs.insert(partition, (start, values[start as usize..].to_vec()));
        }
        let unsettled = (start..self.end(0))
            .filter(|offset| !self.settled.contains(offset))
            .collect();
        Visible {
            logs,
            table: self.table.clone(),
            cursor: self.cursor.clone(),
            unsettled,
        }
    }
}

#[derive(Debug, PartialEq)]
struct Visible {
    logs: BTreeMap<u32, (i64, Vec<String>)>,
    table: BTreeMap<String, String>,
    cursor: BTreeMap<u32, i64>,
    unsettled: Vec<i64>,
}

struct World {
    kernel: Kernel,
    stepper: Stepper,
    queue: Arc<Queue>,
    stream: kernel::StreamId,
}

impl World {
    fn new(kernel: Kernel, mut stepper: Stepper) -> Option<World> {
        let stream = match kernel.stream(&address("s")) {
            Some(stream) => stream,
            None => {
                let spec = kernel::StreamSpec {
                    partitions: 3,
                    ..Default::default()
                };
                drive(&mut stepper, kernel.create_stream(&address("s"), spec)).ok()?
            }
        };
        let queue = kernel.queue(&QueueName::from("q"), Arc::new(()));
        let source = QueueSource {
            partition: stream.id.partition(0),
            from: 0,
        };
        drive(&mut stepper, queue.set_sources(vec![source])).ok()?;
        Some(World {
            kernel,
            stepper,
            queue,
            stream: stream.id,
        })
    }

    fn partition(&self, partition: u32) -> PartitionId {
        self.stream.partition(partition)
    }

    fn visible(&mut self) -> Visible {
        let mut logs = BTreeMap::new();
        for number in 0..3 {
            let partition = self.partition(number);
            let start = self.kernel.watermarks(partition).unwrap().log_start;
            logs.insert(
                number,
                (
                    start,
                    drive(&mut self.stepper, values(&self.kernel, partition, start)),
                ),
            );
        }
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let table = self
            .kernel
            .table_scan("t", b"")
            .into_iter()
            .map(|(k, v)| (text(k), text(v)))
            .collect();
        let cursor = self
            .kernel
            .cursor(&CursorName::from("g"))
            .into_iter()
            .map(|c| (c.partition.partition, c.offset))
            .collect();
        let holder = HolderId(99);
        let acquired = drive(
            &mut self.stepper,
            self.queue.acquire(holder, usize::MAX, usize::MAX),
        );
        let unsettled = acquired.iter().map(|a| a.id.offset).collect();
        self.queue.release_holder(holder);
        Visible {
            logs,
            table,
            cursor,
            unsettled,
        }
    }
}

type Written = Pin<Box<dyn Future<Output = bool>>>;

/// One random entry: what it does to the model, and its future (already on its way).
fn random_entry(
    world: &World,
    model: &Model,
    rng: &mut StdRng,
    counter: &mut u64,
) -> (Vec<Change>, Written) {
    if rng.random_bool(0.15) {
        let mut acquire = pin!(world.queue.acquire(
            HolderId(1),
            rng.random_range(1..5),
            usize::MAX
        ));
        let acquired = poll(acquire.as_mut()).expect("nothing else holds the queue");
        let ids: Vec<_> = acquired
            .iter()
            .map(|a| a.id)
            .filter(|_| rng.random_bool(0.7))
            .collect();
        let offsets = ids.iter().map(|id| id.offset).collect();
        let queue = world.queue.clone();
        let mut settled: Written =
            Box::pin(async move { queue.settle(&ids, Verdict::Accept).await.is_ok() });
        let done = poll(settled.as_mut());
        world.queue.release_holder(HolderId(1));
        return (
            vec![Change::Settle(offsets)],
            match done {
                Some(done) => Box::pin(async move { done }),
                None => settled,
            },
        );
    }
    let mut after = model.clone();
    let mut changes = Vec::new();
    let mut entry = Entry::new();
    for _ in 0..rng.random_range(1..4) {
        let number = rng.random_range(0..3);
        let partition = world.partition(number);
        let change = match rng.random_range(0..10) {
            0..6 => {
                let values: Vec<String> = (0..rng.random_range(1..4))
                    .map(|_| {
                        *counter += 1;
                        format!("{counter}{}", "x".repeat(rng.random_range(0..300)))
                    })
                    .collect();
                let texts: Vec<&str> = values.iter().map(String::as_str).collect();
                let producer = rng.random_range(0..3);
                if producer == 0 {
                    entry = entry.append(partition, batch(&texts), SequenceRule::None);
                } else {
                    let rule = if producer == 1 {
                        SequenceRule::Window
                    } else {
                        SequenceRule::Strict
                    };
                    let next = after
                        .sequences
                        .get(&(number, producer))
                        .copied()
                        .unwrap_or(0);
                    let sent = produced(producer, 0, next, &texts);
                    let next = next + texts.len() as i32;
                    let twice = rng.random_bool(0.3);
                    entry = entry.append(partition, sent.clone(), rule);
                    if twice {
                        entry = entry.append(partition, sent, rule);
                    }
                    let sequence = Change::Sequence {
                        partition: number,
                        producer,
                        next,
                    };
                    after.apply(std::slice::from_ref(&sequence));
                    changes.push(sequence);
                }
                Change::Append {
                    partition: number,
                    values,
                }
            }
            6 => {
                let key = rng.random_range(0..5).to_string();
                *counter += 1;
                entry = entry.put("t", key.clone(), counter.to_string());
                Change::Put(key, counter.to_string())
            }
            7 => {
                let key = rng.random_range(0..5).to_string();
                entry = entry.delete("t", key.clone());
                Change::Delete(key)
            }
            8 => {
                let offset = rng.random_range(0..100);
                let position = CursorPosition {
                    partition,
                    offset,
                    metadata: Bytes::new(),
                    committed_at: 0,
                };
                entry.push(Command::CursorCommit {
                    group: CursorName::from("g"),
                    positions: vec![position],
                });
                Change::Cursor(number, offset)
            }
            _ => {
                let log_start = rng.random_range(0..=after.end(number));
                entry.push(Command::Trim {
                    partition,
                    log_start,
                });
                Change::Trim(number, log_start)
            }
        };
        after.apply(std::slice::from_ref(&change));
        changes.push(change);
    }
    let written = world.kernel.write(entry);
    (changes, Box::pin(async move { written.await.is_ok() }))
}

fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut disk = SimDisk::default();
    let mut model = Model::default();
    let mut counter = 0;
    for _life in 0..3 {
        // Recovery may be cut short as well, any number of times.
        let mut world = loop {
            if rng.random_bool(0.3) {
                disk.crash_after(rng.random_range(0..30));
            }
            match open(&disk) {
                Ok((kernel, stepper)) => match World::new(kernel, stepper) {
                    Some(world) => break world,
                    None => disk = disk.after_crash(rng.random()),
                },
                Err(OpenError::Io { .. }) => disk = disk.after_crash(rng.random()),
                Err(error) => panic!("seed {seed}: {error}"),
            }
        };
        disk.crash_after(rng.random_range(20..300));
        let mut acknowledged = model.clone();
        let mut maybe: Vec<Vec<Change>> = Vec::new();
        'work: for _ in 0..100 {
            let mut optimistic = acknowledged.clone();
            let mut sent: Vec<(Vec<Change>, Written)> = Vec::new();
            for _ in 0..rng.random_range(1..5) {
                let (changes, written) = random_entry(&world, &optimistic, &mut rng, &mut counter);
                optimistic.apply(&changes);
                sent.push((changes, written));
            }
            while world.stepper.step() {}
            for (changes, mut written) in sent {
                if maybe.is_empty() && poll(written.as_mut()).expect("the writer has answered") {
                    acknowledged.apply(&changes);
                } else {
                    maybe.push(changes);
                }
            }
            if !maybe.is_empty() {
                break 'work;
            }
            if rng.random_bool(0.2) {
                drive(&mut world.stepper, world.kernel.maintain());
            }
        }
        if maybe.is_empty() && rng.random_bool(0.5) {
            drive(&mut world.stepper, world.kernel.shutdown());
        }
        drop(world);
        disk = disk.after_crash(rng.random());
        let (kernel, stepper) = open(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let mut world = World::new(kernel, stepper).unwrap();
        let found = world.visible();
        let mut candidate = acknowledged.clone();
        let mut candidates = vec![candidate.clone()];
        for changes in &maybe {
            candidate.apply(changes);
            candidates.push(candidate.clone());
        }
        let Some(same) = candidates
            .into_iter()
            .find(|candidate| candidate.visible() == found)
        else {
            assert_eq!(
                found,
                acknowledged.visible(),
                "seed {seed}, {} entries unacknowledged",
                maybe.len()
            );
            return;
        };
        model = same;
        drop(world);
    }
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_by_power_cuts() {
    if let Some(seed) = std::env::var("KERNEL_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        return run(seed);
    }
    let first: u64 = rand::random::<u32>().into();
    println!("seeds {first} to {}", first + 299);
    (first..first + 300).for_each(run);
}

/// A kernel with some entries in one file, and the disk below it.
fn some_entries(disk: &SimDisk, config: KernelConfig) -> (Kernel, Stepper, PartitionId) {
    let (kernel, mut stepper) = Kernel::open_stepped(ports(disk), config).unwrap();
    let p = drive(&mut stepper, kernel.ensure_stream(&address("s")))
        .unwrap()
        .id
        .partition(0);
    for n in 0..10 {
        drive(
            &mut stepper,
            kernel.append(p, batch(&[&format!("value {n}")]), SequenceRule::None),
        )
        .unwrap();
    }
    (kernel, stepper, p)
}

#[test]
fn after_a_failed_sync_no_write_is_taken_and_reads_go_on() {
    let disk = SimDisk::default();
    let (kernel, mut stepper, p) = some_entries(&disk, config());
    disk.fail_sync_after(0);
    let failed = drive(&mut stepper, kernel.write(Entry::new().put("t", "k", "v")));
    assert!(matches!(failed, Err(WriteError::Failed(_))), "{failed:?}");
    let later = drive(&mut stepper, kernel.write(Entry::new().put("t", "k", "v")));
    assert!(matches!(later, Err(WriteError::Failed(_))), "{later:?}");
    assert_eq!(kernel.table_get("t", b"k"), None);
    assert_eq!(drive(&mut stepper, values(&kernel, p, 0)).len(), 10);
    assert!(kernel.stats().failed.is_some());
}

#[test]
fn a_torn_tail_is_cut_and_damage_to_what_was_durable_is_reported() {
    let disk = SimDisk::default();
    let wide = KernelConfig {
        wal_file_bytes: 1 << 20,
        ..config()
    };
    drop(some_entries(&disk, wide));
    let path = disk.names("wal").pop().unwrap();
    let whole = disk.bytes(&path);
    for cut in 1..60 {
        disk.damage(&path, |bytes| *bytes = whole[..whole.len() - cut].to_vec());
        let (kernel, mut stepper) = open(&disk).unwrap();
        let p = kernel.stream(&address("s")).unwrap().id.partition(0);
        assert_eq!(drive(&mut stepper, values(&kernel, p, 0)).len(), 9);
        assert!(
            drive(
                &mut stepper,
                kernel.append(p, batch(&["new"]), SequenceRule::None)
            )
            .is_ok()
        );
    }
    // A flipped bit anywhere but in the last entry is never silently cut.
    let last_frame = whole.len() - 60;
    for at in (24..last_frame - 200).step_by(97) {
        disk.damage(&path, |bytes| {
            bytes.clone_from(&whole);
            bytes[at] ^= 4;
        });
        assert!(
            matches!(open(&disk), Err(OpenError::Corrupt { .. })),
            "byte {at}"
        );
    }
    assert_eq!(disk.bytes(&path).len(), whole.len(), "nothing was changed");
}

#[test]
fn a_data_directory_of_a_newer_version_is_refused() {
    let disk = SimDisk::default();
    let (kernel, mut stepper, _) = some_entries(&disk, config());
    drive(&mut stepper, kernel.shutdown());
    drop((kernel, stepper));
    for path in [
        disk.names("wal").pop().unwrap(),
        disk.names("checkpoint").pop().unwrap(),
    ] {
        let before = disk.bytes(&path);
        disk.damage(&path, |bytes| bytes[8] = 9);
        let refused = open(&disk).err().unwrap();
        assert!(
            matches!(
                refused,
                OpenError::NewerVersion {
                    found: 9,
                    supported: 1,
                    ..
                }
            ),
            "{refused}"
        );
        disk.damage(&path, |bytes| *bytes = before);
    }
    disk.damage(&disk.names("wal")[0], |bytes| bytes[0] = b'X');
    assert!(matches!(open(&disk), Err(OpenError::Foreign { .. })));
}

#[test]
fn damaged_records_are_reported_with_their_offsets_and_never_served() {
    let disk = SimDisk::default();
    let (kernel, mut stepper, p) = some_entries(
        &disk,
        KernelConfig {
            tail_bytes: 0,
            ..config()
        },
    );
    let path = disk.names("wal").into_iter().next().unwrap();
    let needle = b"value 3";
    let at = disk
        .bytes(&path)
        .windows(needle.len())
        .position(|w| w == needle)
        .unwrap();
    disk.damage(&path, |bytes| bytes[at] ^= 1);
    let error = drive(&mut stepper, kernel.read(p, 3, 1)).unwrap_err();
    assert!(
        matches!(
            error,
            kernel::ReadError::Corrupt {
                first: 3,
                last: 3,
                ..
            }
        ),
        "{error}"
    );
    // What is before and after it is still readable.
    assert_eq!(
        drive(&mut stepper, kernel.read(p, 0, 1 << 20))
            .unwrap()
            .batches
            .len(),
        3
    );
    assert_eq!(drive(&mut stepper, values(&kernel, p, 4)).len(), 6);
    assert_eq!(kernel.stats().corrupt_reads, 1);
    // A queue passes it over and says so.
    let queue = kernel.queue(&QueueName::from("q"), Arc::new(()));
    drive(
        &mut stepper,
        queue.set_sources(vec![QueueSource {
            partition: p,
            from: 0,
        }]),
    )
    .unwrap();
    assert_eq!(
        drive(&mut stepper, queue.acquire(HolderId(1), 100, usize::MAX)).len(),
        9
    );
}

#[test]
fn a_damaged_checkpoint_costs_nothing() {
    let disk = SimDisk::default();
    let (kernel, mut stepper, p) = some_entries(&disk, config());
    for n in 0..40 {
        drive(
            &mut stepper,
            kernel.append(p, batch(&[&"y".repeat(500)]), SequenceRule::None),
        )
        .unwrap();
        drive(&mut stepper, kernel.trim(p, n)).unwrap();
        drive(&mut stepper, kernel.maintain());
    }
    assert!(kernel.stats().checkpoints >= 2);
    drop((kernel, stepper));
    let newest = disk.names("checkpoint").pop().unwrap();
    disk.damage(&newest, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let (kernel, mut stepper) = open(&disk).unwrap();
    assert_eq!(kernel.watermarks(p).unwrap().end, 50);
    assert_eq!(drive(&mut stepper, values(&kernel, p, 39)).len(), 11);
}
