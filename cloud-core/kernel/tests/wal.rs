//! The files of the write-ahead log: used again and again, never more than they may be, and never showing what they were before.

mod support;

use std::pin::pin;

use kernel::{
    AppendError, Kernel, KernelConfig, PartitionId, RETENTION_BYTES, SequenceRule, Stepper,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sim::batches::{address, batch, values};
use sim::clock::SimClock;
use sim::disk::SimDisk;
use sim::stepped::{config, drive, open, poll, ports};
use support::{as_version_1, frames};

fn partition(kernel: &Kernel, stepper: &mut Stepper) -> PartitionId {
    let stream = drive(stepper, kernel.ensure_stream(&address("s"))).unwrap();
    stream.id.partition(0)
}

fn append(kernel: &Kernel, stepper: &mut Stepper, p: PartitionId, value: &str) -> i64 {
    let sent = kernel.append(p, batch(&[value]), SequenceRule::None);
    drive(stepper, sent).unwrap().base_offset
}

#[test]
fn what_survived_of_a_lost_write_never_comes_back_to_life() {
    let wide = KernelConfig {
        wal_file_bytes: 1 << 16,
        ..config()
    };
    for lost in 0..8 {
        let disk = SimDisk::default();
        let (kernel, mut stepper) = Kernel::open_stepped(ports(&disk), wide.clone()).unwrap();
        let p = partition(&kernel, &mut stepper);
        append(&kernel, &mut stepper, p, "kept 0");
        // One group of eight.
        let sent: Vec<_> = (0..8)
            .map(|n| kernel.append(p, batch(&[&format!("lost {n}")]), SequenceRule::None))
            .collect();
        stepper.step();
        drop((sent, kernel, stepper));
        // The power went before it was synced: one frame did not get there, all others did.
        let path = disk.names("wal").pop().unwrap();
        disk.damage(&path, |bytes| {
            let frame = frames(bytes)[2 + lost].clone();
            bytes[frame].fill(0);
        });
        let mut expected = vec!["kept 0".to_owned()];
        expected.extend((0..lost).map(|n| format!("lost {n}")));
        // Recovery is cut short, too.
        let mut disk = disk;
        for operations in 0..30 {
            disk.crash_after(operations);
            let opened = Kernel::open_stepped(ports(&disk), wide.clone());
            let done = opened.is_ok();
            drop(opened);
            disk = disk.after_crash(operations);
            if done {
                break;
            }
        }
        // New entries, as long as those that were lost, in their place one by one.
        for n in lost..8 {
            let (kernel, mut stepper) = Kernel::open_stepped(ports(&disk), wide.clone()).unwrap();
            assert_eq!(drive(&mut stepper, values(&kernel, p, 0)), expected);
            append(&kernel, &mut stepper, p, &format!("new! {n}"));
            expected.push(format!("new! {n}"));
            drop((kernel, stepper));
        }
        let (kernel, mut stepper) = Kernel::open_stepped(ports(&disk), wide.clone()).unwrap();
        assert_eq!(drive(&mut stepper, values(&kernel, p, 0)), expected);
    }
}

#[test]
fn dead_files_are_used_again_and_what_was_in_them_is_gone() {
    let first: u64 = rand::random::<u32>().into();
    println!("seeds {first} to {}", first + 99);
    for seed in first..first + 100 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut disk = SimDisk::default();
        let mut expected: Vec<String> = Vec::new();
        let mut start = 0;
        for _ in 0..4 {
            let (kernel, mut stepper) =
                open(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let p = partition(&kernel, &mut stepper);
            let found = drive(&mut stepper, values(&kernel, p, start));
            assert_eq!(found, expected[start as usize..], "seed {seed}");
            for _ in 0..rng.random_range(10..120) {
                // Lengths repeat, so that frames of old files stand where new ones may end.
                let len = [1, 1, 40, 300][rng.random_range(0..4)];
                let value = format!("{:04}{}", expected.len(), "v".repeat(len));
                append(&kernel, &mut stepper, p, &value);
                expected.push(value);
                if rng.random_bool(0.2) {
                    start = rng.random_range(start..=expected.len() as i64);
                    drive(&mut stepper, kernel.trim(p, start)).unwrap();
                    drive(&mut stepper, kernel.maintain());
                }
            }
            let created = disk.names("wal").len();
            assert!(created <= 14, "seed {seed}: {created} files");
            let found = drive(&mut stepper, values(&kernel, p, start));
            assert_eq!(found, expected[start as usize..], "seed {seed}");
            drop((kernel, stepper));
            disk = disk.after_crash(rng.random());
        }
    }
}

#[test]
fn a_full_size_file_is_opened_with_damage_deep_in_it() {
    let config = KernelConfig {
        wal_file_bytes: 64 << 20,
        ..config()
    };
    let disk = SimDisk::default();
    let (kernel, mut stepper) = Kernel::open_stepped(ports(&disk), config.clone()).unwrap();
    let p = partition(&kernel, &mut stepper);
    for n in 0..100 {
        append(&kernel, &mut stepper, p, &format!("{n}"));
    }
    drop((kernel, stepper));
    let path = disk.names("wal").pop().unwrap();
    disk.damage(&path, |bytes| {
        // The last frame did not get there, and all the rest of the file is what it was before: worse than noise.
        let last = frames(bytes).pop().unwrap();
        let front = bytes[last.clone()].to_vec();
        bytes[last.start..last.start + 8].fill(0);
        let rest = &mut bytes[last.end..];
        rest.chunks_mut(front.len())
            .for_each(|chunk| chunk.copy_from_slice(&front[..chunk.len()]));
        // As of another file.
        rest.chunks_mut(front.len()).for_each(|chunk| chunk[0] ^= 1);
    });
    let (kernel, mut stepper) = Kernel::open_stepped(ports(&disk), config).unwrap();
    assert_eq!(drive(&mut stepper, values(&kernel, p, 0)).len(), 99);
}

#[test]
fn files_of_the_first_version_are_read_and_followed_by_new_ones() {
    for (cut, entries) in [(0, 30), (10, 30), (0, 0)] {
        let disk = SimDisk::default();
        let (kernel, mut stepper) = open(&disk).unwrap();
        let p = partition(&kernel, &mut stepper);
        for n in 0..entries {
            append(&kernel, &mut stepper, p, &format!("{n:0300}"));
        }
        drop((kernel, stepper));
        let names = disk.names("wal");
        for path in &names {
            let newest = names.iter().rfind(|name| name.ends_with(".wal")) == Some(path);
            disk.damage(path, |bytes| {
                *bytes = as_version_1(bytes);
                if newest {
                    bytes.truncate(bytes.len() - cut);
                }
            });
        }
        let left = entries - i64::from(cut > 0);
        for left in left..left + 2 {
            let (kernel, mut stepper) = open(&disk).unwrap();
            let p = partition(&kernel, &mut stepper);
            assert_eq!(
                drive(&mut stepper, values(&kernel, p, 0)).len() as i64,
                left
            );
            assert_eq!(append(&kernel, &mut stepper, p, "new"), left);
        }
    }
    // A file of the first version that was begun, and no more.
    let disk = SimDisk::default();
    drop(open(&disk).unwrap());
    let file = kernel::ports::Disk::create(&disk, "wal/00000000000000000001.wal").unwrap();
    file.write_at(0, &[b"TLWAL\0\0\0\x01"]).unwrap();
    let (kernel, mut stepper) = open(&disk).unwrap();
    partition(&kernel, &mut stepper);
}

/// A kernel whose WAL has room for four files and no more, and its clock.
fn bounded(disk: &SimDisk) -> (Kernel, Stepper, SimClock) {
    let clock = SimClock::default();
    let mut ports = ports(disk);
    ports.clock = std::sync::Arc::new(clock.clone());
    let config = KernelConfig {
        wal_bytes: 4 * 4096,
        wal_stall_ms: 500,
        ..config()
    };
    let (kernel, stepper) = Kernel::open_stepped(ports, config).unwrap();
    (kernel, stepper, clock)
}

#[test]
fn at_its_bound_the_log_holds_writes_back_then_refuses_them_and_goes_on_when_there_is_room() {
    let disk = SimDisk::default();
    let (kernel, mut stepper, clock) = bounded(&disk);
    let p = partition(&kernel, &mut stepper);
    for _ in 0..3 {
        let mut accepted = 0;
        let mut waiting = loop {
            let sent = kernel.append(p, batch(&[&"z".repeat(700)]), SequenceRule::None);
            let mut sent = Box::pin(sent);
            while stepper.step() {}
            match poll(sent.as_mut()) {
                Some(Ok(_)) => accepted += 1,
                Some(Err(error)) => panic!("{error}"),
                None => break sent,
            }
            assert!(accepted < 100, "it has no bound");
            assert!(disk.used_in("wal") <= 4 * 4096);
        };
        assert!(accepted >= 3, "{accepted}");
        // Nothing is said before the time is up.
        clock.advance(499_000);
        while stepper.step() {}
        assert!(poll(waiting.as_mut()).is_none());
        clock.advance(2_000);
        while stepper.step() {}
        assert_eq!(poll(waiting.as_mut()), Some(Err(AppendError::Full)));
        // As long as that lasts, nobody waits again.
        let refused = kernel.append(p, batch(&["late"]), SequenceRule::None);
        let mut refused = pin!(refused);
        while stepper.step() {}
        assert_eq!(poll(refused.as_mut()), Some(Err(AppendError::Full)));
        // What makes room passes.
        set_retention(&kernel, &mut stepper, 100);
        let mut rounds = 0;
        loop {
            let mut sent = Box::pin(kernel.append(p, batch(&["new"]), SequenceRule::None));
            drive(&mut stepper, kernel.maintain());
            while stepper.step() {}
            if let Some(Ok(_)) = poll(sent.as_mut()) {
                break;
            }
            rounds += 1;
            assert!(rounds < 5, "no room was made");
        }
        assert!(disk.used_in("wal") <= 5 * 4096);
        set_retention(&kernel, &mut stepper, -1);
    }
    // The same log opens again.
    drop((kernel, stepper));
    let (kernel, mut stepper, _) = bounded(&disk.after_crash(3));
    partition(&kernel, &mut stepper);
}

fn set_retention(kernel: &Kernel, stepper: &mut Stepper, bytes: i64) {
    let config = [(RETENTION_BYTES.to_owned(), bytes.to_string())];
    drive(
        stepper,
        kernel.alter_stream_config(&address("s"), config.into()),
    )
    .unwrap();
}

#[test]
fn a_held_write_goes_on_by_itself_when_room_is_made() {
    let disk = SimDisk::default();
    let (kernel, mut stepper, clock) = bounded(&disk);
    let p = partition(&kernel, &mut stepper);
    set_retention(&kernel, &mut stepper, 100);
    let mut waiting = loop {
        let mut sent = Box::pin(kernel.append(p, batch(&[&"z".repeat(700)]), SequenceRule::None));
        while stepper.step() {}
        if poll(sent.as_mut()).is_none() {
            break sent;
        }
    };
    for _ in 0..3 {
        clock.advance(100_000);
        drive(&mut stepper, kernel.maintain());
        while stepper.step() {}
    }
    assert!(matches!(poll(waiting.as_mut()), Some(Ok(_))));
}

#[test]
fn that_writes_are_held_back_is_over_when_there_is_room_also_if_nobody_writes() {
    let disk = SimDisk::default();
    let (kernel, mut stepper, clock) = bounded(&disk);
    let p = partition(&kernel, &mut stepper);
    let settle = |stepper: &mut Stepper| {
        for _ in 0..6 {
            drive(stepper, kernel.maintain());
            while stepper.step() {}
        }
    };
    // At its bound, and nothing waits any more.
    let sent: Vec<_> = (0..40)
        .map(|_| kernel.append(p, batch(&[&"z".repeat(700)]), SequenceRule::None))
        .collect();
    while stepper.step() {}
    clock.advance(600_000);
    while stepper.step() {}
    drop(sent);
    assert!(kernel.stats().held_back);
    set_retention(&kernel, &mut stepper, 100);
    settle(&mut stepper);
    assert!(!kernel.stats().held_back);
    // The disk is full.
    disk.fill(true);
    for _ in 0..40 {
        let mut sent = Box::pin(kernel.append(p, batch(&[&"z".repeat(700)]), SequenceRule::None));
        while stepper.step() {}
        if poll(sent.as_mut()) == Some(Err(AppendError::Full)) {
            break;
        }
    }
    let full = kernel.stats().held_back;
    disk.fill(false);
    settle(&mut stepper);
    assert!(full && !kernel.stats().held_back);
}

#[test]
fn a_group_is_no_larger_than_a_file_so_the_bound_holds() {
    let disk = SimDisk::default();
    let config = KernelConfig {
        wal_bytes: 4 * 4096,
        group_bytes: 1 << 20,
        ..config()
    };
    let (kernel, mut stepper) = Kernel::open_stepped(ports(&disk), config).unwrap();
    let p = partition(&kernel, &mut stepper);
    for size in [0, 100, 700] {
        let sent: Vec<_> = (0..60)
            .map(|_| kernel.append(p, batch(&[&"z".repeat(size)]), SequenceRule::None))
            .collect();
        while stepper.step() {
            assert!(disk.used_in("wal") <= 4 * 4096, "{}", disk.used_in("wal"));
        }
        drop(sent);
    }
    assert!(kernel.stats().held_back);
}
