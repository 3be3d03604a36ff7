//! Transactions: what is undecided is held back, and what was aborted is never seen by those who read what is committed. Random work and power
//! cuts: `tests/sim`.

use std::pin::pin;
use std::sync::Arc;

use kernel::{
    AbortedTransaction, AppendError, Command, Entry, HolderId, Kernel, KernelConfig, Outcome,
    PartitionId, QueueName, QueueSource, ReadError, SequenceRule, Stepper, StreamSpec, WriteError,
};
use record::{Batch, ControlRecord};
use sim::batches::{address, batch, committed, produced, transactional, values};
use sim::clock::SimClock;
use sim::disk::SimDisk;
use sim::stepped::{config, drive, open, poll, ports};

struct One {
    kernel: Kernel,
    stepper: Stepper,
    p: PartitionId,
}

impl One {
    fn new() -> One {
        let disk = SimDisk::default();
        let (kernel, mut stepper) = open(&disk).unwrap();
        let spec = StreamSpec {
            partitions: 2,
            ..StreamSpec::default()
        };
        let stream = drive(&mut stepper, kernel.create_stream(&address("s"), spec)).unwrap();
        One {
            kernel,
            stepper,
            p: stream.id.partition(0),
        }
    }

    fn append(&mut self, batch: Batch) -> Result<i64, AppendError> {
        let append = self.kernel.append(self.p, batch, SequenceRule::Window);
        drive(&mut self.stepper, append).map(|appended| appended.base_offset)
    }

    fn end(&mut self, id: i64, epoch: i16, commit: bool) -> Result<i64, AppendError> {
        let ended = self
            .kernel
            .end_transaction(id, epoch, vec![self.p], commit, 1);
        drive(&mut self.stepper, ended).map(|markers| markers[0].1.base_offset)
    }

    fn last_stable(&self) -> i64 {
        self.kernel.watermarks(self.p).unwrap().last_stable
    }

    fn committed(&mut self) -> Vec<String> {
        let seen = committed(&self.kernel, self.p, 0);
        drive(&mut self.stepper, seen)
            .into_iter()
            .map(|(_, value)| value)
            .collect()
    }
}

#[test]
fn an_open_transaction_holds_back_what_comes_after_it_and_its_end_lets_go() {
    let mut one = One::new();
    one.append(batch(&["before"])).unwrap();
    one.append(transactional(7, 0, 0, &["a", "b"])).unwrap();
    one.append(batch(&["after"])).unwrap();
    one.append(transactional(8, 0, 0, &["x"])).unwrap();
    assert_eq!(one.last_stable(), 1);
    assert_eq!(one.kernel.watermarks(one.p).unwrap().high_watermark, 5);
    assert_eq!(one.committed(), ["before"]);

    assert_eq!(one.end(8, 0, false), Ok(5));
    assert_eq!(one.last_stable(), 1);
    assert_eq!(one.end(7, 0, true), Ok(6));
    assert_eq!(one.last_stable(), 7);
    assert_eq!(one.committed(), ["before", "a", "b", "after"]);
    let aborted = AbortedTransaction {
        producer_id: 8,
        first_offset: 4,
        last_offset: 5,
    };
    assert_eq!(one.kernel.aborted_transactions(one.p, 0, 7), [aborted]);
    assert_eq!(one.kernel.aborted_transactions(one.p, 0, 4), []);
    assert_eq!(one.kernel.aborted_transactions(one.p, 6, 7), []);

    let (read, listed) =
        drive(&mut one.stepper, one.kernel.read_stable(one.p, 4, 1 << 20)).unwrap();
    assert_eq!((read.batches.len(), listed), (3, vec![aborted]));
    let markers: Vec<_> = read.batches.iter().map(ControlRecord::from_batch).collect();
    let coordinator_epoch = 1;
    assert_eq!(
        markers,
        [
            None,
            Some(ControlRecord::Abort { coordinator_epoch }),
            Some(ControlRecord::Commit { coordinator_epoch })
        ]
    );
    assert_eq!(read.batches[2].base_sequence(), -1);
}

#[test]
fn the_next_sequence_follows_the_data_not_the_marker_and_duplicates_open_nothing() {
    let mut one = One::new();
    one.append(transactional(7, 0, 0, &["a", "b"])).unwrap();
    one.end(7, 0, true).unwrap();
    assert_eq!(one.append(transactional(7, 0, 0, &["a", "b"])), Ok(0));
    assert_eq!(one.last_stable(), 3);
    assert_eq!(one.append(transactional(7, 0, 2, &["c"])), Ok(3));
    assert_eq!(one.append(transactional(7, 0, 2, &["c"])), Ok(3));
    assert_eq!(one.last_stable(), 3);
    one.end(7, 0, false).unwrap();
    assert_eq!(one.committed(), ["a", "b"]);
}

#[test]
fn epochs_fence_markers_and_data() {
    let mut one = One::new();
    let fenced = |current, found| AppendError::FencedEpoch {
        producer_id: 7,
        current,
        found,
    };
    one.append(transactional(7, 1, 0, &["old"])).unwrap();
    assert_eq!(one.end(7, 0, true), Err(fenced(1, 0)));
    assert_eq!(one.last_stable(), 0);
    // A newer epoch may not write while the older one's transaction is open: its end would decide both.
    assert!(matches!(
        one.append(transactional(7, 2, 0, &["new"])),
        Err(AppendError::TransactionState { producer_id: 7, .. })
    ));
    // The end with a newer epoch ends the older transaction, and fences what is still on its way.
    one.end(7, 2, false).unwrap();
    assert_eq!(
        one.append(transactional(7, 1, 1, &["late"])),
        Err(fenced(2, 1))
    );
    assert_eq!(
        one.append(transactional(7, 2, 5, &["gap"])),
        Err(AppendError::OutOfOrderSequence {
            producer_id: 7,
            expected: 0,
            found: 5
        })
    );
    one.append(transactional(7, 2, 0, &["new"])).unwrap();
    one.end(7, 2, true).unwrap();
    assert_eq!(one.committed(), ["new"]);
    // An older coordinator decides nothing any more.
    let late = one.kernel.end_transaction(7, 2, vec![one.p], false, 0);
    assert_eq!(
        drive(&mut one.stepper, late),
        Err(AppendError::FencedCoordinator {
            producer_id: 7,
            current: 1,
            found: 0
        })
    );
    // A producer that a partition has never heard of is fenced by a marker, too.
    one.end(9, 4, false).unwrap();
    assert!(matches!(
        one.append(transactional(9, 3, 0, &["late"])),
        Err(AppendError::FencedEpoch { current: 4, .. })
    ));
}

#[test]
fn what_does_not_belong_to_a_transaction_is_refused() {
    let mut one = One::new();
    one.append(transactional(7, 0, 0, &["a"])).unwrap();
    assert!(matches!(
        one.append(produced(7, 0, 1, &["plain"])),
        Err(AppendError::TransactionState { .. })
    ));
    // Without the producer's sequence nobody could tell a batch from its repetition after the end.
    for (batch, rule) in [
        (transactional(8, 0, 0, &["a"]), SequenceRule::None),
        (transactional(-1, -1, -1, &["a"]), SequenceRule::Window),
        (
            ControlRecord::Commit {
                coordinator_epoch: 0,
            }
            .into_batch(7, 0, 0)
            .unwrap(),
            SequenceRule::Window,
        ),
    ] {
        let append = one.kernel.append(one.p, batch, rule);
        assert!(matches!(
            drive(&mut one.stepper, append),
            Err(AppendError::Malformed(_))
        ));
    }
    let not_a_marker = Command::EndTransaction {
        partitions: vec![one.p],
        marker: batch(&["data"]),
    };
    let written = one.kernel.write(Entry::new().with(not_a_marker));
    assert!(matches!(
        drive(&mut one.stepper, written),
        Err(WriteError::Malformed(_))
    ));
}

#[test]
fn an_entry_is_refused_or_applied_as_a_whole() {
    let mut one = One::new();
    let other = PartitionId {
        partition: 1,
        ..one.p
    };
    one.append(transactional(7, 3, 0, &["a"])).unwrap();
    let end =
        |epoch, partitions| Command::end_transaction(7, epoch, partitions, true, 1, 99).unwrap();
    let entry = Entry::new()
        .put("t", "k", "v")
        .with(end(2, vec![other, one.p]));
    let outcomes = drive(&mut one.stepper, one.kernel.write(entry)).unwrap();
    assert_eq!(outcomes[0], Outcome::NotApplied);
    assert!(matches!(
        outcomes[1],
        Outcome::Refused(AppendError::FencedEpoch { .. })
    ));
    assert_eq!(one.kernel.watermarks(other).unwrap().end, 0);

    // One entry may hold a whole transaction, and name partitions that are gone.
    let gone = PartitionId {
        partition: 9,
        ..one.p
    };
    let entry = Entry::new()
        .append(one.p, transactional(7, 3, 1, &["b"]), SequenceRule::Window)
        .with(end(3, vec![other, gone, one.p]))
        .append(one.p, transactional(7, 3, 2, &["c"]), SequenceRule::Window)
        .put("t", "k", "v");
    let outcomes = drive(&mut one.stepper, one.kernel.write(entry)).unwrap();
    let Outcome::TransactionEnded(markers) = &outcomes[1] else {
        panic!("{outcomes:?}");
    };
    let places: Vec<_> = markers.iter().map(|(p, a)| (*p, a.base_offset)).collect();
    assert_eq!(places, [(other, 0), (one.p, 2)]);
    assert_eq!(one.committed(), ["a", "b"]);
    assert_eq!(one.last_stable(), 3);
}

#[test]
fn open_transactions_are_listed_by_age_and_keep_their_producer() {
    let disk = SimDisk::default();
    let ports = ports(&disk);
    let clock = SimClock::default();
    let ports = kernel::Ports {
        clock: Arc::new(clock.clone()),
        ..ports
    };
    let config = KernelConfig {
        producer_expiry_ms: 1000,
        ..config()
    };
    let (kernel, mut stepper) = Kernel::open_stepped(ports, config).unwrap();
    let stream = drive(
        &mut stepper,
        kernel.create_stream(&address("s"), StreamSpec::default()),
    )
    .unwrap();
    let p = stream.id.partition(0);
    for (id, later) in [(7, 10), (8, 5000)] {
        clock.advance(later * 1000);
        let append = kernel.append(p, transactional(id, 0, 0, &["a"]), SequenceRule::Window);
        drive(&mut stepper, append).unwrap();
    }
    let now = kernel.open_transactions(i64::MAX);
    let ids: Vec<_> = now.iter().map(|open| open.producer_id).collect();
    assert_eq!(ids, [7, 8]);
    assert_eq!(now[1].started_at - now[0].started_at, 5000);
    assert_eq!(kernel.open_transactions(now[1].started_at), now[..1]);
    clock.advance(5_000_000);
    drive(&mut stepper, kernel.maintain());
    assert_eq!(kernel.stats().producers, 2);
    for id in [7, 8] {
        let ended = kernel.end_transaction(id, 0, vec![p], true, 0);
        drive(&mut stepper, ended).unwrap();
    }
    assert_eq!(kernel.open_transactions(i64::MAX), []);
    clock.advance(5_000_000);
    drive(&mut stepper, kernel.maintain());
    assert_eq!(kernel.stats().producers, 0);
}

#[test]
fn a_trim_takes_the_aborted_with_it_and_does_not_end_what_is_open() {
    let mut one = One::new();
    one.append(transactional(7, 0, 0, &["a", "b"])).unwrap();
    one.end(7, 0, false).unwrap();
    one.append(transactional(7, 0, 2, &["c", "d"])).unwrap();
    one.append(batch(&["e"])).unwrap();
    drive(&mut one.stepper, one.kernel.trim(one.p, 1)).unwrap();
    assert_eq!(one.kernel.aborted_transactions(one.p, 0, 9).len(), 1);
    drive(&mut one.stepper, one.kernel.trim(one.p, 5)).unwrap();
    assert_eq!(one.kernel.aborted_transactions(one.p, 0, 9), []);
    assert_eq!(one.last_stable(), 5);
    let below = one.kernel.read_committed(one.p, 4, 100);
    assert!(matches!(
        drive(&mut one.stepper, below),
        Err(ReadError::OutOfRange { log_start: 5, .. })
    ));
    let seen = committed(&one.kernel, one.p, 5);
    assert_eq!(drive(&mut one.stepper, seen), []);
    one.end(7, 0, true).unwrap();
    let seen = committed(&one.kernel, one.p, 5);
    assert_eq!(drive(&mut one.stepper, seen), [(5, "e".to_owned())]);
}

#[test]
fn the_end_of_a_transaction_wakes_who_waits_for_what_is_decided() {
    let mut one = One::new();
    one.append(transactional(7, 0, 0, &["a"])).unwrap();
    let kernel = one.kernel.clone();
    let at = [(one.p, 0)];
    let mut stable = pin!(kernel.wait_stable(&at));
    assert_eq!(poll(stable.as_mut()), None);
    one.append(batch(&["b"])).unwrap();
    assert_eq!(poll(stable.as_mut()), None);
    one.end(7, 0, false).unwrap();
    assert_eq!(poll(stable.as_mut()), Some(vec![one.p]));
}

#[test]
fn a_queue_hands_out_what_is_committed_when_it_is() {
    let mut one = One::new();
    one.append(transactional(7, 0, 0, &["a"])).unwrap();
    one.append(transactional(8, 0, 0, &["b"])).unwrap();
    one.append(batch(&["c"])).unwrap();
    let queue = one.kernel.queue(&QueueName::from("q"), Arc::new(()));
    let source = QueueSource {
        partition: one.p,
        from: 0,
    };
    drive(&mut one.stepper, queue.set_sources(vec![source])).unwrap();
    let mut ready = pin!(queue.wait_ready());
    assert_eq!(poll(ready.as_mut()), None);
    one.end(7, 0, false).unwrap();
    assert_eq!(poll(ready.as_mut()), None);
    one.end(8, 0, true).unwrap();
    assert_eq!(poll(ready.as_mut()), Some(()));
    let acquired = drive(&mut one.stepper, queue.acquire(HolderId(1), 10, usize::MAX));
    let values: Vec<_> = acquired
        .iter()
        .map(|a| a.record.value.clone().unwrap())
        .collect();
    assert_eq!(values, ["b", "c"]);
}

#[test]
fn what_is_in_segments_is_read_like_what_is_not() {
    let disk = SimDisk::default();
    let clock = SimClock::default();
    let ports = kernel::Ports {
        clock: Arc::new(clock.clone()),
        ..ports(&disk)
    };
    let config = KernelConfig {
        segment_bytes: 4096,
        seal_age_ms: 1000,
        ..config()
    };
    let (kernel, mut stepper) = Kernel::open_stepped(ports, config).unwrap();
    let spec = StreamSpec {
        partitions: 1,
        ..StreamSpec::default()
    };
    let stream = drive(&mut stepper, kernel.create_stream(&address("s"), spec)).unwrap();
    let p = stream.id.partition(0);
    let mut expected = Vec::new();
    for sequence in 0..60 {
        let value = format!("{sequence}{}", "x".repeat(200));
        let data = transactional(7, 0, sequence, &[&value]);
        let append = kernel.append(p, data, SequenceRule::Window);
        let offset = drive(&mut stepper, append).unwrap().base_offset;
        let commit = sequence % 3 == 0;
        let ended = kernel.end_transaction(7, 0, vec![p], commit, 1);
        drive(&mut stepper, ended).unwrap();
        if commit {
            expected.push((offset, value));
        }
    }
    // One that is undecided is sealed, too, and what comes after it.
    let open = kernel.append(p, transactional(8, 0, 0, &["open"]), SequenceRule::Window);
    let undecided = drive(&mut stepper, open).unwrap().base_offset;
    for _ in 0..20 {
        let filler = kernel.append(p, batch(&[&"y".repeat(200)]), SequenceRule::None);
        drive(&mut stepper, filler).unwrap();
    }
    clock.advance(2_000_000);
    drive(&mut stepper, kernel.maintain());
    while drive(&mut stepper, kernel.seal()).unwrap() {}
    assert!(kernel.stats().segments > 0);
    assert!(kernel.local_start(p).unwrap() > undecided);
    let seen = drive(&mut stepper, committed(&kernel, p, 0));
    assert_eq!(seen, expected);
    let first = drive(&mut stepper, kernel.read(p, 0, 1)).unwrap();
    assert_eq!(first.batches[0].leader_epoch(), p.leader_epoch());
    let ended = kernel.end_transaction(8, 0, vec![p], true, 1);
    drive(&mut stepper, ended).unwrap();
    let seen = drive(&mut stepper, committed(&kernel, p, undecided));
    assert_eq!(seen.len(), 21);
}

#[test]
fn a_marker_in_a_stream_that_is_in_memory_only_leaves_no_offset_to_be_used_twice() {
    let disk = SimDisk::default();
    let (kernel, mut stepper) = open(&disk).unwrap();
    let spec = StreamSpec {
        partitions: 1,
        config: [("durability".to_owned(), "memory".to_owned())].into(),
    };
    let stream = drive(&mut stepper, kernel.create_stream(&address("s"), spec)).unwrap();
    let p = stream.id.partition(0);
    let plain = |kernel: &Kernel| kernel.append(p, batch(&["x"]), SequenceRule::None);
    drive(&mut stepper, plain(&kernel)).unwrap();
    // Both are in one group: the second stands behind the first, which is logged.
    let ended = kernel.end_transaction(7, 0, vec![p], true, 1);
    let appended = plain(&kernel);
    drive(&mut stepper, ended).unwrap();
    let last = drive(&mut stepper, appended).unwrap().last_offset;
    drop((kernel, stepper));
    let (kernel, mut stepper) = open(&disk.after_crash(1)).unwrap();
    let next = drive(&mut stepper, plain(&kernel)).unwrap().base_offset;
    assert!(next > last, "{next} after {last}");
}

#[test]
fn plain_readers_see_everything_as_before() {
    let mut one = One::new();
    one.append(batch(&["a"])).unwrap();
    one.append(produced(7, 0, 0, &["b"])).unwrap();
    let seen = values(&one.kernel, one.p, 0);
    assert_eq!(drive(&mut one.stepper, seen), ["a", "b"]);
    assert_eq!(one.committed(), ["a", "b"]);
    assert_eq!(one.last_stable(), 2);
}
