//! Disks that fail: what cannot be kept is refused, what is damaged is reported, and the rest stays readable.

mod support;

use std::sync::Arc;

use kernel::ports::Disk;
use kernel::{
    CutError, Entry, HolderId, Kernel, KernelConfig, OpenError, PartitionId, QueueName,
    QueueSource, SequenceRule, Stepper, WriteError,
};
use sim::batches::{address, batch, values};
use sim::disk::{SimDisk, SyncFailure};
use sim::stepped::{config, drive, open, ports};
use support::{BEFORE_RECORDS, FILE_HEADER, frames, index_at};

/// A kernel with some entries in one file, and the disk below it.
fn some_entries(disk: &SimDisk, config: KernelConfig) -> (Kernel, Stepper, PartitionId) {
    let (kernel, mut stepper) = Kernel::open_stepped(ports(disk), config).unwrap();
    let p = drive(&mut stepper, kernel.ensure_stream(&address("s")))
        .unwrap()
        .id
        .partition(0);
    for n in 0..10 {
        drive(
            &mut stepper,
            kernel.append(p, batch(&[&format!("value {n}")]), SequenceRule::None),
        )
        .unwrap();
    }
    (kernel, stepper, p)
}

#[test]
fn after_a_failed_sync_no_write_is_taken_and_reads_go_on() {
    let disk = SimDisk::default();
    let (kernel, mut stepper, p) = some_entries(&disk, config());
    disk.fail_sync_after(0);
    let failed = drive(&mut stepper, kernel.write(Entry::new().put("t", "k", "v")));
    assert!(matches!(failed, Err(WriteError::Failed(_))), "{failed:?}");
    let later = drive(&mut stepper, kernel.write(Entry::new().put("t", "k", "v")));
    assert!(matches!(later, Err(WriteError::Failed(_))), "{later:?}");
    assert_eq!(kernel.table_get("t", b"k"), None);
    assert_eq!(drive(&mut stepper, values(&kernel, p, 0)).len(), 10);
    assert!(kernel.stats().failed.is_some());
}

/// After a sync that failed the system may have thrown away what it should have written, and says of the next one that it worked.
#[test]
fn a_sync_that_failed_once_is_not_tried_again() {
    for how in [SyncFailure::Once, SyncFailure::OnceAndForgets] {
        for seed in 0..20 {
            let disk = SimDisk::default();
            let (kernel, mut stepper, p) = some_entries(&disk, config());
            disk.fail_sync(0, how);
            let failed = drive(&mut stepper, kernel.write(Entry::new().put("t", "k", "v")));
            assert!(matches!(failed, Err(WriteError::Failed(_))), "{failed:?}");
            let synced = disk.last_synced();
            let later = drive(&mut stepper, kernel.write(Entry::new().put("t", "l", "v")));
            assert!(matches!(later, Err(WriteError::Failed(_))), "{later:?}");
            drive(&mut stepper, kernel.shutdown());
            assert_eq!(disk.last_synced(), synced, "{how:?}: something was synced");
            drop((kernel, stepper));
            let (kernel, mut stepper) = open(&disk.after_crash(seed)).unwrap();
            assert_eq!(drive(&mut stepper, values(&kernel, p, 0)).len(), 10);
            assert_eq!(kernel.table_get("t", b"l"), None, "{how:?}, seed {seed}");
        }
    }
}

#[test]
fn a_full_disk_refuses_writes_and_takes_them_again_when_there_is_room() {
    let disk = SimDisk::default();
    let (kernel, mut stepper, p) = some_entries(&disk, config());
    let (mut accepted, mut refused) = (10, 0);
    for round in 0..120 {
        disk.fill(round % 40 > 15);
        let sent = kernel.append(p, batch(&[&"z".repeat(700)]), SequenceRule::None);
        match drive(&mut stepper, sent) {
            Ok(_) => accepted += 1,
            Err(error) => {
                assert_eq!(error, kernel::AppendError::Full);
                refused += 1;
            }
        }
        assert_eq!(kernel.watermarks(p).unwrap().end, accepted);
    }
    assert!(refused > 20 && accepted > 50, "{refused} {accepted}");
    let read = drive(&mut stepper, values(&kernel, p, 0)).len() as i64;
    assert_eq!(read, accepted);
    drop((kernel, stepper));
    let (kernel, mut stepper) = open(&disk.after_crash(1)).unwrap();
    let read = drive(&mut stepper, values(&kernel, p, 0)).len() as i64;
    assert_eq!(read, accepted);
}

#[test]
fn retention_makes_room_on_a_full_disk() {
    let disk = SimDisk::default();
    let (kernel, mut stepper, p) = some_entries(&disk, config());
    keep_little(&kernel, &mut stepper);
    for round in 0..20 {
        disk.limit(Some(disk.used() + 3 * 4096));
        fill(&kernel, &mut stepper, p);
        let before = kernel.watermarks(p).unwrap().log_start;
        make_room(&disk, &kernel, &mut stepper);
        assert!(kernel.watermarks(p).unwrap().log_start > before);
        let more = fill(&kernel, &mut stepper, p);
        assert!(more > 0, "round {round}: no room was made");
    }
}

fn keep_little(kernel: &Kernel, stepper: &mut Stepper) {
    let keep = (kernel::RETENTION_BYTES.to_owned(), "100".to_owned());
    let name = address("s");
    let alter = kernel.alter_stream_config(&name, [keep].into());
    drive(stepper, alter).unwrap();
}

/// Appends until nothing more is accepted; returns how many were.
fn fill(kernel: &Kernel, stepper: &mut Stepper, p: PartitionId) -> u32 {
    let mut accepted = 0;
    let value = "z".repeat(700);
    while drive(
        stepper,
        kernel.append(p, batch(&[&value]), SequenceRule::None),
    )
    .is_ok()
    {
        accepted += 1;
        assert!(accepted < 1000, "it is never full");
    }
    accepted
}

/// Not a byte is left: the trims go to the reserve, and the checkpoint that lets files go where a spare or an older one was.
fn make_room(disk: &SimDisk, kernel: &Kernel, stepper: &mut Stepper) {
    disk.limit(Some(disk.used()));
    for _ in 0..3 {
        drive(stepper, kernel.maintain());
    }
}

/// The log has its first file, and not all behind it: the checkpoint had what is gone. Cutting it there would give up nearly everything.
#[test]
fn without_its_only_checkpoint_a_log_with_a_hole_is_not_to_blame() {
    let disk = SimDisk::default();
    let (kernel, mut stepper, p) = some_entries(&disk, config());
    while disk
        .names("wal")
        .iter()
        .filter(|w| w.ends_with(".wal"))
        .count()
        < 4
    {
        let sent = kernel.append(p, batch(&[&"z".repeat(700)]), SequenceRule::None);
        drive(&mut stepper, sent).unwrap();
    }
    drive(&mut stepper, kernel.shutdown());
    drop((kernel, stepper));
    let mut wal = disk.names("wal");
    wal.retain(|path| path.ends_with(".wal"));
    disk.remove(&wal[1]).unwrap();
    let mut checkpoints = disk.names("checkpoint");
    let newest = checkpoints.pop().unwrap();
    checkpoints
        .iter()
        .for_each(|path| disk.remove(path).unwrap());
    disk.damage(&newest, |bytes| *bytes.last_mut().unwrap() ^= 1);
    match open(&disk) {
        Err(OpenError::Corrupt { path, .. }) => assert_eq!(path, newest),
        other => panic!("{:?}", other.err()),
    }
    let shared: Arc<dyn Disk> = Arc::new(disk);
    match kernel::cut_log(&shared, true) {
        Err(CutError::BuiltOn { path, .. }) => assert_eq!(path, newest),
        other => panic!("{other:?}"),
    }
}

/// Of the log that it needs some is gone. A start that tried it would name a file of the log that is sound.
#[test]
fn a_checkpoint_that_made_room_for_a_newer_one_does_not_come_back() {
    let mut alone = 0;
    for seed in 0..20 {
        let disk = SimDisk::default();
        let (kernel, mut stepper, p) = some_entries(&disk, config());
        keep_little(&kernel, &mut stepper);
        for _ in 0..=seed % 5 {
            disk.limit(Some(disk.used() + 3 * 4096));
            fill(&kernel, &mut stepper, p);
            make_room(&disk, &kernel, &mut stepper);
        }
        drop((kernel, stepper));
        let disk = disk.after_crash(seed);
        let mut found = disk.names("checkpoint");
        found.sort_unstable();
        let newest = found.pop().unwrap();
        disk.damage(&newest, |bytes| *bytes.last_mut().unwrap() ^= 1);
        match open(&disk) {
            Ok(_) => {}
            Err(OpenError::Corrupt { path, .. }) => {
                assert_eq!((path, found), (newest, Vec::new()), "seed {seed}");
                alone += 1;
            }
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    assert!(alone > 0);
}

#[test]
fn a_torn_tail_is_cut_and_damage_to_what_was_durable_is_reported() {
    let disk = SimDisk::default();
    let wide = KernelConfig {
        wal_file_bytes: 1 << 16,
        ..config()
    };
    drop(some_entries(&disk, wide));
    let path = disk.names("wal").pop().unwrap();
    let whole = disk.bytes(&path);
    let frames = frames(&whole);
    let last = frames.last().unwrap().clone();
    for cut in 1..last.len() {
        disk.damage(&path, |bytes| {
            bytes.clone_from(&whole);
            // What the write did not get to is what the file was before.
            bytes[last.end - cut..last.end].fill(0xa5);
        });
        let (kernel, mut stepper) = open(&disk).unwrap();
        let p = kernel.stream(&address("s")).unwrap().id.partition(0);
        assert_eq!(drive(&mut stepper, values(&kernel, p, 0)).len(), 9);
        let sent = kernel.append(p, batch(&["new"]), SequenceRule::None);
        assert!(drive(&mut stepper, sent).is_ok());
    }
    // A flipped bit anywhere but in the last entry, or in records, is never silently cut.
    for at in (FILE_HEADER..last.start).step_by(7) {
        disk.damage(&path, |bytes| {
            bytes.clone_from(&whole);
            bytes[at] ^= 4;
        });
        let damaged = frames.iter().find(|frame| frame.contains(&at)).unwrap();
        if damaged.start != FILE_HEADER && at >= damaged.start + BEFORE_RECORDS {
            // See `bit_flips.rs`.
            continue;
        }
        match open(&disk) {
            Err(OpenError::Corrupt {
                position, index, ..
            }) => {
                assert_eq!(position, damaged.start as u64, "byte {at}");
                assert_eq!(index, index_at(&whole, damaged.start), "byte {at}");
            }
            other => panic!("byte {at}: {:?}", other.err()),
        }
        assert_eq!(disk.bytes(&path).len(), whole.len(), "nothing was changed");
    }
    // What the message says can be done works.
    disk.damage(&path, |bytes| {
        bytes.clone_from(&whole);
        bytes[frames[6].start + 20] ^= 4;
        bytes.truncate(frames[6].start);
    });
    let (kernel, mut stepper) = open(&disk).unwrap();
    let p = kernel.stream(&address("s")).unwrap().id.partition(0);
    let left = drive(&mut stepper, values(&kernel, p, 0)).len();
    assert_eq!(left, 5, "one entry made the stream");
}

#[test]
fn a_damaged_file_header_costs_nothing_where_the_first_frame_is_sound() {
    let disk = SimDisk::default();
    drop(some_entries(&disk, config()));
    let path = disk.names("wal").into_iter().next().unwrap();
    let whole = disk.bytes(&path);
    for at in 0..FILE_HEADER {
        disk.damage(&path, |bytes| {
            bytes.clone_from(&whole);
            bytes[at] ^= 0x80;
        });
        match open(&disk) {
            Ok((kernel, mut stepper)) => {
                let p = kernel.stream(&address("s")).unwrap().id.partition(0);
                assert_eq!(drive(&mut stepper, values(&kernel, p, 0)).len(), 10);
            }
            // A version to come, as far as anybody can tell.
            Err(OpenError::NewerVersion { .. }) => assert!((8..12).contains(&at)),
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
}

#[test]
fn damage_that_a_checkpoint_covers_does_not_keep_the_log_from_opening() {
    let disk = SimDisk::default();
    let wide = KernelConfig {
        wal_file_bytes: 1 << 16,
        tail_bytes: 0,
        ..config()
    };
    let (kernel, mut stepper, p) = some_entries(&disk, wide.clone());
    drive(&mut stepper, kernel.shutdown());
    drop((kernel, stepper));
    let path = disk.names("wal").into_iter().next().unwrap();
    let whole = disk.bytes(&path);
    let needle = b"value 3";
    let at = whole
        .windows(needle.len())
        .position(|w| w == needle)
        .unwrap();
    disk.damage(&path, |bytes| bytes[at] ^= 1);
    let (kernel, mut stepper) = Kernel::open_stepped(ports(&disk), wide).unwrap();
    let error = drive(&mut stepper, kernel.read(p, 3, 1)).unwrap_err();
    let expected = kernel::ReadError::Corrupt {
        partition: p,
        first: 3,
        last: 3,
        reason: String::new(),
    };
    assert_eq!(
        std::mem::discriminant(&error),
        std::mem::discriminant(&expected)
    );
    assert_eq!(drive(&mut stepper, values(&kernel, p, 4)).len(), 6);
    let sent = kernel.append(p, batch(&["new"]), SequenceRule::None);
    assert_eq!(drive(&mut stepper, sent).unwrap().base_offset, 10);
}

#[test]
fn a_data_directory_of_a_newer_version_is_refused() {
    let disk = SimDisk::default();
    let (kernel, mut stepper, _) = some_entries(&disk, config());
    drive(&mut stepper, kernel.shutdown());
    drop((kernel, stepper));
    for path in [
        disk.names("wal").pop().unwrap(),
        disk.names("checkpoint").pop().unwrap(),
    ] {
        let before = disk.bytes(&path);
        disk.damage(&path, |bytes| bytes[8] = 9);
        let refused = open(&disk).err().unwrap();
        assert!(
            matches!(refused, OpenError::NewerVersion { found: 9, .. }),
            "{refused}"
        );
        disk.damage(&path, |bytes| *bytes = before);
    }
    disk.damage(&disk.names("wal")[0], |bytes| bytes[..200].fill(b'X'));
    assert!(matches!(open(&disk), Err(OpenError::Foreign { .. })));
}

#[test]
fn damaged_records_are_reported_with_their_offsets_and_never_served() {
    let disk = SimDisk::default();
    let (kernel, mut stepper, p) = some_entries(
        &disk,
        KernelConfig {
            tail_bytes: 0,
            ..config()
        },
    );
    let path = disk.names("wal").into_iter().next().unwrap();
    let needle = b"value 3";
    let at = disk
        .bytes(&path)
        .windows(needle.len())
        .position(|w| w == needle)
        .unwrap();
    disk.damage(&path, |bytes| bytes[at] ^= 1);
    let error = drive(&mut stepper, kernel.read(p, 3, 1)).unwrap_err();
    assert!(
        matches!(
            error,
            kernel::ReadError::Corrupt {
                first: 3,
                last: 3,
                ..
            }
        ),
        "{error}"
    );
    // What is before and after it is still readable.
    assert_eq!(
        drive(&mut stepper, kernel.read(p, 0, 1 << 20))
            .unwrap()
            .batches
            .len(),
        3
    );
    assert_eq!(drive(&mut stepper, values(&kernel, p, 4)).len(), 6);
    assert_eq!(kernel.stats().corrupt_reads, 1);
    // A queue passes it over and says so.
    let queue = kernel.queue(&QueueName::from("q"), Arc::new(()));
    drive(
        &mut stepper,
        queue.set_sources(vec![QueueSource {
            partition: p,
            from: 0,
        }]),
    )
    .unwrap();
    assert_eq!(
        drive(&mut stepper, queue.acquire(HolderId(1), 100, usize::MAX)).len(),
        9
    );
}

#[test]
fn a_damaged_checkpoint_costs_nothing() {
    let disk = SimDisk::default();
    let (kernel, mut stepper, p) = some_entries(&disk, config());
    for n in 0..40 {
        drive(
            &mut stepper,
            kernel.append(p, batch(&[&"y".repeat(500)]), SequenceRule::None),
        )
        .unwrap();
        drive(&mut stepper, kernel.trim(p, n)).unwrap();
        drive(&mut stepper, kernel.maintain());
    }
    assert!(kernel.stats().checkpoints >= 2);
    drop((kernel, stepper));
    let newest = disk.names("checkpoint").pop().unwrap();
    disk.damage(&newest, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let (kernel, mut stepper) = open(&disk).unwrap();
    assert_eq!(kernel.watermarks(p).unwrap().end, 50);
    assert_eq!(drive(&mut stepper, values(&kernel, p, 39)).len(), 11);
}
