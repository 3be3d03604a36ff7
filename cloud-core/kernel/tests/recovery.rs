//! Opening a log that is long, has large entries, or many short lives: what is read how, and that it ends.

mod support;

use std::sync::Arc;

use kernel::{
    Entry, Kernel, KernelConfig, OpenError, PartitionId, Ports, ReadError, SequenceRule, Stepper,
    StreamSpec,
};
use sim::batches::{address, batch, values};
use sim::disk::SimDisk;
use sim::spawner::SimSpawner;
use sim::stepped::{config, drive, open, ports};
use support::{BEFORE_RECORDS, frames, index_at};

const MIB: usize = 1 << 20;

fn wide() -> KernelConfig {
    KernelConfig {
        wal_file_bytes: 16 << 20,
        tail_bytes: 2 * MIB,
        group_bytes: 8 << 20,
        ..config()
    }
}

/// A log of some files with entries of very different lengths; the lengths of the values.
fn long_log(disk: &SimDisk) -> (PartitionId, Vec<usize>) {
    let (kernel, mut stepper) = Kernel::open_stepped(ports(disk), wide()).unwrap();
    let p = partition(&kernel, &mut stepper);
    let lengths: Vec<usize> = (0..60)
        .map(|n| match n % 6 {
            0 => 9 * MIB / 2 + n,
            1 => 4 * MIB - 130 - n,
            2 => 300_000,
            _ => n,
        })
        .collect();
    for (n, length) in lengths.iter().enumerate() {
        let value = format!("{n}{}", "x".repeat(*length));
        let sent = kernel.append(p, batch(&[&value]), SequenceRule::None);
        drive(&mut stepper, sent).unwrap();
    }
    (p, lengths)
}

fn partition(kernel: &Kernel, stepper: &mut Stepper) -> PartitionId {
    let stream = drive(stepper, kernel.ensure_stream(&address("s"))).unwrap();
    stream.id.partition(0)
}

#[test]
fn an_idle_partition_has_no_file_and_no_task() {
    const STREAMS: usize = 100;
    let disk = SimDisk::default();
    let spawner = SimSpawner::default();
    let ports = Ports {
        spawner: Arc::new(spawner.clone()),
        ..ports(&disk)
    };
    let (kernel, mut stepper) = Kernel::open_stepped(ports, wide()).unwrap();
    let first = partition(&kernel, &mut stepper);
    let files = || ["", "wal", "checkpoint"].map(|directory| disk.names(directory));
    let before = files();
    drop(spawner.take());
    for number in 0..STREAMS {
        let spec = StreamSpec {
            partitions: 100,
            ..Default::default()
        };
        let name = address(&format!("idle-{number}"));
        drive(&mut stepper, kernel.create_stream(&name, spec)).unwrap();
    }
    assert_eq!(kernel.stats().partitions, STREAMS as u64 * 100 + 1);
    assert_eq!(files(), before);
    assert_eq!(spawner.take().len(), 0);
    let sent = kernel.append(first, batch(&["v"]), SequenceRule::None);
    drive(&mut stepper, sent).unwrap();
    assert_eq!(files(), before);
    assert_eq!(spawner.take().len(), 0);
}

#[test]
fn entries_that_no_piece_holds_whole_are_recovered_by_one_thread_and_by_many() {
    let disk = SimDisk::default();
    let (p, lengths) = long_log(&disk);
    for reader_threads in [0, 1, 3] {
        let config = KernelConfig {
            reader_threads,
            ..wide()
        };
        let (kernel, mut stepper) = Kernel::open_stepped(ports(&disk), config).unwrap();
        let stats = kernel.stats();
        assert_eq!(stats.recovered_entries, 61);
        assert!(stats.tail_bytes <= 2 * MIB as u64, "{}", stats.tail_bytes);
        assert!(stats.tail_bytes > 0, "the newest are in memory");
        assert_eq!(kernel.watermarks(p).unwrap().end, 60);
        if reader_threads == 0 {
            let read = drive(&mut stepper, values(&kernel, p, 0));
            let read: Vec<usize> = read.iter().map(String::len).collect();
            let expected: Vec<usize> = (0..)
                .zip(&lengths)
                .map(|(n, length)| format!("{n}").len() + length)
                .collect();
            assert_eq!(read, expected);
        }
    }
}

#[test]
fn a_large_entry_that_was_durable_is_missed_and_one_that_was_not_is_dropped() {
    let disk = SimDisk::default();
    let wide = KernelConfig {
        wal_file_bytes: 64 << 20,
        group_bytes: 32 << 20,
        ..config()
    };
    let (kernel, mut stepper) = Kernel::open_stepped(ports(&disk), wide.clone()).unwrap();
    let p = partition(&kernel, &mut stepper);
    for value in [&"a".repeat(13 * MIB), "b", &"c".repeat(9 * MIB)] {
        let sent = kernel.append(p, batch(&[value]), SequenceRule::None);
        drive(&mut stepper, sent).unwrap();
    }
    drop((kernel, stepper));
    let path = disk.names("wal").pop().unwrap();
    let whole = disk.bytes(&path);
    let frames = frames(&whole);
    let [_, a, _, c] = &frames[..] else {
        panic!("{frames:?}")
    };
    // Its length is not known any more, or its first batch: what says that it had been durable comes 13 MiB later.
    for at in [a.start + 9, a.start + BEFORE_RECORDS - 1] {
        disk.damage(&path, |bytes| {
            bytes.clone_from(&whole);
            bytes[at] ^= 1;
        });
        match Kernel::open_stepped(ports(&disk), wide.clone()) {
            Err(OpenError::Corrupt {
                position, index, ..
            }) => {
                assert_eq!(position, a.start as u64);
                assert_eq!(index, index_at(&whole, a.start));
            }
            other => panic!("{:?}", other.err()),
        }
        assert_eq!(disk.bytes(&path).len(), whole.len(), "nothing was changed");
    }
    // Its records alone are not what they were: the entry holds.
    disk.damage(&path, |bytes| {
        bytes.clone_from(&whole);
        bytes[a.end - 1] ^= 1;
    });
    let (kernel, mut stepper) = Kernel::open_stepped(ports(&disk), wide.clone()).unwrap();
    assert_eq!(kernel.watermarks(p).unwrap().end, 3);
    let read = drive(&mut stepper, kernel.read(p, 0, 1));
    assert!(matches!(
        read,
        Err(ReadError::Corrupt {
            first: 0,
            last: 0,
            ..
        })
    ));
    assert_eq!(drive(&mut stepper, values(&kernel, p, 1)).len(), 2);
    drop((kernel, stepper));
    for at in [c.start + 9, c.start + 7 * MIB, c.end - 1] {
        disk.damage(&path, |bytes| {
            bytes.clone_from(&whole);
            bytes[at] ^= 1;
        });
        let (kernel, _stepper) = Kernel::open_stepped(ports(&disk), wide.clone()).unwrap();
        assert_eq!(kernel.watermarks(p).unwrap().end, 2);
        assert_eq!(
            disk.bytes(&path)[c.start..c.start + 8],
            [0; 8],
            "it is erased"
        );
    }
}

#[test]
fn many_short_lives_do_not_make_a_long_recovery() {
    let mut disk = SimDisk::default();
    let mut longest = 0;
    for life in 0..40 {
        let (kernel, mut stepper) = open(&disk).unwrap();
        longest = longest.max(kernel.stats().recovered_entries);
        let p = partition(&kernel, &mut stepper);
        for _ in 0..4 {
            // Less than what makes a checkpoint due.
            let sent = kernel.append(p, batch(&[&"x".repeat(400)]), SequenceRule::None);
            drive(&mut stepper, sent).unwrap();
            drive(&mut stepper, kernel.maintain());
        }
        drop((kernel, stepper));
        disk = disk.after_crash(life);
    }
    assert!(longest < 24, "{longest} entries were replayed");
}

#[test]
fn a_kernel_with_threads_recovers_what_a_crash_left() {
    let disk = SimDisk::default();
    long_log(&disk);
    let disk = disk.after_crash(7);
    let config = KernelConfig {
        reader_threads: 2,
        ..wide()
    };
    let kernel = Kernel::open(ports(&disk), config).unwrap();
    assert_eq!(kernel.stats().recovered_entries, 61);
}

/// A group that is larger than a file makes a file that is larger than others: distances from the end of the log, as counted in files, jump.
/// What comes after it is not for the tail, so that nothing pushes the hole out of it.
#[test]
fn what_goes_to_memory_has_no_holes_when_a_file_is_larger_than_others() {
    for tail_bytes in (0..60_000).step_by(2000) {
        let disk = SimDisk::default();
        let config = KernelConfig {
            wal_file_bytes: 8192,
            group_bytes: 1 << 16,
            tail_bytes,
            ..config()
        };
        let (kernel, mut stepper) = Kernel::open_stepped(ports(&disk), config.clone()).unwrap();
        let p = partition(&kernel, &mut stepper);
        let expected: Vec<String> = (0..36)
            .map(|n| format!("{n:0width$}", width = if n < 24 { 500 } else { 2000 }))
            .collect();
        let send = |value: &String| kernel.append(p, batch(&[value]), SequenceRule::None);
        let (alone, together) = expected.split_at(24);
        for value in alone {
            drive(&mut stepper, send(value)).unwrap();
        }
        let sent: Vec<_> = together.iter().map(send).collect();
        for sent in sent {
            drive(&mut stepper, sent).unwrap();
        }
        for n in 0..24 {
            let entry = Entry::new().put("t", vec![n], vec![n; 500]);
            drive(&mut stepper, kernel.write(entry)).unwrap();
        }
        drop((kernel, stepper));
        let (kernel, mut stepper) = Kernel::open_stepped(ports(&disk), config).unwrap();
        let found = drive(&mut stepper, values(&kernel, p, 0));
        assert!(found == expected, "{tail_bytes}: {} of 36", found.len());
    }
}
