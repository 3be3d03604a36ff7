//! Random work on a simulated disk, power cuts at random operations, and a plain model beside it: what was acknowledged is there, exactly
//! once and in order, and of what was not, a prefix. One thread, one seed.
//! `SIM_SEED=n` runs one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::Bytes;
use kernel::{
    Command, CursorName, CursorPosition, Entry, HolderId, Kernel, PartitionId, Queue, QueueName,
    QueueSource, SequenceRule, Stepper, Verdict,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sim::batches::{address, batch, produced, values};
use sim::disk::SimDisk;
use sim::stepped::{drive, open, open_in_the_end, poll};

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
        let mut world = open_in_the_end(&mut disk, &mut rng, World::new)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
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
    if let Some(seed) = std::env::var("SIM_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        return run(seed);
    }
    let first: u64 = rand::random::<u32>().into();
    println!("seeds {first} to {}", first + 299);
    (first..first + 300).for_each(run);
}
