//! Bits that flip in files of the log which a start has to replay: damaged records are reported with their offsets and never served, all else
//! is there. With more damaged than records the log is refused, and can be cut.

mod support;

use std::sync::Arc;

use kernel::ports::{Disk, MemoryColdStore};
use kernel::verify::{Damage, Seen, directory};
use kernel::{
    AppendError, Cut, CutError, Entry, Kernel, KernelConfig, OpenError, PartitionId, ReadError,
    SequenceRule, Stepper, cut_log,
};
use sim::batches::{address, batch, produced, values};
use sim::disk::SimDisk;
use sim::stepped::{config, drive, ports};
use support::{FILE_HEADER, as_version_2, frames};

/// One large file of the log.
fn wide(tail_bytes: usize) -> KernelConfig {
    KernelConfig {
        wal_file_bytes: 1 << 16,
        tail_bytes,
        ..config()
    }
}

fn open(disk: &SimDisk, config: KernelConfig) -> Result<(Kernel, Stepper), OpenError> {
    Kernel::open_stepped(ports(disk), config)
}

/// A record that fills a fifth of the smallest file.
fn value(n: usize) -> String {
    format!("value {n}{}", ".".repeat(700))
}

/// A log that was killed: ten records of one producer, `value 0` to `value 9`, in ten entries; no checkpoint. Entry 1 made the stream.
fn killed(disk: &SimDisk, config: KernelConfig) -> PartitionId {
    let (kernel, mut stepper) = open(disk, config).unwrap();
    let stream = drive(&mut stepper, kernel.ensure_stream(&address("s"))).unwrap();
    let p = stream.id.partition(0);
    for n in 0..10 {
        let sent = produced(7, 0, n, &[&value(n as usize)]);
        drive(&mut stepper, kernel.append(p, sent, SequenceRule::Window)).unwrap();
    }
    p
}

fn flip(disk: &SimDisk, path: &str, needle: &str) {
    disk.damage(path, |bytes| {
        let needle = needle.as_bytes();
        let at = bytes.windows(needle.len()).position(|w| w == needle);
        bytes[at.unwrap() + 2] ^= 1;
    });
}

fn log_files(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.names("wal");
    names.retain(|path| path.ends_with(".wal"));
    names
}

/// What can be read: values, and the ranges that are reported as damaged.
fn read_all(
    kernel: &Kernel,
    stepper: &mut Stepper,
    p: PartitionId,
) -> (Vec<String>, Vec<(i64, i64)>) {
    let (mut found, mut damaged) = (Vec::new(), Vec::new());
    let mut at = kernel.watermarks(p).unwrap().log_start;
    while at < kernel.watermarks(p).unwrap().end {
        match drive(stepper, kernel.read(p, at, 1)) {
            Ok(read) => {
                for record in read.batches.iter().flat_map(|b| b.records().unwrap()) {
                    let value = record.unwrap().value.unwrap();
                    let value = String::from_utf8(value.to_vec()).unwrap();
                    found.push(value.trim_end_matches('.').to_owned());
                }
                at = read.next_offset;
            }
            Err(ReadError::Corrupt { first, last, .. }) => {
                damaged.push((first, last));
                at = last + 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    (found, damaged)
}

fn but(missing: usize, of: usize) -> Vec<String> {
    let all = (0..of).filter(|n| *n != missing);
    all.map(|n| format!("value {n}")).collect()
}

fn verified(disk: &SimDisk) -> Vec<Damage> {
    let mut found = Vec::new();
    let mut see = |seen| {
        if let Seen::Damage(damage) = seen {
            found.push(damage);
        }
    };
    let ports = ports(disk);
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().unwrap();
    runtime
        .block_on(directory(
            &*ports.disk,
            &MemoryColdStore::default(),
            &mut see,
        ))
        .unwrap();
    found
}

#[test]
fn damaged_records_of_a_replayed_entry_cost_nothing_else() {
    for tail_bytes in [0, 300, 1 << 20] {
        for n in 0..9 {
            let disk = SimDisk::default();
            let p = killed(&disk, wide(tail_bytes));
            let path = log_files(&disk).remove(0);
            flip(&disk, &path, &format!("value {n}"));
            let offset = n as i64;

            let found = verified(&disk);
            let [damage] = &found[..] else {
                panic!("{found:?}");
            };
            assert_eq!(damage.place, path);
            assert_eq!(damage.records.len(), 1, "{damage}");
            let records = &damage.records[0];
            assert_eq!(
                (records.first_offset, records.last_offset),
                (offset, offset)
            );

            let (kernel, mut stepper) = open(&disk, wide(tail_bytes)).unwrap();
            assert_eq!(kernel.stats().recovered_damaged, 1);
            let looked = read_all(&kernel, &mut stepper, p);
            assert_eq!(looked, (but(n, 10), vec![(offset, offset)]), "{n}");
            // The producer goes on; what it sends again is not taken twice, also what is damaged.
            let again = produced(7, 0, 9, &[&value(9)]);
            let again = drive(&mut stepper, kernel.append(p, again, SequenceRule::Window));
            assert!(again.unwrap().duplicate);
            let ahead = produced(7, 0, 11, &[&value(11)]);
            let ahead = drive(&mut stepper, kernel.append(p, ahead, SequenceRule::Window));
            assert!(matches!(ahead, Err(AppendError::OutOfOrderSequence { .. })));
            let next = produced(7, 0, 10, &[&value(10)]);
            let next = drive(&mut stepper, kernel.append(p, next, SequenceRule::Window));
            assert_eq!(next.unwrap().base_offset, 10);
            // With a checkpoint behind it, and sealed, it is the same.
            drop((kernel, stepper));
            let (kernel, mut stepper) = open(&disk, wide(tail_bytes)).unwrap();
            let expected = (but(n, 11), vec![(offset, offset)]);
            assert_eq!(read_all(&kernel, &mut stepper, p), expected, "{n}");
            drive(&mut stepper, kernel.seal_all()).unwrap();
            if tail_bytes == 0 {
                assert_eq!(read_all(&kernel, &mut stepper, p), expected, "{n}");
            }
            drive(&mut stepper, kernel.shutdown());
        }
    }
}

#[test]
fn sound_batches_of_an_entry_with_a_damaged_one_are_served() {
    for tail_bytes in [0, 1 << 20] {
        let disk = SimDisk::default();
        let (kernel, mut stepper) = open(&disk, wide(tail_bytes)).unwrap();
        let [p, q] = ["p", "q"].map(|name| {
            let stream = drive(&mut stepper, kernel.ensure_stream(&address(name)));
            stream.unwrap().id.partition(0)
        });
        let entry = Entry::new()
            .put("t", "before", "1")
            .append(p, batch(&["value 0"]), SequenceRule::None)
            .append(p, batch(&["value 1"]), SequenceRule::None)
            .append(q, batch(&["other"]), SequenceRule::None)
            .append(p, batch(&["value 2"]), SequenceRule::None)
            .put("t", "after", "2");
        drive(&mut stepper, kernel.write(entry)).unwrap();
        let later = kernel.append(p, batch(&["value 3"]), SequenceRule::None);
        drive(&mut stepper, later).unwrap();
        drop((kernel, stepper));
        flip(&disk, &log_files(&disk)[0], "value 1");
        let (kernel, mut stepper) = open(&disk, wide(tail_bytes)).unwrap();
        let looked = read_all(&kernel, &mut stepper, p);
        assert_eq!(looked, (but(1, 4), vec![(1, 1)]));
        assert_eq!(drive(&mut stepper, values(&kernel, q, 0)), ["other"]);
        for (key, value) in [("before", "1"), ("after", "2")] {
            let found = kernel.table_get("t", key.as_bytes());
            assert_eq!(found.as_deref(), Some(value.as_bytes()));
        }
        let mut scrub = drive(&mut stepper, kernel.scrub()).unwrap();
        let mut found = Vec::new();
        while let Some(step) = drive(&mut stepper, scrub.step()).unwrap() {
            found.extend(step.damage);
        }
        let [damage] = &found[..] else {
            panic!("{found:?}");
        };
        assert!(damage.to_string().ends_with("offsets 1 to 1"), "{damage}");
    }
}

#[test]
fn what_a_crash_cut_short_is_no_damage() {
    // Its structure is whole, its records are not; nobody was told that it is durable.
    let disk = SimDisk::default();
    let p = killed(&disk, wide(0));
    let path = log_files(&disk).remove(0);
    flip(&disk, &path, "value 9");
    let (kernel, mut stepper) = open(&disk, wide(0)).unwrap();
    assert_eq!(kernel.stats().recovered_damaged, 0);
    let looked = read_all(&kernel, &mut stepper, p);
    assert_eq!(looked, (but(9, 9), Vec::new()));
    let next = produced(7, 0, 9, &[&value(9)]);
    let next = drive(&mut stepper, kernel.append(p, next, SequenceRule::Window));
    assert_eq!(next.unwrap().base_offset, 9);
}

#[test]
fn a_damaged_entry_stays_durable_when_what_said_so_is_cut_off() {
    // Only the header of the last entry says that the one before it was durable, and its body was never wholly written.
    let disk = SimDisk::default();
    let p = killed(&disk, wide(0));
    let path = log_files(&disk).remove(0);
    flip(&disk, &path, "value 8");
    flip(&disk, &path, "value 9");
    for life in 0..3 {
        let (kernel, mut stepper) = open(&disk, wide(0)).unwrap();
        let looked = read_all(&kernel, &mut stepper, p);
        assert_eq!(looked, (but(8, 9), vec![(8, 8)]), "life {life}");
    }
    let (kernel, mut stepper) = open(&disk, wide(0)).unwrap();
    let next = produced(7, 0, 9, &[&value(9)]);
    let next = drive(&mut stepper, kernel.append(p, next, SequenceRule::Window));
    assert_eq!(next.unwrap().base_offset, 9);
    drop((kernel, stepper));
    let (kernel, mut stepper) = open(&disk, wide(0)).unwrap();
    let looked = read_all(&kernel, &mut stepper, p);
    assert_eq!(looked, (but(8, 10), vec![(8, 8)]));
}

#[test]
fn how_a_transaction_ends_is_never_guessed() {
    let disk = SimDisk::default();
    let (kernel, mut stepper) = open(&disk, wide(0)).unwrap();
    let stream = drive(&mut stepper, kernel.ensure_stream(&address("s"))).unwrap();
    let p = stream.id.partition(0);
    let end = kernel::Command::end_transaction(7, 0, vec![p], true, 0, 1).unwrap();
    drive(&mut stepper, kernel.write(Entry::new().with(end))).unwrap();
    let later = kernel.append(p, batch(&["later"]), SequenceRule::None);
    drive(&mut stepper, later).unwrap();
    drop((kernel, stepper));
    let path = log_files(&disk).remove(0);
    let marker = frames(&disk.bytes(&path))[1].clone();
    disk.damage(&path, |bytes| bytes[marker.end - 3] ^= 1);
    let refused = open(&disk, wide(0)).err().unwrap();
    assert!(
        matches!(refused, OpenError::Corrupt { index: 2, .. }),
        "{refused}"
    );
}

fn cut(disk: &SimDisk, really: bool) -> Result<Option<Cut>, CutError> {
    let disk: Arc<dyn Disk> = ports(disk).disk;
    cut_log(&disk, really)
}

/// Every file below a data directory that matters here, with its bytes.
fn everything(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let directories = ["wal", "checkpoint"];
    let names = directories.iter().flat_map(|name| disk.names(name));
    names
        .map(|path| (path.clone(), disk.bytes(&path)))
        .collect()
}

/// Damages more than the record of `value n`: its producer's sequence. Returns the file.
fn damage_structure(disk: &SimDisk, n: usize) -> String {
    let needle = format!("value {n}");
    let place = |path: &String| {
        let bytes = disk.bytes(path);
        let at = bytes
            .windows(needle.len())
            .position(|w| w == needle.as_bytes())?;
        frames(&bytes).into_iter().find(|f| f.contains(&at))
    };
    let mut files = log_files(disk).into_iter();
    let (path, frame) = files
        .find_map(|path| place(&path).map(|f| (path, f)))
        .unwrap();
    disk.damage(&path, |bytes| bytes[frame.start + 82 + 55] ^= 1);
    path
}

/// The power goes at each operation of a cut: the log is as it was, or cut; nothing is lost, and the cut can be made again.
#[test]
fn a_cut_that_the_power_ends_can_be_made_again() {
    for (small_files, n) in [(false, 0), (false, 4), (true, 0), (true, 4)] {
        let config = if small_files { config() } else { wide(0) };
        let base = SimDisk::default();
        let p = killed(&base, config.clone());
        damage_structure(&base, n);
        let before = everything(&base);
        let (mut ends, mut refused, mut opened) = (0, 0, 0);
        for operations in 0.. {
            let disk = base.copy(0);
            disk.crash_after(operations);
            let made = cut(&disk, true);
            if !disk.is_off() {
                assert!(made.unwrap().is_some());
                break;
            }
            ends += 1;
            for seed in 0..4 {
                let at = format!("{small_files}, {n}, operation {operations}, seed {seed}");
                let disk = disk.after_crash(seed);
                let after = everything(&disk);
                for (path, bytes) in &before {
                    let kept = |(other, now): &(String, Vec<u8>)| {
                        let aside = other.strip_prefix(path.as_str());
                        let aside = aside.is_some_and(|s| s.is_empty() || s.starts_with(".cut-"));
                        aside && now == bytes
                    };
                    assert!(after.iter().any(kept), "{at}: {path} is lost");
                }
                // A look on a copy: opening writes.
                let is_cut = match open(&disk.copy(0), config.clone()) {
                    Ok(_) => true,
                    Err(OpenError::Corrupt { index, .. }) => {
                        assert_eq!(index, n as u64 + 2, "{at}");
                        false
                    }
                    Err(error) => panic!("{at}: {error}"),
                };
                *(if is_cut { &mut opened } else { &mut refused }) += 1;
                let again = cut(&disk, true).unwrap();
                assert_eq!(again.is_none(), is_cut, "{at}");
                for life in 0..2 {
                    let (kernel, mut stepper) = open(&disk, config.clone()).unwrap();
                    let looked = read_all(&kernel, &mut stepper, p);
                    assert_eq!(looked, (but(usize::MAX, n + life), Vec::new()), "{at}");
                    let next = n + life;
                    let sent = produced(7, 0, i32::try_from(next).unwrap(), &[&value(next)]);
                    let sent = drive(&mut stepper, kernel.append(p, sent, SequenceRule::Window));
                    assert_eq!(sent.unwrap().base_offset, next as i64, "{at}");
                }
            }
        }
        assert!(
            ends > 5 && refused > 0 && opened > 0,
            "{ends} {refused} {opened}"
        );
    }
}

#[test]
fn a_log_with_damage_to_more_than_records_is_refused_and_can_be_cut() {
    for small_files in [false, true] {
        let config = if small_files { config() } else { wide(0) };
        for n in 0..8 {
            let disk = SimDisk::default();
            let p = killed(&disk, config.clone());
            let path = damage_structure(&disk, n);
            // Damaged records before it are of no consequence.
            if n > 0 {
                flip(&disk, &log_files(&disk)[0], "value 0");
            }
            let before = everything(&disk);
            let refused = open(&disk, config.clone()).err().unwrap();
            assert!(
                matches!(&refused, OpenError::Corrupt { path: named, .. } if *named == path),
                "{refused}"
            );
            assert!(refused.to_string().contains("towline storage cut"));
            let index = n as u64 + 2;
            let planned = cut(&disk, false).unwrap().unwrap();
            assert_eq!((planned.index, &planned.path), (index, &path));
            assert_eq!(everything(&disk), before, "nothing is changed");

            let done = cut(&disk, true).unwrap().unwrap();
            assert_eq!(done, planned);
            let after = everything(&disk);
            for (path, bytes) in &before {
                let kept = [path.clone(), format!("{path}.cut-1")];
                let kept = |(path, now): &(String, Vec<u8>)| kept.contains(path) && now == bytes;
                assert!(after.iter().any(kept), "{path} is lost");
            }
            assert_eq!(
                cut(&disk, true).unwrap(),
                None,
                "there is nothing more to cut"
            );
            for life in 0..2 {
                let (kernel, mut stepper) = open(&disk, config.clone()).unwrap();
                let (mut expected, mut damaged) = (but(0, n + life), vec![(0, 0)]);
                if n == 0 {
                    (expected, damaged) = (but(usize::MAX, life), Vec::new());
                }
                let looked = read_all(&kernel, &mut stepper, p);
                assert_eq!(looked, (expected, damaged), "{n}, life {life}");
                let next = n + life;
                let sent = produced(7, 0, i32::try_from(next).unwrap(), &[&value(next)]);
                let sent = drive(&mut stepper, kernel.append(p, sent, SequenceRule::Window));
                assert_eq!(sent.unwrap().base_offset, next as i64);
            }
        }
    }
}

#[test]
fn a_log_with_a_file_missing_can_be_cut() {
    let disk = SimDisk::default();
    let p = killed(&disk, config());
    let files = log_files(&disk);
    assert!(files.len() > 2, "{files:?}");
    let ports = ports(&disk);
    ports.disk.remove(&files[1]).unwrap();
    assert!(open(&disk, config()).is_err());
    cut(&disk, true).unwrap().unwrap();
    let (kernel, mut stepper) = open(&disk, config()).unwrap();
    let (left, damaged) = read_all(&kernel, &mut stepper, p);
    assert!(!left.is_empty() && left.len() < 10 && damaged.is_empty());
}

#[test]
fn a_log_that_opens_is_not_cut() {
    let disk = SimDisk::default();
    killed(&disk, wide(0));
    let path = log_files(&disk).remove(0);
    flip(&disk, &path, "value 3");
    let before = everything(&disk);
    assert_eq!(cut(&disk, true).unwrap(), None);
    assert_eq!(everything(&disk), before);
    let (_kernel, _stepper) = open(&disk, wide(0)).unwrap();
    assert!(matches!(cut(&disk, true), Err(CutError::Locked)));
}

#[test]
fn files_of_the_second_version_are_read_and_followed_by_new_ones() {
    for config in [config(), wide(0), wide(1 << 20)] {
        let disk = SimDisk::default();
        let p = killed(&disk, config.clone());
        for path in log_files(&disk) {
            disk.damage(&path, |bytes| *bytes = as_version_2(bytes));
        }
        for next in 10..13 {
            let (kernel, mut stepper) = open(&disk, config.clone()).unwrap();
            let looked = read_all(&kernel, &mut stepper, p);
            assert_eq!(looked, (but(usize::MAX, next), Vec::new()));
            let sent = produced(7, 0, i32::try_from(next).unwrap(), &[&value(next)]);
            let sent = drive(&mut stepper, kernel.append(p, sent, SequenceRule::Window));
            assert_eq!(sent.unwrap().base_offset, next as i64);
            if next == 11 {
                drive(&mut stepper, kernel.shutdown());
            }
        }
        // Without a checksum of the structure nobody knows what is damaged.
        let disk = SimDisk::default();
        killed(&disk, config.clone());
        let path = log_files(&disk).remove(0);
        disk.damage(&path, |bytes| *bytes = as_version_2(bytes));
        assert!(disk.bytes(&path).len() > FILE_HEADER);
        flip(&disk, &path, "value 0");
        assert!(matches!(
            open(&disk, config),
            Err(OpenError::Corrupt { index: 2, .. })
        ));
    }
}
