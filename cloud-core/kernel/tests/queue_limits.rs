//! Queues when things go wrong: holders that do not settle, records that nobody can do anything with, logs that are trimmed, writes that
//! fail.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use kernel::{
    Acquired, DEAD_COUNT, DEAD_POSITION, DEAD_QUEUE, DEAD_REASON, DEAD_STREAM, HolderId, Kernel,
    KernelConfig, PartitionId, Ports, Queue, QueueError, QueueLimits, QueueName, QueueSource,
    RETENTION_SETTLED, Selector, SequenceRule, Stepper, Stream, StreamSpec, Verdict, WriteError,
};
use record::{BatchBuilder, Compression, Header, NewRecord, Record};
use sim::batches::{address, batch, values};
use sim::clock::SimClock;
use sim::disk::SimDisk;
use sim::stepped::{self, drive, poll};

const ME: HolderId = HolderId(1);
const YOU: HolderId = HolderId(2);

struct World {
    kernel: Kernel,
    stepper: Stepper,
    clock: SimClock,
    queue: Arc<Queue>,
    source: PartitionId,
    target: PartitionId,
}

fn open(disk: &SimDisk, change: impl FnOnce(&mut KernelConfig)) -> World {
    let clock = SimClock::default();
    let ports = Ports {
        clock: Arc::new(clock.clone()),
        ..stepped::ports(disk)
    };
    let mut config = KernelConfig {
        reader_threads: 0,
        // The simulated disk is memory, and files are allocated in full.
        wal_file_bytes: 1024 * 1024,
        ..KernelConfig::default()
    };
    change(&mut config);
    let (kernel, mut stepper) = Kernel::open_stepped(ports, config).unwrap();
    let mut partition = |name: &str| {
        let stream = drive(&mut stepper, kernel.ensure_stream(&address(name)));
        stream.unwrap().id.partition(0)
    };
    let (source, target) = (partition("work"), partition("dead"));
    let queue = kernel.queue(&QueueName::from("q"), Arc::new(()));
    let sources = vec![QueueSource {
        partition: source,
        from: 0,
    }];
    drive(&mut stepper, queue.set_sources(sources)).unwrap();
    World {
        kernel,
        stepper,
        clock,
        queue,
        source,
        target,
    }
}

impl World {
    fn put(&mut self, values: &[&str]) {
        let append = self
            .kernel
            .append(self.source, batch(values), SequenceRule::None);
        drive(&mut self.stepper, append).unwrap();
    }

    fn take(&mut self, holder: HolderId, most: usize) -> Vec<Acquired> {
        drive(
            &mut self.stepper,
            self.queue.acquire(holder, most, usize::MAX),
        )
    }

    fn maintain(&mut self) {
        drive(&mut self.stepper, self.kernel.maintain());
    }

    fn settle(&mut self, taken: &[Acquired], verdict: Verdict) -> Result<usize, QueueError> {
        let ids: Vec<_> = taken.iter().map(|a| a.id).collect();
        drive(&mut self.stepper, self.queue.settle(&ids, verdict))
    }

    fn values(&mut self, partition: PartitionId) -> Vec<String> {
        let from = self.kernel.watermarks(partition).unwrap().log_start;
        drive(&mut self.stepper, values(&self.kernel, partition, from))
    }

    fn dead(&mut self) -> Vec<Record> {
        let read = drive(
            &mut self.stepper,
            self.kernel.read(self.target, 0, usize::MAX),
        );
        let batches = read.unwrap().batches;
        let records = batches.iter().flat_map(|b| b.records().unwrap());
        records.map(Result::unwrap).collect()
    }
}

fn texts(taken: &[Acquired]) -> Vec<String> {
    let text = |a: &Acquired| String::from_utf8(a.record.value.clone().unwrap().to_vec()).unwrap();
    taken.iter().map(text).collect()
}

fn header(record: &Record, name: &str) -> String {
    let found: Vec<_> = (record.headers.iter())
        .filter(|h| h.name.as_ref() == name.as_bytes())
        .collect();
    assert_eq!(found.len(), 1, "{name}");
    String::from_utf8(found[0].value.clone().unwrap().to_vec()).unwrap()
}

#[test]
fn a_holder_that_does_not_settle_in_time_loses_the_record_and_its_late_settlement_is_ignored() {
    let mut world = open(&SimDisk::default(), |_| {});
    world.queue.set_limits(QueueLimits {
        lease_ms: Some(1000),
        ..QueueLimits::default()
    });
    world.put(&["a", "b"]);
    let mine = world.take(ME, 2);
    assert_eq!(world.settle(&mine[1..], Verdict::Accept), Ok(1));
    world.clock.advance(999_000);
    // A wall clock that jumps ends no lease.
    world.clock.jump_wall(3_600_000);
    world.maintain();
    assert_eq!((world.queue.ready(), world.queue.in_flight()), (0, 1));
    let waiting = world.queue.clone();
    let mut waiting = pin!(async move { waiting.wait_ready().await });
    assert!(poll(waiting.as_mut()).is_none());
    world.clock.advance(1_000);
    world.maintain();
    assert!(poll(waiting.as_mut()).is_some(), "pushed to who waits");
    let yours = world.take(YOU, 2);
    assert_eq!(texts(&yours), ["a"]);
    assert!(yours[0].redelivered && yours[0].delivery_count == 2);
    assert_eq!(world.settle(&mine, Verdict::Accept), Ok(0), "mine is over");
    assert_eq!(world.queue.release_holder(ME), 0);
    assert_eq!(world.settle(&yours, Verdict::Accept), Ok(1));
    let stats = &world.kernel.stats().queues[0];
    assert_eq!(
        (stats.expired, stats.redelivered, stats.in_flight),
        (1, 1, 0)
    );
}

#[test]
fn a_record_that_is_handed_out_too_often_becomes_a_dead_letter_once_and_over_a_crash() {
    let disk = SimDisk::default();
    let mut world = open(&disk, |_| {});
    let limits = QueueLimits {
        max_deliveries: Some(2),
        dead_letter: Some(world.target),
        lease_ms: None,
    };
    world.queue.set_limits(limits);
    let mut builder = BatchBuilder::new();
    let record = NewRecord {
        timestamp: 77,
        key: Some("k".into()),
        value: Some("poison".into()),
        headers: vec![Header::new("mine", "1"), Header::new("_tl.x", "2")],
    };
    builder.push(&record).unwrap();
    let append = world
        .kernel
        .append(world.source, builder.build().unwrap(), SequenceRule::None);
    drive(&mut world.stepper, append).unwrap();
    world.put(&["good"]);
    // By a verdict, then by a holder that goes.
    let first = world.take(ME, 1);
    assert_eq!(world.settle(&first, Verdict::Release), Ok(1));
    assert_eq!(texts(&world.take(ME, 2)), ["poison", "good"]);
    assert_eq!(world.queue.release_holder(ME), 2);
    let left = world.take(YOU, 9);
    assert_eq!(texts(&left), ["good"]);
    let dead = world.dead();
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (dead[0].timestamp, dead[0].key.as_deref()),
        (77, Some(&b"k"[..]))
    );
    assert_eq!(dead[0].value.as_deref(), Some(&b"poison"[..]));
    assert_eq!(header(&dead[0], "mine"), "1");
    assert_eq!(header(&dead[0], "_tl.x"), "2");
    assert_eq!(header(&dead[0], DEAD_REASON), "delivery-limit");
    assert_eq!(header(&dead[0], DEAD_QUEUE), "q");
    assert_eq!(header(&dead[0], DEAD_STREAM), "work");
    assert_eq!(header(&dead[0], DEAD_POSITION), "0/0");
    assert_eq!(header(&dead[0], DEAD_COUNT), "2");
    assert_eq!(world.kernel.stats().queues[0].dead_lettered, 1);
    drop(world);
    let mut world = open(&disk.after_crash(1), |_| {});
    world.queue.set_limits(limits);
    let taken = world.take(ME, 9);
    assert_eq!(texts(&taken), ["good"]);
    // How often before the crash is not known: it counts from one, but it says that it may not be the first time.
    assert!(taken[0].redelivered && taken[0].delivery_count == 1);
    assert_eq!(world.dead().len(), 1);
}

#[test]
fn what_is_rejected_goes_where_dead_letters_go_and_without_such_a_place_it_is_dropped() {
    let mut world = open(&SimDisk::default(), |_| {});
    world.put(&["a", "b", "c", "d"]);
    let taken = world.take(ME, 4);
    world.queue.set_limits(QueueLimits {
        dead_letter: Some(world.target),
        ..QueueLimits::default()
    });
    assert_eq!(world.settle(&taken[1..3], Verdict::Reject), Ok(2));
    assert_eq!(world.settle(&taken[1..3], Verdict::Reject), Ok(0));
    let dead = world.dead();
    assert_eq!(dead.len(), 2);
    assert_eq!(header(&dead[1], DEAD_REASON), "rejected");
    // A second death tells of the second queue alone.
    drive(
        &mut world.stepper,
        world.kernel.delete_stream(&address("dead")),
    )
    .unwrap();
    assert_eq!(world.settle(&taken[..1], Verdict::Reject), Ok(1));
    assert_eq!(world.settle(&taken[3..], Verdict::Accept), Ok(1));
    let stats = &world.kernel.stats().queues[0];
    assert_eq!((stats.dead_lettered, stats.dropped), (2, 1));
    assert_eq!((stats.ready, stats.in_flight), (0, 0));
}

#[test]
fn a_settlement_that_was_not_written_changes_nothing() {
    let disk = SimDisk::default();
    let mut world = open(&disk, |config| config.queue_bytes = 4096);
    world.put(&["a", "b", "c", "d"]);
    let taken = world.take(ME, 2);
    let ids: Vec<_> = taken.iter().map(|a| a.id).collect();
    // Nothing more is taken until the writer has written this.
    let large = "x".repeat(5000);
    let filling = world
        .kernel
        .append(world.source, batch(&[&large]), SequenceRule::None);
    let full = Err(QueueError::Write(WriteError::Full));
    {
        let mut settle = pin!(world.queue.settle(&ids, Verdict::Accept));
        assert_eq!(poll(settle.as_mut()), Some(full.clone()));
        let mut purge = pin!(world.queue.purge());
        assert_eq!(poll(purge.as_mut()), Some(full.map(|_: usize| 0)));
    }
    assert_eq!((world.queue.ready(), world.queue.in_flight()), (2, 2));
    assert_eq!(world.queue.sources()[0].from, 0);
    drive(&mut world.stepper, filling).unwrap();
    // The later one is written, and does not count on the earlier.
    assert_eq!(world.settle(&taken[1..], Verdict::Accept), Ok(1));
    drop(world);
    let mut world = open(&disk.after_crash(1), |_| {});
    let again = world.take(ME, 3);
    assert_eq!(texts(&again), ["a", "c", "d"]);
    assert_eq!(world.settle(&again, Verdict::Accept), Ok(3));
    assert_eq!(world.queue.sources()[0].from, 4);
}

#[test]
fn a_settlement_nobody_waits_for_still_counts() {
    let mut world = open(&SimDisk::default(), |_| {});
    world.put(&["a", "b"]);
    let taken = world.take(ME, 2);
    {
        let ids = [taken[0].id];
        let mut settle = pin!(world.queue.settle(&ids, Verdict::Accept));
        assert!(poll(settle.as_mut()).is_none());
    }
    // The connection is gone, with all it had; what it had settled is not put back.
    assert_eq!(world.queue.release_holder(ME), 1);
    while world.stepper.step() {}
    assert_eq!(texts(&world.take(YOU, 9)), ["b"]);
    assert_eq!((world.queue.ready(), world.queue.in_flight()), (0, 1));
}

#[test]
fn retention_that_takes_what_was_not_settled_is_counted_and_reported_once() {
    let disk = SimDisk::default();
    let mut world = open(&disk, |_| {});
    let limits = QueueLimits {
        dead_letter: Some(world.target),
        ..QueueLimits::default()
    };
    world.queue.set_limits(limits);
    world.put(&["a"]);
    world.put(&["b"]);
    world.put(&["c"]);
    let taken = world.take(ME, 1);
    assert_eq!(world.settle(&taken, Verdict::Accept), Ok(1));
    drive(&mut world.stepper, world.queue.catch_up());
    drive(&mut world.stepper, world.kernel.trim(world.source, 2)).unwrap();
    assert_eq!(texts(&world.take(ME, 9)), ["c"]);
    world.maintain();
    let dead = world.dead();
    assert_eq!(dead.len(), 1);
    assert_eq!(header(&dead[0], DEAD_REASON), "retention");
    assert_eq!(header(&dead[0], DEAD_POSITION), "0/1");
    assert_eq!(header(&dead[0], DEAD_COUNT), "1");
    assert_eq!(world.kernel.stats().queues[0].dropped, 1);
    drop(world);
    let mut world = open(&disk.after_crash(1), |_| {});
    world.queue.set_limits(limits);
    assert_eq!(texts(&world.take(ME, 9)), ["c"]);
    world.maintain();
    assert_eq!(world.dead().len(), 1);
}

#[test]
fn a_log_that_keeps_only_what_is_not_settled_is_trimmed_below_the_slowest_reader() {
    let mut world = open(&SimDisk::default(), |_| {});
    let config: BTreeMap<_, _> = [(RETENTION_SETTLED.to_owned(), "true".to_owned())].into();
    let spec = StreamSpec {
        partitions: 2,
        config,
    };
    let address = address("own");
    let created = world.kernel.create_stream(&address, spec);
    let own = drive(&mut world.stepper, created).unwrap().id;
    let (read, unread) = (own.partition(0), own.partition(1));
    let slow = world.kernel.queue(&QueueName::from("slow"), Arc::new(()));
    for queue in [&world.queue, &slow] {
        let from = QueueSource {
            partition: read,
            from: 0,
        };
        drive(&mut world.stepper, queue.set_sources(vec![from])).unwrap();
    }
    for value in ["a", "b", "c", "d"] {
        for partition in [read, unread] {
            let append = world
                .kernel
                .append(partition, batch(&[value]), SequenceRule::None);
            drive(&mut world.stepper, append).unwrap();
        }
    }
    let taken = world.take(ME, 3);
    assert_eq!(world.settle(&taken, Verdict::Accept), Ok(3));
    world.maintain();
    assert_eq!(world.values(read).len(), 4, "the other queue has none yet");
    let taken = drive(&mut world.stepper, slow.acquire(ME, 9, usize::MAX));
    let ids: Vec<_> = taken.iter().map(|a| a.id).collect();
    drive(&mut world.stepper, slow.settle(&ids[2..], Verdict::Accept)).unwrap();
    world.maintain();
    assert_eq!(world.values(read).len(), 4);
    drive(&mut world.stepper, slow.settle(&ids[..1], Verdict::Accept)).unwrap();
    world.maintain();
    assert_eq!(world.values(read), ["b", "c", "d"]);
    drive(&mut world.stepper, slow.settle(&ids[1..2], Verdict::Accept)).unwrap();
    world.maintain();
    assert_eq!(world.values(read), ["d"]);
    // A partition that no queue reads is kept, and so is what a group has not come to.
    assert_eq!(world.values(unread).len(), 4);
    let group = kernel::CursorName::from("g");
    let at = vec![(read, 3, bytes::Bytes::new())];
    drive(&mut world.stepper, world.kernel.cursor_commit(&group, at)).unwrap();
    let taken = world.take(ME, 1);
    assert_eq!(world.settle(&taken, Verdict::Accept), Ok(1));
    world.maintain();
    world.maintain();
    assert_eq!(world.values(read), ["d"]);
    drive(&mut world.stepper, world.kernel.cursor_delete(&group)).unwrap();
    world.maintain();
    assert!(world.values(read).is_empty());
}

/// Runs do not help against this one.
struct EverySecond;

impl Selector for EverySecond {
    fn selects(&self, _: &Stream, _: PartitionId, record: &Record) -> bool {
        record.offset % 2 == 0
    }
}

#[test]
fn a_million_ready_records_cost_a_tenth_of_what_ten_million_may() {
    let mut world = open(&SimDisk::default(), |_| {});
    let selector = Arc::new(EverySecond);
    let queue = world.kernel.queue(&QueueName::from("q"), selector);
    let mut builder = BatchBuilder::new().compression(Compression::Lz4);
    for _ in 0..20_000 {
        let record = NewRecord {
            timestamp: 1,
            key: None,
            value: None,
            headers: Vec::new(),
        };
        builder.push(&record).unwrap();
    }
    let batch = builder.build().unwrap();
    for _ in 0..100 {
        let append = world
            .kernel
            .append(world.source, batch.clone(), SequenceRule::None);
        drive(&mut world.stepper, append).unwrap();
    }
    // Taking a few looks no further than needed.
    let taken = world.take(ME, 100);
    let few = world.kernel.stats().queues[0].clone();
    assert!(few.ready < 900_000, "{few:?}");
    drive(&mut world.stepper, queue.catch_up());
    let all = &world.kernel.stats().queues[0];
    assert_eq!((all.ready, all.in_flight), (1_000_000 - 100, 100));
    assert!(all.memory_bytes < 6 << 20, "{all:?}");
    assert_eq!(world.settle(&taken, Verdict::Accept), Ok(100));
}

/// Releases a holder when it is asked about a record with that value.
struct Releases {
    queue: std::sync::OnceLock<std::sync::Weak<Queue>>,
    at: &'static [u8],
}

impl Selector for Releases {
    fn selects(&self, _: &Stream, _: PartitionId, record: &Record) -> bool {
        if record.value.as_deref() == Some(self.at)
            && let Some(queue) = self.queue.get().and_then(std::sync::Weak::upgrade)
        {
            queue.release_holder(ME);
        }
        true
    }
}

#[test]
fn a_holder_that_is_released_while_records_are_on_their_way_to_it_gets_none_of_them() {
    let mut world = open(&SimDisk::default(), |_| {});
    let name = QueueName::from("released");
    let selector = Arc::new(Releases {
        queue: std::sync::OnceLock::new(),
        at: b"second",
    });
    let queue = world.kernel.queue(&name, selector.clone());
    selector.queue.set(Arc::downgrade(&queue)).unwrap();
    let sources = [world.source, world.target].map(|partition| QueueSource { partition, from: 0 });
    drive(&mut world.stepper, queue.set_sources(sources.into())).unwrap();
    world.put(&["first"]);
    let second = world
        .kernel
        .append(world.target, batch(&["second"]), SequenceRule::None);
    drive(&mut world.stepper, second).unwrap();
    // The first record is taken, then the log is looked through further; in the middle of that the holder goes.
    let answer = drive(&mut world.stepper, queue.acquire(ME, 9, usize::MAX));
    assert_eq!(texts(&answer), [""; 0]);
    assert_eq!((queue.in_flight(), queue.ready()), (0, 2));
    let theirs = drive(&mut world.stepper, queue.acquire(YOU, 9, usize::MAX));
    assert_eq!(texts(&theirs), ["first", "second"]);
    // Nobody had seen them before: that was no delivery, and kills no record.
    let counts = theirs.iter().map(|t| (t.delivery_count, t.redelivered));
    assert_eq!(counts.collect::<Vec<_>>(), [(1, false); 2]);
    queue.release_holder(YOU);
    // The same when it goes before anything was taken, and when the answer is not waited for.
    let asked = queue.acquire(ME, 9, usize::MAX);
    queue.release_holder(ME);
    assert!(drive(&mut world.stepper, asked).is_empty());
    assert_eq!((queue.in_flight(), queue.ready()), (0, 2));
    // Its number is good for another.
    let again = drive(&mut world.stepper, queue.acquire(ME, 9, usize::MAX));
    assert_eq!(texts(&again), ["first", "second"]);
}

#[test]
fn records_whose_acquisition_is_given_up_are_ready_again() {
    let mut world = open(&SimDisk::default(), |_| {});
    world.put(&["a", "b"]);
    let mine = world.take(ME, 1);
    let queue = world.queue.clone();
    world.put(&["c"]);
    let purge = queue.purge();
    let mut purge = Box::pin(purge);
    assert!(poll(purge.as_mut()).is_none(), "it has the gate now");
    let mut acquire = Box::pin(queue.acquire(ME, 9, usize::MAX));
    assert!(poll(acquire.as_mut()).is_none());
    drop(acquire);
    assert_eq!(drive(&mut world.stepper, purge), Ok(2));
    world.put(&["d"]);
    assert_eq!(queue.in_flight(), 1, "what it had before stays");
    assert_eq!(texts(&world.take(YOU, 9)), ["d"]);
    assert_eq!(world.settle(&mine, Verdict::Accept), Ok(1));
}

#[test]
fn progress_that_was_refused_at_an_orderly_stop_is_not_taken_for_written() {
    let disk = SimDisk::default();
    let mut world = open(&disk, |config| {
        config.wal_file_bytes = 4096;
        config.wal_bytes = 4 * 4096;
        // What does not fit is refused at once.
        config.wal_stall_ms = 0;
    });
    world.put(&["a", "b"]);
    let taken = world.take(ME, 2);
    let filler = "x".repeat(1000);
    loop {
        let append = world
            .kernel
            .append(world.target, batch(&[&filler]), SequenceRule::None);
        if drive(&mut world.stepper, append).is_err() {
            break;
        }
    }
    {
        // Says that both were handed out, and is still on its way when the stop begins.
        let ids = [taken[0].id];
        let mut settle = pin!(world.queue.settle(&ids, Verdict::Accept));
        assert!(poll(settle.as_mut()).is_none());
        let mut stop = pin!(world.kernel.shutdown());
        assert!(poll(stop.as_mut()).is_none());
        assert_eq!(
            drive(&mut world.stepper, settle),
            Err(QueueError::Write(WriteError::Full))
        );
        drive(&mut world.stepper, stop);
    }
    drop(world);
    let mut world = open(&disk, |_| {});
    let again = world.take(ME, 2);
    assert_eq!(texts(&again), ["a", "b"]);
    assert!(again.iter().all(|a| a.redelivered));
}
