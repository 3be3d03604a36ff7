//! Tables that are read while others write.

use bytes::Bytes;
use kernel::{Entry, Kernel};
use sim::disk::SimDisk;
use sim::stepped::{drive, open};

fn key(number: usize) -> Bytes {
    format!("k/{number:04}").into()
}

/// More than are looked up together, and a prefix of its own before and behind.
fn filled(kernel: &Kernel, rows: usize) -> Entry {
    assert_eq!(kernel.table_len("t"), 0);
    let keys = ["j", "k", "k0", "l"].map(Bytes::from).into_iter();
    let keys = keys.chain((0..rows).map(key));
    keys.fold(Entry::new(), |entry, key| entry.put("t", key, "old"))
}

#[test]
fn a_walk_keeps_nobody_from_writing_and_sees_the_table_as_it_was() {
    let (kernel, mut stepper) = open(&SimDisk::default()).unwrap();
    let written = kernel.write(filled(&kernel, 1_000));
    drive(&mut stepper, written).unwrap();
    let mut walk = kernel.table_rows("t", "k/");
    assert_eq!(walk.next(), Some((key(0), Bytes::from("old"))));
    // The writer runs on this thread: it would wait for ever for a lock that the walk has.
    let mut changes = Entry::new().put("t", "k/0999x", "new");
    for number in 1..1_000 {
        changes = match number % 3 {
            0 => changes.delete("t", key(number)),
            1 => changes.put("t", key(number), "new"),
            _ => changes.put("t", format!("k/{number:04}x"), "new"),
        };
    }
    let written = kernel.write(changes);
    drive(&mut stepper, written).unwrap();
    let old = (1..1_000).map(|number| (key(number), Bytes::from("old")));
    assert!(walk.eq(old));
    assert_eq!(kernel.table_get("t", &key(3)), None);
}

#[test]
fn a_walk_ends_where_its_prefix_does() {
    for rows in [0, 1, 127, 128, 129, 255, 256, 257] {
        let (kernel, mut stepper) = open(&SimDisk::default()).unwrap();
        assert_eq!(kernel.table_rows("t", "").next(), None);
        let written = kernel.write(filled(&kernel, rows));
        drive(&mut stepper, written).unwrap();
        for prefix in ["", "k", "k/", "k/00", "x"] {
            let scanned = kernel.table_scan("t", prefix.as_bytes());
            assert!(
                kernel.table_rows("t", prefix).eq(scanned),
                "{rows} {prefix}"
            );
        }
        let mut walk = kernel.table_rows("t", "k/");
        assert_eq!(walk.by_ref().count(), rows);
        assert_eq!(walk.next(), None);
    }
}
