//! Transactions under random work and power cuts, with a plain model beside it: the fate of every transaction is what was acknowledged, and a
//! reader of committed records sees exactly those. One thread, one seed. `SIM_SEED=n` runs one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;

use kernel::{Command, Entry, Kernel, Outcome, SequenceRule, Stepper, StreamSpec, WriteError};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sim::batches::{address, batch, committed, produced, transactional};
use sim::disk::SimDisk;
use sim::stepped::{drive, open, open_in_the_end, poll};

/// One thing in a log of the model.
#[derive(Debug, Clone, PartialEq)]
enum Item {
    Record {
        value: String,
        transaction: Option<u32>,
    },
    Marker,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Open,
    Committed,
    Aborted,
}

#[derive(Debug, Clone, Default)]
struct Producer {
    epoch: i16,
    next: i32,
    open: Option<u32>,
    /// The batch it sent last, to send it again.
    last: Option<(i32, Vec<String>)>,
}

const PARTITIONS: u32 = 3;

/// The plain reference.
#[derive(Debug, Clone, Default)]
struct Model {
    logs: BTreeMap<u32, (i64, Vec<Item>)>,
    fates: BTreeMap<(u32, u32), Fate>,
    producers: BTreeMap<(u32, i64), Producer>,
    transactions: u32,
}

#[derive(Debug, Clone)]
enum Change {
    Plain(u32, Vec<String>),
    Data(u32, i64, Vec<String>),
    End {
        partitions: BTreeSet<u32>,
        producer: i64,
        epoch: i16,
        commit: bool,
    },
    Trim(u32, i64),
    /// A batch again, or something that is refused.
    Nothing,
}

/// What can be seen of a partition from outside.
#[derive(Debug, PartialEq)]
struct Visible {
    log_start: i64,
    last_stable: i64,
    end: i64,
    committed: Vec<(i64, String)>,
    open_producers: BTreeSet<i64>,
}

impl Model {
    fn apply(&mut self, change: &Change) {
        match change.clone() {
            Change::Plain(partition, values) => {
                let items = values.into_iter().map(|value| Item::Record {
                    value,
                    transaction: None,
                });
                self.logs.entry(partition).or_default().1.extend(items);
            }
            Change::Data(partition, id, values) => {
                let next_transaction = self.transactions;
                let producer = self.producers.entry((partition, id)).or_default();
                if producer.open.is_none() {
                    producer.open = Some(next_transaction);
                    self.transactions += 1;
                    self.fates.insert((partition, next_transaction), Fate::Open);
                }
                let transaction = producer.open;
                producer.last = Some((producer.next, values.clone()));
                producer.next += values.len() as i32;
                let items = values
                    .into_iter()
                    .map(|value| Item::Record { value, transaction });
                self.logs.entry(partition).or_default().1.extend(items);
            }
            Change::End {
                partitions,
                producer: id,
                epoch,
                commit,
            } => {
                for partition in partitions {
                    let producer = self.producers.entry((partition, id)).or_default();
                    if producer.epoch != epoch {
                        (producer.next, producer.last) = (0, None);
                    }
                    producer.epoch = epoch;
                    if let Some(open) = producer.open.take() {
                        let fate = if commit {
                            Fate::Committed
                        } else {
                            Fate::Aborted
                        };
                        self.fates.insert((partition, open), fate);
                    }
                    self.logs.entry(partition).or_default().1.push(Item::Marker);
                }
            }
            Change::Trim(partition, offset) => {
                let log = self.logs.entry(partition).or_default();
                log.0 = log.0.max(offset);
            }
            Change::Nothing => {}
        }
    }

    fn end(&self, partition: u32) -> i64 {
        self.logs
            .get(&partition)
            .map_or(0, |(_, items)| items.len() as i64)
    }

    fn visible(&self) -> BTreeMap<u32, Visible> {
        let mut visible = BTreeMap::new();
        for partition in 0..PARTITIONS {
            let (start, items) = self.logs.get(&partition).cloned().unwrap_or_default();
            let fate = |item: &Item| match item {
                Item::Record {
                    transaction: Some(transaction),
                    ..
                } => self.fates.get(&(partition, *transaction)).copied(),
                _ => Some(Fate::Committed),
            };
            let stable = items
                .iter()
                .position(|item| fate(item) == Some(Fate::Open))
                .map_or(items.len() as i64, |first| (first as i64).max(start));
            let committed = (0..)
                .zip(&items)
                .filter(|(offset, _)| (start..stable).contains(offset))
                .filter_map(|(offset, item)| match item {
                    Item::Record { value, .. } if fate(item) == Some(Fate::Committed) => {
                        Some((offset, value.clone()))
                    }
                    _ => None,
                })
                .collect();
            let open_producers = self
                .producers
                .iter()
                .filter(|((p, _), producer)| *p == partition && producer.open.is_some())
                .map(|((_, id), _)| *id)
                .collect();
            let of_partition = Visible {
                log_start: start,
                last_stable: stable,
                end: items.len() as i64,
                committed,
                open_producers,
            };
            visible.insert(partition, of_partition);
        }
        visible
    }
}

struct World {
    kernel: Kernel,
    stepper: Stepper,
    stream: kernel::StreamId,
}

impl World {
    fn new(kernel: Kernel, mut stepper: Stepper) -> Option<World> {
        let stream = match kernel.stream(&address("s")) {
            Some(stream) => stream,
            None => {
                let spec = StreamSpec {
                    partitions: PARTITIONS,
                    ..Default::default()
                };
                drive(&mut stepper, kernel.create_stream(&address("s"), spec)).ok()?
            }
        };
        Some(World {
            stream: stream.id,
            kernel,
            stepper,
        })
    }

    fn visible(&mut self) -> BTreeMap<u32, Visible> {
        let mut visible = BTreeMap::new();
        for number in 0..PARTITIONS {
            let partition = self.stream.partition(number);
            let marks = self.kernel.watermarks(partition).unwrap();
            let seen = committed(&self.kernel, partition, marks.log_start);
            let seen = drive(&mut self.stepper, seen);
            // Whole batches are read, so that the first may begin below the log start.
            let committed = seen
                .into_iter()
                .filter(|(offset, _)| *offset >= marks.log_start)
                .collect();
            let open_producers = self
                .kernel
                .open_transactions(i64::MAX)
                .into_iter()
                .filter(|open| open.partition == partition)
                .map(|open| open.producer_id)
                .collect();
            let of_partition = Visible {
                log_start: marks.log_start,
                last_stable: marks.last_stable,
                end: marks.end,
                committed,
                open_producers,
            };
            visible.insert(number, of_partition);
        }
        visible
    }
}

type Written = Pin<Box<dyn Future<Output = Result<Vec<Outcome>, WriteError>>>>;

/// One random entry, already on its way; whether it is refused; what it does to the model.
fn random_entry(
    world: &World,
    model: &Model,
    rng: &mut StdRng,
    counter: &mut u64,
) -> (Change, bool, Written) {
    let number = rng.random_range(0..PARTITIONS);
    let partition = world.stream.partition(number);
    let id = rng.random_range(1..5);
    let known = model
        .producers
        .get(&(number, id))
        .cloned()
        .unwrap_or_default();
    let mut texts = || -> Vec<String> {
        (0..rng.random_range(1..4))
            .map(|_| {
                *counter += 1;
                format!("{counter}{}", "x".repeat(rng.random_range(0..200)))
            })
            .collect()
    };
    let data = |epoch, sequence, values: &[String]| {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let batch = transactional(id, epoch, sequence, &values);
        Entry::new().append(partition, batch, SequenceRule::Window)
    };
    let values = texts();
    let (change, refused, entry) = match rng.random_range(0..20) {
        0..3 => {
            let plain: Vec<&str> = values.iter().map(String::as_str).collect();
            let entry = Entry::new().append(partition, batch(&plain), SequenceRule::None);
            (Change::Plain(number, values), false, entry)
        }
        3..11 => {
            let entry = data(known.epoch, known.next, &values);
            (Change::Data(number, id, values), false, entry)
        }
        11 => match &known.last {
            Some((sequence, values)) => {
                (Change::Nothing, false, data(known.epoch, *sequence, values))
            }
            None => (Change::Nothing, false, Entry::new().put("t", "k", "v")),
        },
        12 if known.epoch > 0 => {
            let entry = data(known.epoch - 1, known.next, &values);
            (Change::Nothing, true, entry)
        }
        13 if known.open.is_some() => {
            let plain: Vec<&str> = values.iter().map(String::as_str).collect();
            let batch = produced(id, known.epoch, known.next, &plain);
            let entry = Entry::new().append(partition, batch, SequenceRule::Window);
            (Change::Nothing, true, entry)
        }
        14 => {
            let log_start = rng.random_range(0..=model.end(number));
            let entry = Entry::new().with(Command::Trim {
                partition,
                log_start,
            });
            (Change::Trim(number, log_start), false, entry)
        }
        _ => {
            let newest = (0..PARTITIONS)
                .filter_map(|p| model.producers.get(&(p, id)))
                .map(|producer| producer.epoch)
                .max()
                .unwrap_or(0);
            let epoch = newest + i16::from(rng.random_bool(0.2));
            let partitions: BTreeSet<u32> = (0..PARTITIONS)
                .filter(|p| *p == number || rng.random_bool(0.5))
                .collect();
            let commit = rng.random_bool(0.5);
            let named = partitions
                .iter()
                .map(|p| world.stream.partition(*p))
                .collect();
            let end = Command::end_transaction(id, epoch, named, commit, 0, 5).unwrap();
            let change = Change::End {
                partitions,
                producer: id,
                epoch,
                commit,
            };
            (change, false, Entry::new().with(end))
        }
    };
    (change, refused, Box::pin(world.kernel.write(entry)))
}

fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut disk = SimDisk::default();
    let mut model = Model::default();
    let mut counter = 0;
    for _life in 0..3 {
        let mut world = open_in_the_end(&mut disk, &mut rng, World::new)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        disk.crash_after(rng.random_range(20..300));
        let mut maybe: Vec<Change> = Vec::new();
        'work: for _ in 0..100 {
            let mut optimistic = model.clone();
            let mut sent: Vec<(Change, bool, Written)> = Vec::new();
            for _ in 0..rng.random_range(1..5) {
                let entry = random_entry(&world, &optimistic, &mut rng, &mut counter);
                optimistic.apply(&entry.0);
                sent.push(entry);
            }
            while world.stepper.step() {}
            for (change, refused, mut written) in sent {
                match poll(written.as_mut()).expect("the writer has answered") {
                    Ok(outcomes) if maybe.is_empty() => {
                        let was_refused = matches!(outcomes[0], Outcome::Refused(_));
                        assert_eq!(
                            was_refused, refused,
                            "seed {seed}: {change:?}: {outcomes:?}"
                        );
                        model.apply(&change);
                    }
                    _ => maybe.push(change),
                }
            }
            if !maybe.is_empty() {
                break 'work;
            }
            if rng.random_bool(0.1) {
                drive(&mut world.stepper, world.kernel.maintain());
            }
            if rng.random_bool(0.3) && !disk.is_off() {
                disk.never_crash();
                assert_eq!(world.visible(), model.visible(), "seed {seed}");
                disk.crash_after(rng.random_range(20..300));
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
        let acknowledged = model.visible();
        let mut same = (acknowledged == found).then(|| model.clone());
        // Of what was not acknowledged a prefix may be there.
        for change in &maybe {
            model.apply(change);
            if model.visible() == found {
                same = Some(model.clone());
            }
        }
        match same {
            Some(same) => model = same,
            None => {
                assert_eq!(found, acknowledged, "seed {seed}, {maybe:?} unacknowledged");
                return;
            }
        }
        drop(world);
    }
}

#[test]
fn the_fate_of_every_transaction_survives_power_cuts() {
    if let Some(seed) = std::env::var("SIM_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        return run(seed);
    }
    let first: u64 = rand::random::<u32>().into();
    println!("seeds {first} to {}", first + 79);
    (first..first + 80).for_each(run);
}
