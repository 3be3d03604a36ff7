// long: one kernel with a cold store that can be told to fail, and everything that can happen to the two
//! The cold tier as its users see it: records move to segments and nobody notices, whatever the cold store does.

#[path = "support/faulty_cold.rs"]
mod faulty_cold;

use std::sync::Arc;

use faulty_cold::FaultyCold;
use kernel::ports::Disk;
use kernel::{
    ColdTierError, HolderId, Kernel, KernelConfig, PartitionId, Ports, QueueError, QueueLimits,
    QueueSource, ReadError, SequenceRule, Stepper, StreamSpec, Verdict,
};
use record::ControlRecord;
use sim::batches::{address, batch, produced, stamped, transactional, values};
use sim::clock::SimClock;
use sim::disk::SimDisk;
use sim::spawner::SimSpawner;
use sim::stepped::{self, drive};

/// A kernel on one thread, with a cold store that can be told to fail.
struct World {
    disk: SimDisk,
    clock: SimClock,
    cold: FaultyCold,
    kernel: Kernel,
    stepper: Stepper,
}

fn config() -> KernelConfig {
    KernelConfig {
        segment_bytes: 8192,
        seal_age_ms: 60_000,
        ..stepped::config()
    }
}

impl World {
    fn new() -> World {
        World::on(
            SimDisk::default(),
            SimClock::default(),
            FaultyCold::default(),
        )
    }

    fn on(disk: SimDisk, clock: SimClock, cold: FaultyCold) -> World {
        let ports = Ports {
            disk: Arc::new(disk.clone()),
            clock: Arc::new(clock.clone()),
            cold: Arc::new(cold.clone()),
            spawner: Arc::new(SimSpawner::default()),
        };
        let (kernel, stepper) = Kernel::open_stepped(ports, config()).unwrap();
        World {
            disk,
            clock,
            cold,
            kernel,
            stepper,
        }
    }

    /// As after a power cut; the cold store stays.
    fn crash(self, seed: u64) -> World {
        let disk = self.disk.after_crash(seed);
        let (clock, cold) = (self.clock.clone(), self.cold.clone());
        drop(self);
        World::on(disk, clock, cold)
    }

    fn drive<F: Future>(&mut self, future: F) -> F::Output {
        drive(&mut self.stepper, future)
    }

    fn stream(&mut self, name: &str, partitions: u32) -> kernel::StreamId {
        let kernel = self.kernel.clone();
        let spec = StreamSpec {
            partitions,
            ..StreamSpec::default()
        };
        let address = address(name);
        let created = kernel.create_stream(&address, spec);
        self.drive(created).unwrap().id
    }

    fn append(&mut self, partition: PartitionId, values: &[&str]) -> i64 {
        let append = self
            .kernel
            .append(partition, batch(values), SequenceRule::None);
        self.drive(append).unwrap().base_offset
    }

    /// Appends one record after the other, and gives their values.
    fn fill(&mut self, partition: PartitionId, records: usize) -> Vec<String> {
        let first = self.kernel.watermarks(partition).unwrap().end;
        let all: Vec<String> = (first..first + records as i64)
            .map(|n| format!("{partition}:{n} {}", "x".repeat(200)))
            .collect();
        for value in &all {
            self.append(partition, &[value]);
        }
        all
    }

    fn values(&mut self, partition: PartitionId, from: i64) -> Vec<String> {
        let kernel = self.kernel.clone();
        self.drive(values(&kernel, partition, from))
    }

    fn seal_all(&mut self) -> Result<(), ColdTierError> {
        let kernel = self.kernel.clone();
        self.drive(kernel.seal_all())
    }

    fn maintain(&mut self) {
        let kernel = self.kernel.clone();
        self.drive(kernel.maintain());
    }

    fn end(&self, partition: PartitionId) -> i64 {
        self.kernel.watermarks(partition).unwrap().end
    }

    fn read(&mut self, partition: PartitionId, from: i64) -> Result<kernel::Read, ReadError> {
        let kernel = self.kernel.clone();
        self.drive(kernel.read(partition, from, 1 << 20))
    }
}

#[test]
fn what_is_sealed_is_read_as_before_and_the_log_gets_its_room_back() {
    let mut world = World::new();
    let stream = world.stream("s", 3);
    let mut all = Vec::new();
    for partition in 0..3 {
        all.push(world.fill(stream.partition(partition), 40));
    }
    let files = world.kernel.stats().wal_files;
    assert!(files > 5);
    world.seal_all().unwrap();
    let stats = world.kernel.stats();
    assert_eq!((stats.unsealed_bytes, stats.seal_failures), (0, 0));
    assert!(
        stats.segments > 2 && stats.cold_live_bytes > 24_000,
        "{stats:?}"
    );
    assert_eq!(stats.cold_bytes, stats.sealed_bytes);
    for round in 0..4 {
        for (partition, all) in (0..).zip(&all) {
            let partition = stream.partition(partition);
            assert_eq!(world.values(partition, 0), all[..], "round {round}");
            assert_eq!(world.values(partition, 17), all[17..]);
        }
        match round {
            // Two checkpoints, each of which covers what was sealed, and the files are gone.
            0 => {
                world.fill(stream.partition(0), 30);
                let kernel = world.kernel.clone();
                world.drive(kernel.trim(stream.partition(0), 0)).unwrap();
                world.seal_all().unwrap();
                world.maintain();
                world.fill(stream.partition(1), 30);
                world.seal_all().unwrap();
                world.maintain();
                assert!(world.kernel.stats().wal_files < files);
                all[0] = world.values(stream.partition(0), 0);
                all[1] = world.values(stream.partition(1), 0);
                assert_eq!((all[0].len(), all[1].len()), (70, 70));
            }
            1 => world = world.crash(7),
            _ => {
                let kernel = world.kernel.clone();
                world.drive(kernel.shutdown());
                world = world.crash(8);
            }
        }
    }
}

#[test]
fn sealing_is_due_by_size_and_by_age() {
    let mut world = World::new();
    let p = world.stream("s", 1).partition(0);
    world.fill(p, 3);
    let kernel = world.kernel.clone();
    assert_eq!(world.drive(kernel.seal()), Ok(false));
    assert_eq!(world.kernel.stats().segments, 0);
    {
        let mut due = std::pin::pin!(kernel.wait_seal_due());
        assert!(stepped::poll(due.as_mut()).is_none());
        world.clock.advance(61_000_000);
        world.maintain();
        assert!(stepped::poll(due.as_mut()).is_some());
    }
    assert!(world.kernel.stats().unsealed_age.as_secs() >= 61);
    assert_eq!(world.drive(kernel.seal()), Ok(false));
    assert_eq!(world.kernel.stats().segments, 1);
    assert_eq!(world.kernel.stats().unsealed_bytes, 0);
    {
        let mut due = std::pin::pin!(kernel.wait_seal_due());
        assert!(stepped::poll(due.as_mut()).is_none());
        world.fill(p, 60);
        assert!(stepped::poll(due.as_mut()).is_some());
    }
    while world.drive(kernel.seal()).unwrap() {}
    // What is left is less than a segment, and young.
    let stats = world.kernel.stats();
    assert!(stats.segments >= 2 && stats.unsealed_bytes < 8192);
    assert_eq!(world.values(p, 0).len(), 63);
}

#[test]
fn whatever_the_cold_store_does_nothing_is_lost_and_sealing_goes_on_later() {
    let mut world = World::new();
    let stream = world.stream("s", 2);
    let p = stream.partition(0);
    let mut all = world.fill(p, 20);
    let mut failures = 0;
    // Each operation fails in turn, until one more than there are has passed.
    for operation in 0.. {
        all.extend(world.fill(p, 3));
        world.cold.fail_after(operation, 1);
        let sealed = world.seal_all();
        world.cold.heal();
        assert_eq!(world.values(p, 0), all, "operation {operation}");
        match sealed {
            Ok(()) => break,
            Err(error) => {
                failures += 1;
                assert!(matches!(error, ColdTierError::Store(_)), "{error}");
                let stats = world.kernel.stats();
                assert_eq!(stats.seal_failures, failures);
                assert_eq!(stats.seal_error, Some(error.to_string()));
                assert!(stats.upload_lag_bytes > 0, "{error}");
            }
        }
    }
    assert!(failures > 3, "{failures}");
    world.seal_all().unwrap();
    let stats = world.kernel.stats();
    assert_eq!((stats.unsealed_bytes, stats.seal_error), (0, None));
    assert_eq!(stats.upload_lag_bytes, 0);
    let mut world = world.crash(3);
    assert_eq!(world.values(p, 0), all);
}

#[test]
fn a_cold_store_that_does_not_answer_is_a_retriable_error() {
    let mut world = World::new();
    let p = world.stream("s", 1).partition(0);
    let all = world.fill(p, 60);
    world.seal_all().unwrap();
    world.cold.fail_after(0, u32::MAX);
    assert!(matches!(
        world.read(p, 0),
        Err(ReadError::Unavailable { .. })
    ));
    // The newest is in memory.
    assert_eq!(world.values(p, 55), all[55..]);
    world.cold.heal();
    assert_eq!(world.values(p, 0), all);
}

#[test]
fn damage_in_a_segment_is_reported_and_the_rest_is_read() {
    let mut world = World::new();
    let stream = world.stream("s", 2);
    let (p, q) = (stream.partition(0), stream.partition(1));
    let all = world.fill(p, 40);
    let other = world.fill(q, 40);
    world.seal_all().unwrap();
    // Two segments or more; the first byte of the data of the first is damaged.
    let first = world.cold.segments().remove(0);
    world.cold.damage(&first, |bytes| bytes[100] ^= 1);
    let error = world.read(p, 0).unwrap_err();
    let ReadError::Corrupt { first, last, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(first, 0);
    assert!(last < 39);
    let after = usize::try_from(last).unwrap() + 1;
    assert_eq!(world.values(p, last + 1), all[after..]);
    assert_eq!(world.values(q, 0), other);
    // A footer that is damaged costs the whole segment, no more.
    let name = world.cold.segments().remove(0);
    world.cold.damage(&name, |bytes| {
        let at = bytes.len() - 40;
        bytes[at] ^= 1;
    });
    let mut world = world.crash(1);
    assert!(matches!(world.read(p, 0), Err(ReadError::Corrupt { .. })));
    assert_eq!(world.kernel.stats().corrupt_reads, 1);
}

#[test]
fn damage_in_the_log_does_not_stop_sealing_and_is_reported_afterwards() {
    let mut world = World::new();
    let p = world.stream("s", 1).partition(0);
    let all = world.fill(p, 40);
    // A batch that is no longer in memory.
    let needle = format!("{p}:20 ");
    let find = |bytes: &[u8]| {
        let mut windows = bytes.windows(needle.len());
        windows.position(|w| w == needle.as_bytes())
    };
    let names = world.disk.names("wal");
    let mut found = names.iter().filter(|name| {
        let bytes = world.disk.bytes(name);
        find(&bytes).is_some()
    });
    let path = found.next().unwrap();
    world.disk.damage(path, |bytes| {
        let at = find(bytes).unwrap();
        bytes[at + 50] ^= 1;
    });
    let is_lost = |error| {
        matches!(
            error,
            ReadError::Corrupt {
                first: 20,
                last: 20,
                ..
            }
        )
    };
    assert!(is_lost(world.read(p, 20).unwrap_err()));
    world.seal_all().unwrap();
    assert_eq!(world.kernel.stats().unsealed_bytes, 0);
    assert!(is_lost(world.read(p, 20).unwrap_err()));
    assert_eq!(world.read(p, 0).unwrap().next_offset, 20);
    assert_eq!(world.values(p, 21), all[21..]);
}

#[test]
fn offsets_are_found_by_time_across_the_tiers() {
    let mut world = World::new();
    let p = world.stream("s", 1).partition(0);
    let value = "y".repeat(300);
    for n in 0..60 {
        let append = world
            .kernel
            .append(p, stamped(1000 + n * 10, &value), SequenceRule::None);
        world.drive(append).unwrap();
        if n == 40 {
            world.seal_all().unwrap();
        }
    }
    for (timestamp, expected) in [
        (0, Some((0, 1000))),
        (1000, Some((0, 1000))),
        (1101, Some((11, 1110))),
        (1390, Some((39, 1390))),
        (1405, Some((41, 1410))),
        (1590, Some((59, 1590))),
        (1591, None),
    ] {
        let kernel = world.kernel.clone();
        let found = world.drive(kernel.offset_for_timestamp(p, timestamp));
        assert_eq!(found, Ok(expected), "{timestamp}");
    }
    let kernel = world.kernel.clone();
    world.drive(kernel.trim(p, 20)).unwrap();
    let found = world.drive(kernel.offset_for_timestamp(p, 1000));
    assert_eq!(found, Ok(Some((20, 1200))));
}

#[test]
fn trims_deletions_and_retention_reach_the_cold_store() {
    let mut world = World::new();
    let stream = world.stream("s", 1);
    let p = stream.partition(0);
    let other = world.stream("o", 1).partition(0);
    let all = world.fill(p, 100);
    world.fill(other, 10);
    world.seal_all().unwrap();
    let before = world.kernel.stats();
    let kernel = world.kernel.clone();
    // In the middle of a range: the whole range stays, what is below is not read.
    world.drive(kernel.trim(p, 50)).unwrap();
    assert_eq!(world.values(p, 50), all[50..]);
    assert!(matches!(
        world.read(p, 49),
        Err(ReadError::OutOfRange { log_start: 50, .. })
    ));
    let stats = world.kernel.stats();
    assert!(stats.segments < before.segments && stats.cold_live_bytes < before.cold_live_bytes);
    // By bytes, in whole ranges.
    let config = [("retention.bytes".to_owned(), "3000".to_owned())];
    world
        .drive(kernel.alter_stream_config(&address("s"), config.into()))
        .unwrap();
    world.maintain();
    let start = world.kernel.watermarks(p).unwrap().log_start;
    assert!(start > 50, "{start}");
    assert_eq!(world.values(p, start), all[start as usize..]);
    // By age: the records are of 1970.
    let config = [("retention.ms".to_owned(), "1000".to_owned())];
    world
        .drive(kernel.alter_stream_config(&address("s"), config.into()))
        .unwrap();
    world.maintain();
    assert_eq!(world.kernel.watermarks(p).unwrap().log_start, 100);
    world.drive(kernel.delete_stream(&address("o"))).unwrap();
    assert_eq!(world.kernel.stats().cold_live_bytes, 0);
    assert_eq!(world.kernel.stats().segments, 0);
    let world = world.crash(5);
    assert_eq!(world.kernel.stats().segments, 0);
}

/// The files of a kernel that runs.
fn copy_of(disk: &SimDisk) -> SimDisk {
    let copy = SimDisk::default();
    for directory in ["wal", "checkpoint"] {
        copy.create_dir(directory).unwrap();
        for name in disk.names(directory) {
            let file = copy.create(&name).unwrap();
            file.write_at(0, &[&disk.bytes(&name)]).unwrap();
            file.sync().unwrap();
        }
        copy.sync_dir(directory).unwrap();
    }
    copy.sync_dir("").unwrap();
    copy
}

#[test]
fn a_copy_of_the_data_directory_and_the_original_never_both_write() {
    let mut world = World::new();
    let p = world.stream("s", 1).partition(0);
    let mut all = world.fill(p, 20);
    world.seal_all().unwrap();
    let mut copy = World::on(
        copy_of(&world.disk),
        world.clock.clone(),
        world.cold.clone(),
    );
    // The original goes on while the copy has not sealed anything.
    all.extend(world.fill(p, 5));
    world.seal_all().unwrap();
    copy.fill(p, 7);
    copy.seal_all().unwrap();
    let objects = world.cold.segments();
    all.extend(world.fill(p, 5));
    assert_eq!(world.seal_all(), Err(ColdTierError::Fenced));
    assert!(world.kernel.stats().fenced);
    // Reads and writes go on, also after a restart, and it is not forgotten.
    all.extend(world.fill(p, 5));
    assert_eq!(world.values(p, 0), all);
    let mut world = world.crash(2);
    assert_eq!(world.seal_all(), Err(ColdTierError::Fenced));
    assert_eq!(world.values(p, 0), all);
    // The segment that was uploaded but never logged is there; none after it.
    assert!(world.cold.segments().len() <= objects.len() + 1);
    copy.fill(p, 5);
    copy.seal_all().unwrap();
    let mut copy = copy.crash(3);
    copy.fill(p, 5);
    copy.seal_all().unwrap();
    assert_eq!(copy.values(p, 0).len(), 37);
}

#[test]
fn a_power_cut_at_any_operation_of_sealing_loses_nothing() {
    for operation in 0..200 {
        let mut world = World::new();
        let stream = world.stream("s", 2);
        let mut all = [
            world.fill(stream.partition(0), 20),
            world.fill(stream.partition(1), 15),
        ];
        world.disk.crash_after(operation);
        let kernel = world.kernel.clone();
        let mut done = true;
        {
            let mut work = std::pin::pin!(async {
                kernel.seal_all().await.is_ok() && {
                    kernel.maintain().await;
                    kernel.seal_all().await.is_ok()
                }
            });
            for _ in 0..100 {
                match stepped::poll(work.as_mut()) {
                    Some(ok) => {
                        done = ok;
                        break;
                    }
                    None => drop(world.stepper.step()),
                }
            }
        }
        drop(kernel);
        let off = world.disk.is_off();
        let mut world = world.crash(operation);
        for round in 0..2 {
            for (partition, all) in (0..).zip(&all) {
                let partition = stream.partition(partition);
                assert_eq!(world.values(partition, 0), all[..], "{operation} {round}");
            }
            all[0].extend(world.fill(stream.partition(0), 2));
            world.seal_all().unwrap();
        }
        if !off {
            assert!(done);
            return;
        }
    }
    panic!("sealing takes more operations than the test allows");
}

impl World {
    fn tend(&mut self) -> Result<(), ColdTierError> {
        let kernel = self.kernel.clone();
        self.drive(kernel.tend_cold())
    }

    fn put(&mut self, key: &'static str, value: &str) {
        let entry = kernel::Entry::new().put("t", key, value.to_owned());
        let write = self.kernel.write(entry);
        self.drive(write).unwrap();
    }
}

#[test]
fn dead_segments_and_orphans_are_deleted_and_nothing_else() {
    let mut world = World::new();
    let p = world.stream("s", 1).partition(0);
    let all = world.fill(p, 60);
    world.seal_all().unwrap();
    let named = world.cold.segments();
    let log = world.kernel.stats().cold_log.unwrap();
    // An upload whose end was never logged, one of a newer owner, and something that is none of ours.
    let orphan = kernel::SegmentId::new(1, 1000).key(log);
    let newer = kernel::SegmentId::new(9, 1).key(log);
    let foreign = format!("{log}/segments/readme.txt");
    for key in [&orphan, &newer, &foreign] {
        world.cold.put(key, b"x");
    }
    world.tend().unwrap();
    assert!(!world.cold.segments().contains(&orphan));
    assert!(
        [&newer, &foreign]
            .iter()
            .all(|key| world.cold.segments().contains(key))
    );
    assert!(named.iter().all(|key| world.cold.segments().contains(key)));
    assert_eq!(world.values(p, 0), all);
    // A trim kills segments; their objects stay for a while.
    let kernel = world.kernel.clone();
    world.drive(kernel.trim(p, 40)).unwrap();
    world.tend().unwrap();
    assert!(named.iter().all(|key| world.cold.segments().contains(key)));
    world.clock.advance(61_000_000);
    world.cold.fail_after(1, 1);
    assert!(world.tend().is_err());
    world.cold.heal();
    world.tend().unwrap();
    let left = named
        .iter()
        .filter(|key| world.cold.segments().contains(key));
    assert_eq!(left.count() as u64, world.kernel.stats().segments);
    assert!(world.kernel.stats().segments < named.len() as u64);
    assert_eq!(world.values(p, 40), all[40..]);
}

#[test]
fn whoever_was_fenced_deletes_nothing() {
    let mut world = World::new();
    let p = world.stream("s", 1).partition(0);
    world.fill(p, 60);
    world.seal_all().unwrap();
    let mut copy = World::on(
        copy_of(&world.disk),
        world.clock.clone(),
        world.cold.clone(),
    );
    let q = copy.stream("other", 1).partition(0);
    let theirs = copy.fill(q, 60);
    copy.seal_all().unwrap();
    let kernel = world.kernel.clone();
    world.drive(kernel.trim(p, 60)).unwrap();
    world.clock.advance(4_000_000_000);
    let before = world.cold.segments();
    assert_eq!(world.tend(), Err(ColdTierError::Fenced));
    world.clock.advance(4_000_000_000);
    world.tend().unwrap();
    assert!(world.kernel.stats().fenced);
    assert_eq!(world.cold.segments(), before);
    assert_eq!(copy.values(q, 0), theirs);
}

fn restore(world: &World) -> (World, kernel::Restored) {
    let disk = SimDisk::default();
    let ports = Ports {
        disk: Arc::new(disk.clone()),
        clock: Arc::new(world.clock.clone()),
        cold: Arc::new(world.cold.clone()),
        spawner: Arc::new(SimSpawner::default()),
    };
    let restored = {
        let mut restore = std::pin::pin!(kernel::restore(&ports, None));
        stepped::poll(restore.as_mut()).unwrap().unwrap()
    };
    let world = World::on(disk, world.clock.clone(), world.cold.clone());
    (world, restored)
}

#[test]
fn after_the_disk_died_everything_sealed_is_there_and_no_offset_is_used_twice() {
    let mut world = World::new();
    let stream = world.stream("s", 2);
    let (p, q) = (stream.partition(0), stream.partition(1));
    let mut all = world.fill(p, 40);
    world.put("k", "1");
    world.seal_all().unwrap();
    world.clock.advance(61_000_000);
    world.tend().unwrap();
    assert_eq!(world.cold.keys("/checkpoints/").len(), 1);
    // After the checkpoint: more is sealed, a stream is made, a trim; then some that is only in the log.
    all.extend(world.fill(p, 40));
    let mut other = world.fill(q, 10);
    let late = world.stream("late", 1).partition(0);
    let lately = world.fill(late, 15);
    let kernel = world.kernel.clone();
    world.drive(kernel.trim(p, 10)).unwrap();
    world.put("k", "2");
    world.seal_all().unwrap();
    world.fill(p, 5);
    world.fill(q, 5);
    let ends = [p, q, late].map(|p| world.kernel.watermarks(p).unwrap().end);
    let (mut restored, report) = restore(&world);
    assert_eq!(Some(report.log), world.kernel.stats().cold_log);
    assert!(report.checkpoint.is_some() && report.damaged.is_empty());
    assert_eq!((report.streams, report.epoch), (2, 2));
    for p in [p, q, late] {
        // Readers have all there is, and are not behind by what was given up.
        let marks = restored.kernel.watermarks(p).unwrap();
        let last = restored.read(p, marks.high_watermark - 1).unwrap();
        assert_eq!(last.batches.len(), 1);
        assert_eq!(last.batches[0].next_offset(), marks.high_watermark);
        assert_eq!(marks.last_stable, marks.high_watermark);
        assert!(marks.end > marks.high_watermark + 1_000_000_000);
    }
    for round in 0..2 {
        assert_eq!(restored.values(p, 10)[..70], all[10..], "{round}");
        assert_eq!(restored.values(q, 0)[..10], other[..10]);
        assert_eq!(restored.values(late, 0)[..15], lately);
        if round == 1 {
            break;
        }
        // A reader that had read what is lost does not wait for ever, and meets nothing twice.
        {
            let at_end = [(p, ends[0])];
            let mut waiting = std::pin::pin!(restored.kernel.wait_past(&at_end));
            assert!(stepped::poll(waiting.as_mut()).is_none());
            let append = restored
                .kernel
                .append(p, batch(&["new"]), SequenceRule::None);
            let base = drive(&mut restored.stepper, append).unwrap().base_offset;
            assert!(base > ends[0] + 1_000_000_000, "{base}");
            assert!(stepped::poll(waiting.as_mut()).is_some());
        }
        other.extend(restored.fill(q, 5));
        assert_eq!(restored.values(p, ends[0]), ["new"]);
        assert_eq!(restored.values(q, 10), other[10..]);
        // Tables are as in the checkpoint.
        let value = restored.kernel.table_get("t", b"k").unwrap();
        assert_eq!(value, "1");
        restored.seal_all().unwrap();
        restored = restored.crash(1);
    }
    // The old machine, should it still run, is out.
    world.fill(p, 1);
    assert_eq!(world.seal_all(), Err(ColdTierError::Fenced));
}

#[test]
fn a_partition_of_which_nothing_was_sealed_is_empty_after_the_disk_died_and_not_moved() {
    let mut world = World::new();
    let p = world.stream("s", 1).partition(0);
    world.fill(p, 5);
    world.clock.advance(61_000_000);
    world.tend().unwrap();
    let (mut restored, _) = restore(&world);
    let marks = restored.kernel.watermarks(p).unwrap();
    assert_eq!((marks.log_start, marks.high_watermark), (0, 0));
    // Whoever had read all five is not out of range, and misses nothing.
    assert!(restored.read(p, 5).unwrap().batches.is_empty());
    let base = restored.append(p, &["new"]);
    assert!(base > 1_000_000_000);
    assert_eq!(restored.values(p, 5), ["new"]);
    assert_eq!(restored.values(p, 0), ["new"]);
}

#[test]
fn streams_come_back_as_they_were_set_up_and_deleted_ones_do_not() {
    let mut world = World::new();
    let old = world.stream("old", 1).partition(0);
    world.fill(old, 5);
    let altered = world.stream("altered", 1);
    world.seal_all().unwrap();
    world.clock.advance(61_000_000);
    world.tend().unwrap();
    assert_eq!(world.cold.keys("/checkpoints/").len(), 1);
    // All of this comes after the checkpoint.
    let settings = |pairs: &[(&str, &str)]| {
        let pairs = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        pairs.collect::<std::collections::BTreeMap<_, _>>()
    };
    let config = settings(&[
        ("cleanup.policy", "compact"),
        ("retention.ms", "1234567"),
        ("durability", "quorum"),
    ]);
    let spec = StreamSpec {
        partitions: 3,
        config: config.clone(),
    };
    let kernel = world.kernel.clone();
    let made = world.drive(kernel.create_stream(&address("made"), spec));
    let made = made.unwrap();
    world.fill(made.id.partition(1), 5);
    let other = settings(&[("retention.bytes", "99")]);
    let name = address("altered");
    let alter = kernel.alter_stream_config(&name, other.clone());
    world.drive(alter).unwrap();
    world.drive(kernel.delete_stream(&address("old"))).unwrap();
    world.seal_all().unwrap();
    // Without a segment of its own: the list comes a little later.
    world.stream("empty", 2);
    world.tend().unwrap();
    assert_eq!(world.cold.keys("/streams/").len(), 2);
    let (restored, report) = restore(&world);
    assert!(report.stream_list > report.checkpoint);
    let found = restored.kernel.stream(&address("made")).unwrap();
    assert_eq!(
        (&found.config, found.partitions, found.uuid),
        (&config, 3, made.uuid)
    );
    assert_eq!(found.created_at, made.created_at);
    let found = restored.kernel.stream(&address("altered")).unwrap();
    assert_eq!((&found.config, found.id), (&other, altered));
    assert_eq!(
        restored
            .kernel
            .stream(&address("empty"))
            .unwrap()
            .partitions,
        2
    );
    assert!(restored.kernel.stream(&address("old")).is_none());
    // Without any checkpoint, too; and a damaged list costs what came after the one before.
    for key in world.cold.keys("/checkpoints/") {
        world.cold.damage(&key, |bytes| bytes.truncate(9));
    }
    let newest = world.cold.keys("/streams/").pop().unwrap();
    world.cold.damage(&newest, |bytes| bytes[20] ^= 1);
    let (restored, report) = restore(&world);
    assert_eq!((report.checkpoint, report.damaged.len()), (None, 2));
    let found = restored.kernel.stream(&address("made")).unwrap();
    assert_eq!((&found.config, found.partitions), (&config, 3));
    assert!(restored.kernel.stream(&address("empty")).is_none());
    assert!(restored.kernel.stream(&address("old")).is_none());
}

/// The streams change seldom, and the checkpoint is written again all the time: that the list is the older of the two is no loss.
#[test]
fn a_list_of_streams_that_is_older_than_the_checkpoint_says_as_much_as_a_newer_one() {
    let index = |key: &String| {
        let name = key.rsplit('/').next().unwrap();
        name.split('.').next().unwrap().parse::<u64>().unwrap()
    };
    // Made anew, for a restoration fences.
    let made = || {
        let mut world = World::new();
        let p = world.stream("s", 1).partition(0);
        for _ in 0..2 {
            world.fill(p, 5);
            world.seal_all().unwrap();
            world.clock.advance(61_000_000);
            world.tend().unwrap();
        }
        let lists: Vec<u64> = world.cold.keys("/streams/").iter().map(index).collect();
        let newest = world.cold.keys("/checkpoints/").last().map(index);
        assert!(newest > lists.last().copied(), "{lists:?} {newest:?}");
        (world, newest)
    };
    let (world, newest) = made();
    let (_, report) = restore(&world);
    assert_eq!((report.checkpoint, report.stream_list), (newest, newest));
    // That it is damaged does not matter any more, either; it is told.
    let list = world.cold.keys("/streams/").pop().unwrap();
    world.cold.damage(&list, |bytes| bytes[20] ^= 1);
    let (_, report) = restore(&world);
    assert_eq!((report.stream_list, report.damaged.len()), (newest, 1));
    // But one that is newer and cannot be read is missed,
    let (mut world, newest) = made();
    world.stream("later", 1);
    world.tend().unwrap();
    let list = world.cold.keys("/streams/").pop().unwrap();
    assert!(Some(index(&list)) > newest);
    world.cold.damage(&list, |bytes| bytes[20] ^= 1);
    let (_, report) = restore(&world);
    assert_eq!((report.checkpoint, report.stream_list), (newest, None));
    // and so is one where there is none at all.
    let (world, newest) = made();
    for key in world.cold.keys("/streams/") {
        world.cold.drop_object(&key);
    }
    let (_, report) = restore(&world);
    assert_eq!((report.checkpoint, report.stream_list), (newest, None));
}

#[test]
fn the_last_stream_does_not_come_back_if_it_was_deleted_after_a_restart() {
    let mut world = World::new();
    let stream = world.stream("s", 1);
    world.fill(stream.partition(0), 5);
    world.seal_all().unwrap();
    world.tend().unwrap();
    let mut world = world.crash(1);
    let kernel = world.kernel.clone();
    let name = address("s");
    world.drive(kernel.delete_stream(&name)).unwrap();
    world.tend().unwrap();
    let (restored, _) = restore(&world);
    assert!(restored.kernel.stream(&address("s")).is_none());
}

#[test]
fn what_is_in_the_cold_store_of_a_producer_is_not_taken_twice_after_the_disk_died() {
    let mut world = World::new();
    let p = world.stream("s", 1).partition(0);
    let send = |world: &mut World, sequence: i32, rule| {
        let sent = produced(7, 0, sequence, &[&sequence.to_string()]);
        let append = world.kernel.append(p, sent, rule);
        world.drive(append).map(|appended| appended.duplicate)
    };
    for sequence in 0..4 {
        assert_eq!(send(&mut world, sequence, SequenceRule::Window), Ok(false));
    }
    world.seal_all().unwrap();
    world.clock.advance(61_000_000);
    assert_eq!(send(&mut world, 4, SequenceRule::Window), Ok(false));
    // The checkpoint knows one that is not sealed before the next, and not at all in the end.
    world.tend().unwrap();
    assert_eq!(world.cold.keys("/checkpoints/").len(), 1);
    world.seal_all().unwrap();
    for sequence in 5..8 {
        assert_eq!(send(&mut world, sequence, SequenceRule::Window), Ok(false));
    }
    world.seal_all().unwrap();
    world.clock.advance(61_000_000);
    for sequence in 8..12 {
        assert_eq!(send(&mut world, sequence, SequenceRule::Window), Ok(false));
    }
    world.tend().unwrap();
    let (mut restored, _) = restore(&world);
    // 7 is there; 8 was acknowledged and lost, and so is taken when it comes again; 12 goes on where the producer is.
    assert_eq!(send(&mut restored, 7, SequenceRule::Window), Ok(true));
    assert_eq!(send(&mut restored, 6, SequenceRule::Strict), Ok(true));
    let mut again = restored.crash(1);
    assert_eq!(send(&mut again, 12, SequenceRule::Window), Ok(false));
    assert_eq!(send(&mut again, 12, SequenceRule::Window), Ok(true));
    // From there on it is as ever.
    assert!(send(&mut again, 14, SequenceRule::Window).is_err());
    assert_eq!(send(&mut again, 13, SequenceRule::Window), Ok(false));
    let all = again.values(p, 0);
    assert_eq!(all, ["0", "1", "2", "3", "4", "5", "6", "7", "12", "13"]);
    let (mut restored, _) = restore(&world);
    assert_eq!(send(&mut restored, 8, SequenceRule::Window), Ok(false));
}

/// What a client shows that reads what is committed: it is told where aborted transactions begin, and meets their ends in the log.
fn shown(world: &mut World, partition: PartitionId) -> Vec<String> {
    let kernel = world.kernel.clone();
    let mut left_out = std::collections::BTreeSet::new();
    let mut shown = Vec::new();
    let mut offset = 0;
    loop {
        let read = kernel.read_stable(partition, offset, 1 << 20);
        let (read, mut aborted) = world.drive(read).unwrap();
        if read.batches.is_empty() {
            return shown;
        }
        offset = read.next_offset;
        for batch in &read.batches {
            let begun = aborted.extract_if(.., |a| a.first_offset <= batch.last_offset());
            left_out.extend(begun.map(|aborted| aborted.producer_id));
            let producer = batch.producer_id();
            if let Some(ControlRecord::Abort { .. }) = ControlRecord::from_batch(batch) {
                left_out.remove(&producer);
            }
            if batch.is_control() || batch.is_transactional() && left_out.contains(&producer) {
                continue;
            }
            let values = batch.records().unwrap().map(|r| r.unwrap().value.unwrap());
            shown.extend(values.map(|value| String::from_utf8(value.to_vec()).unwrap()));
        }
    }
}

#[test]
fn a_transaction_that_was_open_when_the_disk_died_hides_nothing_that_its_producer_commits_later() {
    for in_checkpoint in [false, true] {
        let mut world = World::new();
        let p = world.stream("s", 1).partition(0);
        world.append(p, &["before"]);
        let write = |world: &mut World, value| {
            let sent = transactional(7, 3, 0, &[value]);
            let append = world.kernel.append(p, sent, SequenceRule::Window);
            world.drive(append).unwrap();
        };
        write(&mut world, "undecided");
        world.seal_all().unwrap();
        if in_checkpoint {
            world.clock.advance(61_000_000);
            world.tend().unwrap();
        }
        let (restored, report) = restore(&world);
        assert_eq!(report.checkpoint.is_some(), in_checkpoint);
        // Also when the first process is gone before anything of it is durable.
        let mut restored = restored.crash(1);
        write(&mut restored, "new");
        let commit = restored.kernel.end_transaction(7, 3, vec![p], true, 0);
        restored.drive(commit).unwrap();
        for _ in 0..2 {
            assert_eq!(shown(&mut restored, p), ["before", "new"]);
            assert_eq!(restored.kernel.open_transactions(i64::MAX), []);
            restored.seal_all().unwrap();
            restored = restored.crash(2);
        }
    }
}

#[test]
fn a_record_that_retention_takes_while_it_is_read_for_a_queue_is_not_handed_out() {
    let mut world = World::new();
    let p = world.stream("s", 1).partition(0);
    world.fill(p, 60);
    let queue = world.kernel.queue(&"q".into(), Arc::new(()));
    let sources = vec![QueueSource {
        partition: p,
        from: 0,
    }];
    world.drive(queue.set_sources(sources)).unwrap();
    let first = world.drive(queue.acquire(HolderId(1), 2, usize::MAX));
    assert_eq!(first.len(), 2);
    queue.release_holder(HolderId(1));
    world.seal_all().unwrap();
    world.cold.hold_reads(true);
    let mut taking = std::pin::pin!(queue.acquire(HolderId(2), 1, usize::MAX));
    for _ in 0..10 {
        assert!(stepped::poll(taking.as_mut()).is_none());
        world.stepper.step();
    }
    let kernel = world.kernel.clone();
    world.drive(kernel.trim(p, 5)).unwrap();
    world.maintain();
    world.cold.hold_reads(false);
    let taken = world.drive(taking);
    let taken: Vec<_> = taken.iter().map(|t| (t.id.offset, t.redelivered)).collect();
    assert_eq!(taken, [(5, false)]);
}

#[test]
fn what_is_rejected_while_the_cold_store_does_not_answer_is_no_dead_letter_yet_and_not_lost() {
    let mut world = World::new();
    let p = world.stream("s", 1).partition(0);
    let dead = world.stream("dead", 1).partition(0);
    let values = world.fill(p, 3);
    let queue = world.kernel.queue(&"q".into(), Arc::new(()));
    let sources = vec![QueueSource {
        partition: p,
        from: 0,
    }];
    world.drive(queue.set_sources(sources)).unwrap();
    queue.set_limits(QueueLimits {
        max_deliveries: Some(1),
        dead_letter: Some(dead),
        lease_ms: None,
    });
    let mine = world.drive(queue.acquire(HolderId(1), 2, usize::MAX));
    let theirs = world.drive(queue.acquire(HolderId(2), 1, usize::MAX));
    world.seal_all().unwrap();
    // Nothing is left in memory that could be read instead.
    world.fill(p, 60);
    world.seal_all().unwrap();
    world.maintain();
    world.cold.fail_after(0, u32::MAX);
    let ids: Vec<_> = mine.iter().map(|taken| taken.id).collect();
    let rejected = world.drive(queue.settle(&ids, Verdict::Reject));
    assert_eq!(rejected, Err(QueueError::Unreadable));
    queue.release_holder(HolderId(2));
    world.maintain();
    assert_eq!(theirs.len(), 1);
    assert_eq!((queue.in_flight(), world.end(dead)), (3, 0));
    world.cold.heal();
    world.maintain();
    assert_eq!(world.values(dead, 0), values[2..3]);
    assert_eq!(world.drive(queue.settle(&ids, Verdict::Reject)), Ok(2));
    assert_eq!(world.values(dead, 1), values[..2]);
    assert_eq!(queue.in_flight(), 0);
}

#[test]
fn a_damaged_checkpoint_in_the_cold_store_costs_no_records() {
    let mut world = World::new();
    let p = world.stream("s", 1).partition(0);
    let all = world.fill(p, 30);
    world.seal_all().unwrap();
    world.clock.advance(61_000_000);
    world.tend().unwrap();
    let key = world.cold.keys("/checkpoints/").remove(0);
    world.cold.damage(&key, |bytes| {
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
    });
    let (mut restored, report) = restore(&world);
    assert_eq!(report.checkpoint, None);
    assert_eq!(report.damaged.len(), 1);
    assert_eq!(restored.values(p, 0), all);
    assert!(restored.kernel.stream(&address("s")).is_some());
    let stream = restored.stream("new", 1);
    assert!(stream > p.stream);
}

#[test]
fn checkpoints_in_the_cold_store_are_few_and_come_when_something_changed() {
    let mut world = World::new();
    let p = world.stream("s", 1).partition(0);
    for round in 0..6 {
        world.fill(p, 3);
        world.clock.advance(61_000_000);
        world.tend().unwrap();
        let keys = world.cold.keys("/checkpoints/");
        assert_eq!(keys.len(), 2.min(round + 1), "{keys:?}");
        // Nothing has changed.
        world.clock.advance(61_000_000);
        world.tend().unwrap();
        world.clock.advance(61_000_000);
        world.tend().unwrap();
        let last = world.cold.keys("/checkpoints/").pop();
        world.clock.advance(61_000_000);
        world.tend().unwrap();
        assert_eq!(world.cold.keys("/checkpoints/").pop(), last);
    }
}
