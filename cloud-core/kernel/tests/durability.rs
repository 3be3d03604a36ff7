//! What survives what: each durability class loses what it says it may, and no more; and no offset is ever given twice.

use std::collections::{BTreeMap, BTreeSet};

use kernel::{
    DURABILITY, Entry, Kernel, KernelConfig, PartitionId, SequenceRule, Stepper, StreamSpec,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sim::batches::{address, batch, produced, stamped, values};
use sim::disk::SimDisk;
use sim::stepped::{config, drive, open, ports};

fn class(name: &str) -> BTreeMap<String, String> {
    [(DURABILITY.to_owned(), name.to_owned())].into()
}

fn stream(kernel: &Kernel, stepper: &mut Stepper, durability: &str) -> PartitionId {
    let address = address(durability.replace('+', "-").as_str());
    if let Some(found) = kernel.stream(&address) {
        return found.id.partition(0);
    }
    let spec = StreamSpec {
        partitions: 1,
        config: class(durability),
    };
    let made = drive(stepper, kernel.create_stream(&address, spec)).unwrap();
    assert_eq!(made.durability().name(), durability);
    made.id.partition(0)
}

fn append(kernel: &Kernel, stepper: &mut Stepper, p: PartitionId, value: &str) -> i64 {
    let sent = kernel.append(p, batch(&[value]), SequenceRule::None);
    drive(stepper, sent).unwrap().base_offset
}

#[test]
fn the_end_of_the_process_takes_nothing_but_what_is_in_memory_only() {
    let disk = SimDisk::default();
    let (kernel, mut stepper) = open(&disk).unwrap();
    let classes = ["quorum+fsync", "quorum", "memory"];
    let partitions = classes.map(|class| stream(&kernel, &mut stepper, class));
    for n in 0..20 {
        for p in partitions {
            assert_eq!(append(&kernel, &mut stepper, p, &n.to_string()), n);
        }
    }
    drop((kernel, stepper));
    let (kernel, mut stepper) = open(&disk.after_kill(1)).unwrap();
    for p in &partitions[..2] {
        assert_eq!(drive(&mut stepper, values(&kernel, *p, 0)).len(), 20);
    }
    let marks = kernel.watermarks(partitions[2]).unwrap();
    assert!(marks.end >= 20 && marks.log_start == marks.end, "{marks:?}");
    let again = append(&kernel, &mut stepper, partitions[2], "again");
    assert_eq!(again, marks.end);
}

#[test]
fn groups_without_a_careful_entry_are_not_synced_until_maintenance_does() {
    let disk = SimDisk::default();
    let (kernel, mut stepper) = open(&disk).unwrap();
    let p = stream(&kernel, &mut stepper, "quorum");
    let before = kernel.stats().fsyncs;
    for n in 0..5 {
        append(&kernel, &mut stepper, p, &n.to_string());
    }
    assert_eq!(kernel.stats().fsyncs, before);
    drive(&mut stepper, kernel.maintain());
    while stepper.step() {}
    assert_eq!(kernel.stats().fsyncs, before + 1);
    for seed in 0..20 {
        let (kernel, mut stepper) = open(&disk.after_crash(seed)).unwrap();
        assert_eq!(drive(&mut stepper, values(&kernel, p, 0)).len(), 5);
    }
}

#[test]
fn what_is_in_memory_only_is_not_written_and_the_oldest_goes_first() {
    let disk = SimDisk::default();
    let (kernel, mut stepper) = open(&disk).unwrap();
    let p = stream(&kernel, &mut stepper, "memory");
    append(&kernel, &mut stepper, p, "first");
    let written = kernel.stats().wal_bytes_written;
    for n in 1..100 {
        let offset = append(&kernel, &mut stepper, p, &format!("{n:0100}"));
        assert_eq!(offset, n);
    }
    assert_eq!(kernel.stats().wal_bytes_written, written);
    let marks = kernel.watermarks(p).unwrap();
    assert!(marks.log_start > 50 && marks.end == 100, "{marks:?}");
    let found = drive(&mut stepper, values(&kernel, p, marks.log_start));
    assert_eq!(found.len() as i64, marks.end - marks.log_start);
    assert_eq!(found.last().unwrap(), &format!("{:0100}", 99));
    // Retention and trims hold for it, too.
    drive(&mut stepper, kernel.trim(p, 98)).unwrap();
    assert_eq!(drive(&mut stepper, values(&kernel, p, 98)).len(), 2);
    let config = [("retention.bytes".to_owned(), "1".to_owned())];
    let config = config.into_iter().chain(class("memory")).collect();
    drive(
        &mut stepper,
        kernel.alter_stream_config(&address("memory"), config),
    )
    .unwrap();
    drive(&mut stepper, kernel.maintain());
    assert_eq!(kernel.watermarks(p).unwrap().log_start, 99);
}

#[test]
fn beside_something_durable_a_record_is_as_durable() {
    let disk = SimDisk::default();
    let (kernel, mut stepper) = open(&disk).unwrap();
    let p = stream(&kernel, &mut stepper, "memory");
    append(&kernel, &mut stepper, p, "lost");
    let entry = Entry::new()
        .append(p, batch(&["kept"]), SequenceRule::None)
        .put("t", "k", "v");
    drive(&mut stepper, kernel.write(entry)).unwrap();
    let end = kernel.watermarks(p).unwrap().end;
    drop((kernel, stepper));
    let (kernel, mut stepper) = open(&disk.after_crash(5)).unwrap();
    assert_eq!(kernel.table_get("t", b"k").as_deref(), Some(&b"v"[..]));
    let start = kernel.watermarks(p).unwrap().log_start;
    assert_eq!(drive(&mut stepper, values(&kernel, p, start)), ["kept"]);
    assert!(append(&kernel, &mut stepper, p, "new") >= end);
}

/// What is not logged must not judge what is: a replay would judge otherwise, and offsets would shift.
#[test]
fn producers_in_memory_have_no_say_in_what_is_logged() {
    let disk = SimDisk::default();
    let (kernel, mut stepper) = open(&disk).unwrap();
    let p = stream(&kernel, &mut stepper, "memory");
    let mut sequence = 0;
    let mut next = || {
        sequence += 1;
        produced(7, 0, sequence - 1, &["x"])
    };
    let send = |kernel: &Kernel, stepper: &mut Stepper, entry: Entry| {
        let outcome = drive(stepper, kernel.write(entry)).unwrap().remove(0);
        match outcome {
            kernel::Outcome::Appended(appended) => appended.base_offset,
            other => panic!("{other:?}"),
        }
    };
    let mut logged = Vec::new();
    for round in 0..3 {
        for _ in 0..3 {
            let only = Entry::new().append(p, next(), SequenceRule::Window);
            send(&kernel, &mut stepper, only);
        }
        // Beside something durable it is logged, though what came before it is not.
        let both =
            Entry::new()
                .append(p, next(), SequenceRule::Window)
                .put("t", format!("{round}"), "v");
        logged.push(send(&kernel, &mut stepper, both));
    }
    let address = address("memory");
    let switched = kernel.alter_stream_config(&address, class("quorum+fsync"));
    drive(&mut stepper, switched).unwrap();
    for _ in 0..3 {
        let durable = Entry::new().append(p, next(), SequenceRule::Window);
        logged.push(send(&kernel, &mut stepper, durable));
    }
    // From here on the sequence counts.
    let gap = produced(7, 0, 100, &["x"]);
    let refused = drive(&mut stepper, kernel.append(p, gap, SequenceRule::Window));
    assert!(matches!(
        refused,
        Err(kernel::AppendError::OutOfOrderSequence { .. })
    ));
    drop((kernel, stepper));
    for seed in 0..4 {
        let (kernel, mut stepper) = open(&disk.after_crash(seed)).unwrap();
        for offset in &logged {
            let read = drive(&mut stepper, kernel.read(p, *offset, 1)).unwrap();
            let found = read.batches.first().map(record::Batch::base_offset);
            assert_eq!(found, Some(*offset), "seed {seed}");
        }
    }
}

/// Found by the simulator: a replay remembered what happened to be logged of such a producer, and held it against what came after.
#[test]
fn after_a_restart_a_producer_of_a_stream_in_memory_goes_on_anywhere() {
    for (epoch, sequence) in [(0, 4), (0, 0), (1, 4)] {
        let disk = SimDisk::default();
        let (kernel, mut stepper) = open(&disk).unwrap();
        let p = stream(&kernel, &mut stepper, "memory");
        // Beside something durable it is logged.
        let logged = Entry::new()
            .append(p, produced(7, 0, 0, &["logged"]), SequenceRule::Window)
            .put("t", "k", "v");
        drive(&mut stepper, kernel.write(logged)).unwrap();
        for sequence in 1..4 {
            let only = produced(7, 0, sequence, &["in memory"]);
            drive(&mut stepper, kernel.append(p, only, SequenceRule::Window)).unwrap();
        }
        drop((kernel, stepper));
        let (kernel, mut stepper) = open(&disk.after_kill(1)).unwrap();
        let next = produced(7, epoch, sequence, &["next"]);
        let next = drive(&mut stepper, kernel.append(p, next, SequenceRule::Window));
        assert!(!next.unwrap().duplicate);
        // From here on the sequence counts again.
        let gap = produced(7, epoch, sequence + 5, &["x"]);
        let gap = drive(&mut stepper, kernel.append(p, gap, SequenceRule::Window));
        assert!(matches!(
            gap,
            Err(kernel::AppendError::OutOfOrderSequence { .. })
        ));
    }
}

#[test]
fn only_known_classes_are_accepted() {
    let disk = SimDisk::default();
    let (kernel, mut stepper) = open(&disk).unwrap();
    for wrong in ["", "fsync", "Memory", "quorum+fsync "] {
        let spec = StreamSpec {
            partitions: 1,
            config: class(wrong),
        };
        drive(&mut stepper, kernel.create_stream(&address("s"), spec)).unwrap_err();
    }
}

/// An acknowledged record: its value, and whether it must survive a power cut, and the end of the process.
struct Sent {
    value: String,
    power: bool,
    kill: bool,
}

fn run(seed: u64) {
    const CLASSES: [&str; 3] = ["quorum+fsync", "quorum", "memory"];
    let mut rng = StdRng::seed_from_u64(seed);
    let mut disk = SimDisk::default();
    let mut sent: BTreeMap<i64, Sent> = BTreeMap::new();
    // Offsets that only memory knew.
    let mut forgotten = BTreeSet::new();
    let mut counter = 0;
    for _life in 0..4 {
        let config = KernelConfig {
            tail_bytes: 1 << 20,
            ..config()
        };
        let (kernel, mut stepper) = Kernel::open_stepped(ports(&disk), config)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let p = stream(&kernel, &mut stepper, "quorum");
        for _ in 0..rng.random_range(5..40) {
            let class = kernel.stream(&address("quorum")).unwrap().durability();
            let class = CLASSES.iter().position(|c| *c == class.name()).unwrap();
            match rng.random_range(0..10) {
                0 => {
                    let next = self::class(CLASSES[rng.random_range(0..3)]);
                    let name = address("quorum");
                    drive(&mut stepper, kernel.alter_stream_config(&name, next)).unwrap();
                }
                1 => {
                    drive(&mut stepper, kernel.maintain());
                    while stepper.step() {}
                    // Everything that was written is on the disk now.
                    sent.values_mut().for_each(|sent| sent.power |= sent.kill);
                }
                kind => {
                    // Several at once share a group.
                    let together = (0..rng.random_range(1..4)).map(|_| {
                        counter += 1;
                        let value = format!("{counter}{}", "x".repeat(counter % 200));
                        let mut entry =
                            Entry::new().append(p, batch(&[&value]), SequenceRule::None);
                        let careful = kind == 2;
                        if careful {
                            entry = entry.put("t", "k", value.clone());
                        }
                        (value, careful, Box::pin(kernel.write(entry)))
                    });
                    let together: Vec<_> = together.collect();
                    for (value, careful, written) in together {
                        let outcomes = drive(&mut stepper, written).unwrap();
                        let Some(kernel::Outcome::Appended(appended)) = outcomes.first() else {
                            panic!("seed {seed}: {outcomes:?}");
                        };
                        let record = Sent {
                            value,
                            power: careful || class == 0,
                            kill: careful || class < 2,
                        };
                        if record.power {
                            // What is in the WAL before it is synced with it.
                            sent.values_mut().for_each(|sent| sent.power |= sent.kill);
                        }
                        let before = sent.insert(appended.base_offset, record);
                        let again = before.is_some() || forgotten.contains(&appended.base_offset);
                        assert!(!again, "seed {seed}: an offset is used twice");
                        let newest = *sent.last_key_value().unwrap().0;
                        assert_eq!(newest, appended.base_offset, "seed {seed}: it goes back");
                    }
                }
            }
        }
        let orderly = rng.random_bool(0.2);
        if orderly {
            drive(&mut stepper, kernel.shutdown());
        }
        drop((kernel, stepper));
        let power = !orderly && rng.random_bool(0.6);
        disk = if power {
            disk.after_crash(rng.random())
        } else {
            disk.after_kill(rng.random())
        };
        // What is not there now will never be.
        let (kernel, mut stepper) =
            open(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let Some(found) = kernel.stream(&address("quorum")) else {
            continue;
        };
        let p = found.id.partition(0);
        let marks = kernel.watermarks(p).unwrap();
        if let Some((newest, newest_sent)) = sent.last_key_value() {
            assert!(
                marks.end > *newest || power && !newest_sent.power,
                "seed {seed}"
            );
        }
        let mut found = BTreeMap::new();
        let mut offset = marks.log_start;
        loop {
            let read = drive(&mut stepper, kernel.read(p, offset, 1 << 20)).unwrap();
            for batch in &read.batches {
                for record in batch.records().unwrap() {
                    let record = record.unwrap();
                    let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                    found.insert(record.offset, value);
                }
            }
            if read.batches.is_empty() {
                break;
            }
            offset = read.next_offset;
        }
        for (offset, value) in &found {
            assert_eq!(&sent[offset].value, value, "seed {seed}");
        }
        sent.retain(|offset, sent| {
            let must = if power { sent.power } else { sent.kill };
            let there = found.contains_key(offset);
            assert!(there || !must, "seed {seed}: {offset} is lost");
            sent.power = true;
            if !there && !sent.kill {
                forgotten.insert(*offset);
            }
            there
        });
    }
}

#[test]
fn each_class_loses_what_it_may_and_no_offset_comes_twice() {
    let first: u64 = rand::random::<u32>().into();
    println!("seeds {first} to {}", first + 199);
    (first..first + 200).for_each(run);
}

/// Sets the class that a stream has from now on.
fn alter(kernel: &Kernel, stepper: &mut Stepper, partition: PartitionId, durability: &str) {
    let stream = kernel.stream_by_id(partition.stream).unwrap();
    let altered = kernel.alter_stream_config(&stream.address, class(durability));
    drive(stepper, altered).unwrap();
}

#[test]
fn what_is_only_in_memory_is_found_before_and_between_what_is_cold() {
    let (kernel, mut stepper) = open(&SimDisk::default()).unwrap();
    let p = stream(&kernel, &mut stepper, "memory");
    let mut at = |value: &str, timestamp: i64, durability: &str| {
        alter(&kernel, &mut stepper, p, durability);
        let sent = kernel.append(p, stamped(timestamp, value), SequenceRule::None);
        drive(&mut stepper, sent).unwrap().base_offset
    };
    let first = at("first", 2000, "memory");
    let cold = at("cold", 1000, "quorum+fsync");
    let between = at("between", 4000, "memory");
    let last = at("last", 3000, "quorum+fsync");
    drive(&mut stepper, kernel.seal_all()).unwrap();
    assert!(kernel.tier_bytes(p).unwrap().cold > 0);
    assert_eq!(kernel.stats().unsealed_bytes, 0);
    let mut find = |timestamp| {
        let found = drive(&mut stepper, kernel.offset_for_timestamp(p, timestamp));
        found.unwrap().map(|(offset, _)| offset)
    };
    assert_eq!(find(0), Some(first));
    assert_eq!(find(1500), Some(first), "before the cold range");
    assert_eq!(find(2500), Some(between), "in a hole of it");
    assert_eq!(find(4001), None);
    assert!(first < cold && cold < between && between < last);
}

#[test]
fn a_cold_read_does_not_pass_over_what_is_only_in_memory() {
    let (kernel, mut stepper) = open(&SimDisk::default()).unwrap();
    let p = stream(&kernel, &mut stepper, "quorum+fsync");
    // Leaves the tail when the others come.
    let large = "x".repeat(2500);
    append(&kernel, &mut stepper, p, &large);
    alter(&kernel, &mut stepper, p, "memory");
    append(&kernel, &mut stepper, p, &"m".repeat(400));
    alter(&kernel, &mut stepper, p, "quorum+fsync");
    append(&kernel, &mut stepper, p, &"d".repeat(400));
    drive(&mut stepper, kernel.seal_all()).unwrap();
    let all = drive(&mut stepper, values(&kernel, p, 0));
    let firsts: Vec<_> = all.iter().map(|value| &value[..1]).collect();
    assert_eq!(firsts, ["x", "m", "d"]);
}

#[test]
fn offsets_that_were_given_up_are_not_seen_before_something_follows_them() {
    let disk = SimDisk::default();
    let (kernel, mut stepper) = open(&disk).unwrap();
    let p = stream(&kernel, &mut stepper, "quorum+fsync");
    append(&kernel, &mut stepper, p, "durable");
    alter(&kernel, &mut stepper, p, "memory");
    append(&kernel, &mut stepper, p, "lost");
    drop((kernel, stepper));
    let (kernel, mut stepper) = open(&disk.after_kill(1)).unwrap();
    let marks = kernel.watermarks(p).unwrap();
    assert_eq!((marks.high_watermark, marks.last_stable), (1, 1));
    assert!(marks.end >= 2);
    // Whoever had read what is lost is not told that it is out of range, and waits as if at the end.
    let read = drive(&mut stepper, kernel.read(p, 2, 1000)).unwrap();
    assert!(read.batches.is_empty());
    assert!(drive(&mut stepper, kernel.read(p, marks.end + 1, 1000)).is_err());
    let waits = kernel.clone();
    let mut wait = Box::pin(async move { waits.wait_past(&[(p, 2)]).await });
    assert!(sim::stepped::poll(wait.as_mut()).is_none());
    let next = append(&kernel, &mut stepper, p, "next");
    assert_eq!(next, marks.end);
    assert_eq!(sim::stepped::poll(wait.as_mut()), Some(vec![p]));
    let marks = kernel.watermarks(p).unwrap();
    assert_eq!((marks.high_watermark, marks.end), (next + 1, next + 1));
}

/// Writes one record with a timestamp; returns its offset.
fn append_at(kernel: &Kernel, stepper: &mut Stepper, p: PartitionId, timestamp: i64) -> i64 {
    let sent = kernel.append(p, stamped(timestamp, "x"), SequenceRule::None);
    drive(stepper, sent).unwrap().base_offset
}

/// Found by the simulator: retention went by the ends of what it looked at, and a cold range may end behind what is only in memory.
#[test]
fn an_old_record_in_memory_does_not_take_younger_ones_before_it_along() {
    let disk = SimDisk::default();
    let (kernel, mut stepper) = open(&disk).unwrap();
    let p = stream(&kernel, &mut stepper, "quorum+fsync");
    let address = address("quorum-fsync");
    let (old, young) = (1_600_000_000_000, 1_800_000_000_000);
    let mut offsets = Vec::new();
    for (class_name, timestamp) in [
        ("quorum+fsync", young),
        ("memory", old),
        ("quorum+fsync", young),
        ("memory", young),
    ] {
        let mut config = class(class_name);
        config.insert("retention.ms".to_owned(), "1000".to_owned());
        drive(&mut stepper, kernel.alter_stream_config(&address, config)).unwrap();
        offsets.push(append_at(&kernel, &mut stepper, p, timestamp));
    }
    drive(&mut stepper, kernel.seal_all()).unwrap();
    drive(&mut stepper, kernel.maintain());
    assert_eq!(kernel.watermarks(p).unwrap().log_start, offsets[0]);
}

/// Found by the simulator: when the log was replayed, what was only in memory was gone, and the trim ended before it.
#[test]
fn a_trim_of_what_is_only_in_memory_lasts() {
    let disk = SimDisk::default();
    let (kernel, mut stepper) = open(&disk).unwrap();
    let p = stream(&kernel, &mut stepper, "memory");
    for n in 0..5 {
        append(&kernel, &mut stepper, p, &n.to_string());
    }
    assert_eq!(drive(&mut stepper, kernel.trim(p, 3)), Ok(3));
    let address = address("memory");
    let careful = kernel.alter_stream_config(&address, class("quorum+fsync"));
    drive(&mut stepper, careful).unwrap();
    let logged = append(&kernel, &mut stepper, p, "logged");
    drop((kernel, stepper));
    let (kernel, mut stepper) = open(&disk.after_crash(1)).unwrap();
    let marks = kernel.watermarks(p).unwrap();
    assert_eq!((marks.log_start, marks.end), (3, logged + 1));
    let found = drive(&mut stepper, values(&kernel, p, 3));
    assert_eq!(found, ["logged"]);
}
