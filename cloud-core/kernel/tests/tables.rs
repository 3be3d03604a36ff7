//! Tables that are read while others write.

use bytes::Bytes;
use kernel::{Command, Entry, Kernel, Outcome, Stepper};
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
fn what_was_put_since_a_value_was_read_is_not_deleted() {
    let disk = SimDisk::default();
    let (kernel, mut stepper) = open(&disk).unwrap();
    let write = |kernel: &Kernel, stepper: &mut Stepper, entry| {
        let written = kernel.write(entry);
        drive(stepper, written).unwrap()
    };
    let delete_if = |key: &'static str, value: &'static str| Command::TableDeleteIf {
        table: "t".into(),
        key: key.into(),
        value: value.into(),
    };
    let filled = Entry::new().put("t", "a", "old").put("t", "b", "old");
    write(&kernel, &mut stepper, filled);
    write(&kernel, &mut stepper, Entry::new().put("t", "a", "new"));
    let deleted = ["a", "b", "b", "c"].map(|key| delete_if(key, "old"));
    let outcomes = write(&kernel, &mut stepper, deleted.into_iter().collect());
    let expected = [
        Outcome::NoEffect,
        Outcome::Done,
        Outcome::NoEffect,
        Outcome::NoEffect,
    ];
    assert_eq!(outcomes, expected);
    let left = [(Bytes::from("a"), Bytes::from("new"))];
    assert_eq!(kernel.table_scan("t", b""), left);
    assert_eq!(kernel.table_bytes("t"), 4);
    // As it is read again from the log.
    let (kernel, mut stepper) = open(&disk.after_crash(1)).unwrap();
    assert_eq!(kernel.table_scan("t", b""), left);
    let last = Entry::new().with(delete_if("a", "new"));
    write(&kernel, &mut stepper, last);
    assert_eq!((kernel.table_len("t"), kernel.table_bytes("t")), (0, 0));
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
