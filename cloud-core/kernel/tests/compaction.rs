//! Compaction and copy-forward, on one thread, against a plain model: no newest value is lost, no record moves or changes, deletions go when their
//! time is over, and what power cuts interrupt is as before or as after. `COMPACTION_SEED=n` runs one seed.

#[path = "support/objects.rs"]
mod objects;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use kernel::ports::MemoryColdStore;
use kernel::{Kernel, KernelConfig, PartitionId, Ports, SequenceRule, Stepper, StreamSpec};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use record::{Batch, BatchBuilder, Compression, NewRecord};
use sim::batches::address;
use sim::clock::SimClock;
use sim::disk::SimDisk;
use sim::spawner::SimSpawner;
use sim::stepped::{self, drive};

/// Offset, key, value.
type Log = BTreeMap<i64, (String, Option<String>)>;

struct World {
    disk: SimDisk,
    clock: SimClock,
    cold: MemoryColdStore,
    kernel: Kernel,
    stepper: Stepper,
}

impl World {
    fn new() -> World {
        World::on(
            SimDisk::default(),
            SimClock::default(),
            MemoryColdStore::default(),
            64 << 20,
        )
    }

    fn tend(&mut self) {
        let kernel = self.kernel.clone();
        drive(&mut self.stepper, kernel.tend_cold()).unwrap();
    }

    /// What a restoration into a fresh directory finds of a partition, and whether it used a checkpoint.
    fn restored(&self, partition: PartitionId) -> (bool, Log) {
        // What it claims in the store is its own.
        let cold = objects::copy(&self.cold);
        let disk = SimDisk::default();
        let ports = Ports {
            disk: Arc::new(disk.clone()),
            clock: Arc::new(self.clock.clone()),
            cold: Arc::new(cold.clone()),
            spawner: Arc::new(SimSpawner::default()),
        };
        let report = stepped::poll(std::pin::pin!(kernel::restore(&ports, None)));
        let checkpoint = report.unwrap().unwrap().checkpoint;
        let mut world = World::on(disk, self.clock.clone(), cold, 64 << 20);
        (checkpoint.is_some(), world.log(partition))
    }

    fn on(disk: SimDisk, clock: SimClock, cold: MemoryColdStore, compaction_bytes: usize) -> World {
        let ports = Ports {
            disk: Arc::new(disk.clone()),
            clock: Arc::new(clock.clone()),
            cold: Arc::new(cold.clone()),
            spawner: Arc::new(SimSpawner::default()),
        };
        let config = KernelConfig {
            segment_bytes: 8192,
            compaction_bytes,
            ..stepped::config()
        };
        let (kernel, stepper) = Kernel::open_stepped(ports, config).unwrap();
        World {
            disk,
            clock,
            cold,
            kernel,
            stepper,
        }
    }

    fn crash(self, seed: u64, compaction_bytes: usize) -> World {
        let disk = self.disk.after_crash(seed);
        let (clock, cold) = (self.clock.clone(), self.cold.clone());
        drop(self);
        World::on(disk, clock, cold, compaction_bytes)
    }

    fn stream(&mut self, name: &str, partitions: u32, config: &[(&str, &str)]) -> kernel::StreamId {
        let kernel = self.kernel.clone();
        let config = config
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let address = address(name);
        let created = kernel.create_stream(&address, StreamSpec { partitions, config });
        drive(&mut self.stepper, created).unwrap().id
    }

    fn append(&mut self, partition: PartitionId, batch: Batch) -> i64 {
        let append = self.kernel.append(partition, batch, SequenceRule::None);
        drive(&mut self.stepper, append).unwrap().base_offset
    }

    fn seal(&mut self) {
        let kernel = self.kernel.clone();
        drive(&mut self.stepper, kernel.seal_all()).unwrap();
    }

    /// As long as there is something to rewrite.
    fn rewrite(&mut self) -> usize {
        let kernel = self.kernel.clone();
        (0..1000)
            .take_while(|_| drive(&mut self.stepper, kernel.rewrite()).unwrap())
            .count()
    }

    fn maintain(&mut self) {
        let kernel = self.kernel.clone();
        drive(&mut self.stepper, kernel.maintain());
    }

    /// Everything that readers see.
    fn log(&mut self, partition: PartitionId) -> Log {
        let kernel = self.kernel.clone();
        let mut log = Log::new();
        let marks = kernel.watermarks(partition).unwrap();
        let mut offset = marks.log_start;
        while offset < marks.high_watermark {
            let read = drive(&mut self.stepper, kernel.read(partition, offset, 4000)).unwrap();
            for batch in &read.batches {
                for record in batch.records().unwrap() {
                    let record = record.unwrap();
                    let text = |b: Bytes| String::from_utf8(b.to_vec()).unwrap();
                    let fresh = log.insert(
                        record.offset,
                        (text(record.key.unwrap()), record.value.map(text)),
                    );
                    assert!(fresh.is_none(), "offset {} twice", record.offset);
                }
            }
            assert!(
                read.next_offset > offset,
                "reading stands still at {offset}"
            );
            offset = read.next_offset;
        }
        log
    }
}

fn keyed(records: &[(String, Option<String>)], compression: Compression) -> Batch {
    keyed_at(1_700_000_000_000, records, compression)
}

fn keyed_at(
    timestamp: i64,
    records: &[(String, Option<String>)],
    compression: Compression,
) -> Batch {
    let mut builder = BatchBuilder::new().compression(compression);
    for (key, value) in records {
        let record = NewRecord {
            timestamp,
            key: Some(key.clone().into()),
            value: value.clone().map(Into::into),
            headers: Vec::new(),
        };
        builder.push(&record).unwrap();
    }
    builder.build().unwrap()
}

/// What holds at any time: nothing that is there differs from what was written, and the newest record of each key is there, unless it
/// is a deletion.
fn check(all: &Log, seen: &Log, seed: u64) {
    let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
    for (offset, (key, _)) in all {
        newest.insert(key, *offset);
    }
    for (offset, record) in seen {
        assert_eq!(
            all.get(offset),
            Some(record),
            "seed {seed}: offset {offset} changed"
        );
    }
    for (key, offset) in newest {
        let deleted = all[&offset].1.is_none();
        assert!(
            seen.contains_key(&offset) || deleted,
            "seed {seed}: the newest value of {key}, at {offset}, is gone"
        );
        if deleted && !seen.contains_key(&offset) {
            let older = seen.iter().find(|(_, (other, _))| other == key);
            assert_eq!(
                older, None,
                "seed {seed}: {key} was deleted and is there again"
            );
        }
    }
}

/// What is superseded, and the deletion that did it, are gone from the log, but their segments are still in the store.
#[test]
fn what_compaction_removed_is_not_back_after_the_disk_died() {
    let mut world = World::new();
    let settings = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0"),
        ("delete.retention.ms", "10000"),
    ];
    let p = world.stream("compacted", 1, &settings).partition(0);
    let all = [("k", Some("old")), ("k", None), ("other", Some("v"))];
    for (key, value) in all {
        let record = (key.to_owned(), value.map(str::to_owned));
        world.append(p, keyed(&[record], Compression::None));
        world.seal();
        world.rewrite();
        world.clock.advance(11_000_000);
        world.rewrite();
    }
    let seen = world.log(p);
    assert_eq!(seen.keys().collect::<Vec<_>>(), [&2]);
    world.clock.advance(4_000_000_000);
    world.tend();
    let segments = objects::names(&world.cold, "/segments/");
    assert!(segments.len() > 3);
    let checkpoints = objects::names(&world.cold, "/checkpoints/");
    assert_eq!(checkpoints.len(), 1);
    assert_eq!(world.restored(p), (true, seen.clone()));

    // Without the checkpoint what is superseded must be known by the segments that took its place.
    let checkpoint = objects::take(&world.cold, &checkpoints[0]);
    assert_eq!(world.restored(p), (false, seen.clone()));
    objects::put(&world.cold, &checkpoints[0], checkpoint);

    // What was replaced and what replaced it are deleted one by one, and a deletion may fail: then the oldest is there alone, and the checkpoint
    // says that nothing is left in its place.
    let oldest = objects::take(&world.cold, &segments[0]);
    for segment in &segments[1..] {
        let object = objects::take(&world.cold, segment);
        if world.restored(p).1 != seen {
            objects::put(&world.cold, segment, object);
        }
    }
    let needed = objects::names(&world.cold, "/segments/");
    assert!(needed.len() < segments.len() - 1, "{needed:?}");
    objects::put(&world.cold, &segments[0], oldest);
    assert_eq!(world.restored(p), (true, seen));
}

fn one_life(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let compaction_bytes = if rng.random_bool(0.5) {
        64 << 20
    } else {
        40 * 12
    };
    let mut world = World::on(
        SimDisk::default(),
        SimClock::default(),
        MemoryColdStore::default(),
        compaction_bytes,
    );
    let stream = world.stream(
        "compacted",
        2,
        &[
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0"),
            ("delete.retention.ms", "10000"),
        ],
    );
    let mut all: BTreeMap<PartitionId, Log> = BTreeMap::new();
    for _ in 0..rng.random_range(20..60) {
        let partition = stream.partition(rng.random_range(0..2));
        match rng.random_range(0..10) {
            0..5 => {
                let records: Vec<_> = (0..rng.random_range(1..12))
                    .map(|_| {
                        let key = format!("key-{}", rng.random_range(0..30));
                        let value = rng
                            .random_bool(0.8)
                            .then(|| "v".repeat(rng.random_range(0..60)));
                        (key, value)
                    })
                    .collect();
                let codec = [Compression::None, Compression::Lz4, Compression::Zstd]
                    [rng.random_range(0..3)];
                let base = world.append(partition, keyed(&records, codec));
                all.entry(partition)
                    .or_default()
                    .extend((base..).zip(records));
            }
            5 => world.seal(),
            6 => {
                world.rewrite();
            }
            7 => world.clock.advance(rng.random_range(0..8_000_000)),
            8 => world.maintain(),
            _ => {
                // The power goes while something is rewritten, or just so.
                if rng.random_bool(0.5) {
                    world.disk.crash_after(rng.random_range(0..6));
                    let kernel = world.kernel.clone();
                    let mut rewriting = Box::pin(kernel.rewrite());
                    for _ in 0..20 {
                        if stepped::poll(rewriting.as_mut()).is_some() {
                            break;
                        }
                        world.stepper.step();
                    }
                }
                world = world.crash(rng.random(), compaction_bytes);
            }
        }
        for (partition, all) in &all {
            check(all, &world.log(*partition), seed);
        }
    }
    // In the end, everything cold, compacted, and the time of deletions over: exactly the newest values are left.
    world.seal();
    world.rewrite();
    world.clock.advance(11_000_000);
    world.rewrite();
    world = world.crash(seed, compaction_bytes);
    for (partition, all) in &all {
        let seen = world.log(*partition);
        check(all, &seen, seed);
        if compaction_bytes > 1 << 20 {
            let mut newest = all.clone();
            let end = world.kernel.watermarks(*partition).unwrap().end;
            newest.retain(|offset, (key, value)| {
                (value.is_some() || *offset + 1 == end)
                    && !all.range(offset + 1..).any(|(_, (other, _))| other == key)
            });
            assert_eq!(seen, newest, "seed {seed}: more is left than has to be");
        }
    }
}

#[test]
fn random_lives() {
    if let Some(seed) = std::env::var("COMPACTION_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
    {
        return one_life(seed);
    }
    let first: u64 = rand::random::<u32>().into();
    for seed in first..first + 60 {
        let life = std::panic::catch_unwind(|| one_life(seed));
        if let Err(panic) = life {
            eprintln!("COMPACTION_SEED={seed} replays it");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_deletion_that_was_the_last_record_goes_when_it_is_not_any_more() {
    let mut world = World::new();
    let settings = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0"),
        ("delete.retention.ms", "10000"),
    ];
    let partition = world.stream("s", 1, &settings).partition(0);
    let compact = |world: &mut World| {
        world.seal();
        world.rewrite();
        world.clock.advance(11_000_000);
        world.rewrite();
    };
    world.append(
        partition,
        keyed(&[("a".to_owned(), None)], Compression::None),
    );
    compact(&mut world);
    assert_eq!(world.log(partition).len(), 1, "the last record stays");
    let later = [("b".to_owned(), Some("1".to_owned()))];
    world.append(partition, keyed(&later, Compression::None));
    compact(&mut world);
    let left: Vec<_> = world.log(partition).into_keys().collect();
    assert_eq!(left, [1]);
}

#[test]
fn the_newest_of_each_key_is_left_and_deletions_go_later() {
    let mut world = World::new();
    let settings = [
        ("cleanup.policy", "compact"),
        ("delete.retention.ms", "10000"),
    ];
    let partition = world.stream("s", 1, &settings).partition(0);
    let put = |key: &str, value: Option<&str>| (key.to_owned(), value.map(str::to_owned));
    for records in [
        vec![put("a", Some("1")), put("b", Some("1"))],
        vec![put("a", Some("2")), put("c", Some("1"))],
        vec![put("b", None), put("c", Some("2"))],
    ] {
        world.append(partition, keyed(&records, Compression::Lz4));
    }
    world.seal();
    // What is in memory is seen from there until it leaves: a new life begins with a cold memory.
    assert_eq!(world.rewrite(), 1);
    world.maintain();
    world = world.crash(1, 64 << 20);
    assert_eq!(
        world.log(partition),
        Log::from([
            (2, put("a", Some("2"))),
            (4, put("b", None)),
            (5, put("c", Some("2")))
        ])
    );
    world.clock.advance(9_000_000);
    assert_eq!(
        world.rewrite(),
        0,
        "the deletion was there for 9 seconds only"
    );
    world.clock.advance(1_000_000);
    assert_eq!(world.rewrite(), 1);
    assert_eq!(world.rewrite(), 0, "there is nothing left to do");
    assert_eq!(
        world.log(partition),
        Log::from([(2, put("a", Some("2"))), (5, put("c", Some("2")))])
    );
    let marks = world.kernel.watermarks(partition).unwrap();
    assert_eq!((marks.log_start, marks.end), (0, 6));
    // Offsets go on where they were.
    assert_eq!(
        world.append(partition, keyed(&[put("d", Some("1"))], Compression::None)),
        6
    );
}

#[test]
fn segments_that_are_mostly_dead_are_copied_and_their_objects_go() {
    let mut world = World::new();
    let gone = world.stream("gone", 1, &[]).partition(0);
    let kept = world.stream("kept", 1, &[]).partition(0);
    let mut all = Log::new();
    for round in 0..6 {
        for partition in [gone, kept, gone] {
            let record = (
                "k".to_owned(),
                Some(format!("{round} {}", "x".repeat(2000))),
            );
            let offset = world.append(
                partition,
                keyed(std::slice::from_ref(&record), Compression::None),
            );
            if partition == kept {
                all.insert(offset, record);
            }
        }
    }
    world.seal();
    assert_eq!(world.rewrite(), 0, "everything is alive");
    let before = world.kernel.stats();
    let trim = world.kernel.clone();
    let end = trim.watermarks(gone).unwrap().end;
    drive(&mut world.stepper, trim.trim(gone, end)).unwrap();
    assert!(world.rewrite() > 0);
    assert_eq!(world.log(kept), all);
    let after = world.kernel.stats();
    assert!(after.segments <= before.segments, "{after:?}");
    assert!(
        after.cold_bytes < before.cold_bytes * 2 / 3,
        "{} of {}",
        after.cold_bytes,
        before.cold_bytes
    );
    world = world.crash(3, 64 << 20);
    assert_eq!(world.log(kept), all);
}

/// Found by the simulator: the ranges of a partition in one segment are replaced together, also those that a pass did not look at.
#[test]
fn what_a_pass_did_not_look_at_is_carried_over() {
    // Room for three keys.
    let room = 40 * 3;
    let mut world = World::on(
        SimDisk::default(),
        SimClock::default(),
        MemoryColdStore::default(),
        room,
    );
    let mut settings = vec![
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0"),
        ("delete.retention.ms", "1000"),
    ];
    let partition = world.stream("s", 1, &settings).partition(0);
    let put = |key: &str, value: Option<&str>| (key.to_owned(), value.map(str::to_owned));
    let old = [put("a", None), put("b", Some("1"))];
    let young = [
        put("c", Some("1")),
        put("d", Some("1")),
        put("e", Some("1")),
    ];
    let now = 1_700_000_000_000;
    world.append(
        partition,
        keyed_at(now - 7_200_000, &old, Compression::None),
    );
    world.append(partition, keyed_at(now, &young, Compression::None));
    world.seal();
    // The table is full at the second batch: one segment has what was compacted, and behind it what was not.
    let kernel = world.kernel.clone();
    assert!(drive(&mut world.stepper, kernel.rewrite()).unwrap());
    // From now on the second is too young to be looked at, and the deletion in the first is over.
    settings.push(("min.compaction.lag.ms", "3600000"));
    let config = settings
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let address = address("s");
    let altered = kernel.alter_stream_config(&address, config);
    drive(&mut world.stepper, altered).unwrap();
    world.clock.advance(2_000_000);
    assert!(drive(&mut world.stepper, kernel.rewrite()).unwrap());
    drop(kernel);
    world.maintain();
    world = world.crash(1, room);
    let left: Vec<i64> = world.log(partition).into_keys().collect();
    assert_eq!(left, [1, 2, 3, 4]);
}

/// Found by the simulator: such a batch was passed over and yet counted as compacted, so that its deletions went before what they deleted.
#[test]
fn a_first_batch_with_more_keys_than_there_is_room_for_is_compacted_all_the_same() {
    // Room for three keys.
    let room = 40 * 3;
    let mut world = World::on(
        SimDisk::default(),
        SimClock::default(),
        MemoryColdStore::default(),
        room,
    );
    let settings = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0"),
        ("delete.retention.ms", "10000"),
    ];
    let partition = world.stream("s", 1, &settings).partition(0);
    let put = |key: &str, value: Option<&str>| (key.to_owned(), value.map(str::to_owned));
    world.append(partition, keyed(&[put("a", Some("1"))], Compression::None));
    world.seal();
    world.rewrite();
    let many = [
        put("a", None),
        put("b", Some("1")),
        put("c", Some("1")),
        put("d", Some("1")),
        put("e", Some("1")),
        put("b", Some("2")),
    ];
    world.append(partition, keyed(&many, Compression::None));
    world.append(partition, keyed(&[put("f", Some("1"))], Compression::None));
    world.seal();
    assert!(world.rewrite() > 0);
    world.maintain();
    world = world.crash(1, room);
    let left = |world: &mut World| world.log(partition).into_keys().collect::<Vec<i64>>();
    assert_eq!(left(&mut world), [1, 3, 4, 5, 6, 7]);
    world.clock.advance(11_000_000);
    world.rewrite();
    world.maintain();
    world = world.crash(2, room);
    assert_eq!(left(&mut world), [3, 4, 5, 6, 7]);
}
