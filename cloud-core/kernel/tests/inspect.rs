//! What people are told about the files of a log: damage with its place, and what only looks like damage in other words.

use bytes::Bytes;
use kernel::inspect::{InspectError, WalDamage, WalFile, WalItem, WalRest, wal_file_after};
use kernel::{Command, Kernel, KernelConfig, SequenceRule};
use sim::batches::{address, batch};
use sim::disk::SimDisk;
use sim::stepped::{config, drive, ports};

/// The WAL files of a log of ten records, by name.
fn files(wal_file_bytes: u64) -> Vec<(String, Vec<u8>)> {
    let disk = SimDisk::default();
    let config = KernelConfig {
        wal_file_bytes,
        ..config()
    };
    let (kernel, mut stepper) = Kernel::open_stepped(ports(&disk), config).unwrap();
    let stream = drive(&mut stepper, kernel.ensure_stream(&address("s"))).unwrap();
    for n in 0..10 {
        let value = format!("value {n} {}", "x".repeat(700));
        let appended = kernel.append(stream.id.partition(0), batch(&[&value]), SequenceRule::None);
        drive(&mut stepper, appended).unwrap();
    }
    let paths = disk.names("wal");
    paths
        .into_iter()
        .map(|path| {
            (
                path.trim_start_matches("wal/").to_owned(),
                disk.bytes(&path),
            )
        })
        .collect()
}

struct Looked {
    indexes: Vec<u64>,
    places: Vec<u64>,
    damage: Vec<WalDamage>,
    end: u64,
    rest: WalRest,
}

fn look(bytes: &[u8], next_file: Option<u64>) -> Looked {
    let mut looked = Looked {
        indexes: Vec::new(),
        places: Vec::new(),
        damage: Vec::new(),
        end: 0,
        rest: WalRest::Nothing,
    };
    for item in WalFile::open(Bytes::copy_from_slice(bytes), None, next_file).unwrap() {
        match item {
            WalItem::Frame(frame) => {
                assert!(!frame.commands.unwrap().0.is_empty());
                looked.indexes.push(frame.index);
                looked.places.push(frame.at);
            }
            WalItem::Damage(damage) => looked.damage.push(damage),
            WalItem::End { at, rest, .. } => (looked.end, looked.rest) = (at, rest),
        }
    }
    looked
}

#[test]
fn a_sound_file_shows_every_entry() {
    let files = files(1 << 20);
    assert_eq!(files.len(), 1);
    let looked = look(&files[0].1, None);
    assert_eq!(looked.indexes, (1..=11).collect::<Vec<u64>>());
    assert!(looked.damage.is_empty());
    assert!(matches!(looked.rest, WalRest::Nothing | WalRest::Unwritten));
    let records = WalFile::open(files[0].1.clone().into(), Some(1), None).unwrap();
    let appends = records.filter(|item| {
        matches!(item, WalItem::Frame(frame)
            if matches!(frame.commands.as_ref().map(|(c, _)| &c[..]), Ok([Command::Append { .. }])))
    });
    assert_eq!(appends.count(), 10);
}

#[test]
fn a_damaged_frame_is_named_and_what_follows_is_shown() {
    let sound = files(1 << 20).remove(0).1;
    let whole = look(&sound, None);
    for (position, at) in whole.places.iter().enumerate().take(9) {
        // In the header, and in the body.
        for inside in [20, 90] {
            let mut bytes = sound.clone();
            bytes[*at as usize + inside] ^= 4;
            let looked = look(&bytes, None);
            let index = position as u64 + 1;
            let mut left = whole.indexes.clone();
            left.remove(position);
            assert_eq!(looked.indexes, left, "entry {index}");
            let [damage] = &looked.damage[..] else {
                panic!("entry {index}: {:?}", looked.damage);
            };
            assert_eq!(
                (
                    damage.at,
                    damage.until,
                    damage.first_index,
                    damage.last_index
                ),
                (*at, whole.places[position + 1], index, index)
            );
        }
    }
}

#[test]
fn an_unfinished_write_is_no_damage() {
    let sound = files(1 << 20).remove(0).1;
    let whole = look(&sound, None);
    let last = *whole.places.last().unwrap();
    // The header got to the disk whole, the body did not.
    let mut torn = sound.clone();
    torn[last as usize + 100..].fill(0);
    let looked = look(&torn, None);
    assert!(looked.damage.is_empty());
    assert_eq!(
        (looked.end, looked.rest),
        (last, WalRest::Unfinished { index: 11 })
    );
    // Not even the header did.
    torn[last as usize + 4..].fill(0);
    let looked = look(&torn, None);
    assert!(looked.damage.is_empty());
    assert_eq!((looked.end, looked.rest), (last, WalRest::Unknown));
    // The same bytes are damage when a later file exists: it was begun when all of this one was durable.
    let looked = look(&torn, Some(12));
    assert_eq!(looked.damage.len(), 1);
    assert_eq!(
        (looked.damage[0].first_index, looked.damage[0].last_index),
        (11, 11)
    );
}

#[test]
fn old_frames_of_a_recycled_file_are_told_from_damage() {
    let mut files = files(4096);
    assert!(files.len() > 1, "{}", files.len());
    let old = files.remove(0).1;
    let before = look(&old, None);
    let (_, mut recycled) = files.pop().unwrap();
    let end = look(&recycled, None).end as usize;
    recycled.truncate(end);
    // What the former use left behind the new end.
    recycled.extend_from_slice(&[7; 33]);
    recycled.extend_from_slice(&old[before.places[0] as usize..before.end as usize]);
    let looked = look(&recycled, None);
    assert!(looked.damage.is_empty(), "{:?}", looked.damage);
    let rest = WalRest::Recycled {
        first_index: before.indexes[0],
        last_index: *before.indexes.last().unwrap(),
    };
    assert_eq!((looked.end, looked.rest), (end as u64, rest));
}

#[test]
fn what_is_no_wal_file_is_said() {
    let open =
        |bytes: &'static [u8]| WalFile::open(Bytes::from_static(bytes), None, None).unwrap_err();
    assert_eq!(
        open(b"GIF89a..................."),
        InspectError::Foreign("a WAL file")
    );
    assert_eq!(open(b""), InspectError::Damaged("the file header"));
    let mut newer = files(1 << 20).remove(0).1;
    newer[8] = 200;
    let newer = WalFile::open(newer.into(), None, None).unwrap_err();
    assert!(
        matches!(newer, InspectError::NewerVersion { found: 200, .. }),
        "{newer}"
    );
}

#[test]
fn the_file_that_follows_is_found_by_name() {
    let names = [
        "00000000000000000001.wal",
        "00000000000000000007.wal",
        "spare.tmp",
        "00000000000000000005.wal",
    ];
    let after = |name| wal_file_after(name, names.into_iter());
    assert_eq!(after("00000000000000000001.wal"), Some(5));
    assert_eq!(after("00000000000000000007.wal"), None);
    assert_eq!(after("copy-of-it"), None);
}
