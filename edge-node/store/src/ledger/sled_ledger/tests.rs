//! Damage to a ledger, and what is left of it.

use super::super::salvage::survey;
use super::*;

mod older;

fn put(ledger: &SledLedger) {
    let put = Change::Put {
        table: Table::Session,
        key: b"key".to_vec(),
        value: b"value".to_vec(),
    };
    ledger.apply(vec![put]).unwrap();
    ledger.flush().unwrap();
}

/// Bits flip, sectors are lost, the file is cut off: the ledger opens, is set aside where it must be, and never has a row that nobody wrote.
#[test]
fn one_that_is_damaged_anywhere_opens_or_is_set_aside() {
    let given = std::env::var("TOWLINE_SEED");
    let given = given.ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| u64::from(std::process::id()) << 20);
    println!("TOWLINE_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let ledger = SledLedger::open(&whole).unwrap();
    let row = |n: usize, turn: usize| {
        // Some are in pieces, which makes it large.
        let length = if n.is_multiple_of(50) {
            20_000
        } else {
            n % 300
        };
        let mut value = vec![n as u8; length];
        value.push(turn as u8);
        (format!("key {n}").into_bytes(), value)
    };
    // Again and again, so that it is as large and as mixed as after days.
    for n in 0..4000 {
        let (key, value) = row(n % 400, n / 400);
        let table = Table::Retained;
        let put = Change::Put { table, key, value };
        ledger.apply(vec![put]).unwrap();
        if n % 40 == 0 {
            ledger.flush().unwrap();
        }
    }
    ledger.flush().unwrap();
    drop(ledger);
    let bytes = std::fs::read(whole.join("db")).unwrap();
    let (mut set_aside, mut salvaged) = (0, 0);
    for run in 0..60 {
        let mut chance = seed.wrapping_add(run).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = |n: usize| {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            (chance >> 11) as usize % n
        };
        let mut damaged = bytes.clone();
        let at = below(damaged.len());
        let end = damaged.len().min(at + [512, 4096, 65_536][below(3)]);
        match below(6) {
            0 => damaged[at..end].fill(0),
            1 => damaged.truncate(at),
            2 => damaged[at] ^= 1 << below(8),
            // What sled has made at first: the root of its tree.
            3 | 4 => damaged[below(2000)] ^= 1 << below(8),
            _ => (0..64).for_each(|_| damaged[below(bytes.len())] ^= 1 << below(8)),
        }
        let place = dir.path().join(format!("run-{run}"));
        std::fs::create_dir(&place).unwrap();
        std::fs::copy(whole.join("conf"), place.join("conf")).unwrap();
        std::fs::write(place.join("db"), damaged).unwrap();
        let ledger = SledLedger::open(&place);
        let ledger =
            ledger.unwrap_or_else(|error| panic!("TOWLINE_SEED={seed}, run {run}: {error}"));
        let (mut newest, mut older) = (0, 0);
        for n in 0..400 {
            let (key, last) = row(n, 9);
            let found = ledger.get(Table::Retained, &key).unwrap();
            let is_right = found
                .as_ref()
                .is_none_or(|found| (0..10).any(|turn| *found == row(n, turn).1));
            assert!(
                is_right,
                "TOWLINE_SEED={seed}, run {run}: row {n} is another one"
            );
            newest += u32::from(found.as_deref() == Some(&last));
            older += u32::from(found.is_some_and(|found| found != last));
        }
        if ledger.set_aside.is_some() {
            set_aside += 1;
            salvaged += newest;
            println!("run {run}: {newest} rows are salvaged, and {older} as they were before");
        }
        put(&ledger);
        drop(ledger);
        // Some damage is met only now.
        let found = SledLedger::open(&place).unwrap();
        let is_there = found.value_len(Table::Session, b"key").unwrap().is_some();
        assert!(
            is_there || found.set_aside.is_some(),
            "TOWLINE_SEED={seed}, run {run}"
        );
    }
    assert!(set_aside > 0, "nothing was damaged enough");
    println!("{salvaged} rows of {set_aside} ledgers");
    assert!(salvaged > set_aside * 400 / 3, "TOWLINE_SEED={seed}");
}

/// The salvage knows the format of sled's file as sled does.
#[test]
fn of_one_that_is_whole_everything_is_salvaged() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("ledger");
    let put = |ledger: &SledLedger, n: u64, len: usize| {
        let change = Change::Put {
            table: Table::Retained,
            key: format!("some/topic/{}", n % 700).into_bytes(),
            value: vec![n as u8; len],
        };
        ledger.apply(vec![change]).unwrap();
    };
    let rows = |ledger: &SledLedger| {
        let mut rows = Vec::new();
        let all = &mut |key: &[u8], value: Bytes| {
            rows.push((key.to_vec(), value));
            true
        };
        ledger.scan(Table::Retained, b"", all).unwrap();
        rows
    };
    for turn in 0..4 {
        let ledger = SledLedger::open(&place).unwrap();
        for n in 0..3000_u64 {
            put(
                &ledger,
                n * 31 % 1009,
                if n % 97 == 0 {
                    30_000
                } else {
                    (n * 7 % 400) as usize
                },
            );
            if n % 5 == 0 {
                ledger
                    .apply(vec![Change::Delete {
                        table: Table::Retained,
                        key: format!("some/topic/{}", n * 17 % 701).into_bytes(),
                    }])
                    .unwrap();
            }
            if n % 100 == 0 {
                ledger.flush().unwrap();
            }
        }
        ledger.flush().unwrap();
        let there = rows(&ledger);
        drop(ledger);
        let fresh = dir.path().join(format!("salvaged-{turn}"));
        assert!(survey(&place, (MARK, mark::read)).unwrap().is_regular);
        assert_eq!(salvage(&place, &fresh, 0).unwrap(), (there.len(), 0));
        let salvaged = rows(&SledLedger::open(&fresh).unwrap());
        assert!(there.len() > 300 && there == salvaged, "turn {turn}");
    }
}

/// sled does not see it: the value is in pieces, and one of them is another one.
#[test]
fn a_value_with_a_wrong_checksum_is_set_aside_and_the_others_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("ledger");
    let ledger = SledLedger::open(&place).unwrap();
    let put_both = |ledger: &SledLedger| {
        for (key, value) in [("large", vec![1; 20_000]), ("other", vec![2; 20_000])] {
            let key = key.into();
            let table = Table::Retained;
            ledger
                .apply(vec![Change::Put { table, key, value }])
                .unwrap();
        }
        put(ledger);
    };
    let lose_a_piece = |ledger: &SledLedger| {
        let first = ledger.db.scan_prefix([PIECES]).next().unwrap().unwrap();
        ledger.db.remove(first.0).unwrap();
    };
    let keys = |ledger: &SledLedger| {
        let mut keys = Vec::new();
        let all = &mut |key: &[u8], _| {
            keys.push(key.to_vec());
            true
        };
        ledger.scan(Table::Retained, b"", all).unwrap();
        keys
    };
    put_both(&ledger);
    lose_a_piece(&ledger);
    assert_eq!(ledger.get(Table::Retained, b"large").unwrap(), None);
    assert_eq!(
        (keys(&ledger), ledger.damaged()),
        (vec![b"other".to_vec()], 1),
        "it counts once, however often it is read"
    );
    drop(ledger);
    let ledger = SledLedger::open(&place).unwrap();
    assert_eq!((ledger.values_set_aside, ledger.damaged()), (1, 0));
    assert_eq!(
        (keys(&ledger), ledger.damaged()),
        (vec![b"other".to_vec()], 0)
    );
    let aside = std::fs::read(dir.path().join("ledger.broken-0/values")).unwrap();
    assert_eq!(aside[..4], 1_u32.to_be_bytes());
    assert!(aside.len() > 20_000 - 2 * limits::LEDGER_PIECE);
    // A key or a row that is another one is found as well.
    let row = ledger.db.get(full_key(Table::Session, b"key")).unwrap();
    let mut flipped = row.clone().unwrap().to_vec();
    flipped[7] ^= 4;
    ledger
        .db
        .insert(full_key(Table::Session, b"key"), flipped)
        .unwrap();
    ledger
        .db
        .insert(full_key(Table::Session, b"kex"), row.unwrap())
        .unwrap();
    ledger.flush().unwrap();
    drop(ledger);
    let ledger = SledLedger::open(&place).unwrap();
    assert_eq!((ledger.values_set_aside, keys(&ledger).len()), (2, 1));
    drop(ledger);
    assert_eq!(SledLedger::open(&place).unwrap().values_set_aside, 0);
}

#[test]
fn a_value_that_is_replaced_while_it_is_read_is_not_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = SledLedger::open(&dir.path().join("ledger")).unwrap();
    let (table, name) = (Table::Retained, b"large".to_vec());
    let row = full_key(table, &name);
    let put = |n: u8| {
        let (key, value) = (name.clone(), vec![n; 20_000]);
        let put = Change::Put { table, key, value };
        ledger.apply(vec![put]).unwrap();
        ledger.db.get(&row).unwrap().unwrap()
    };
    let first = put(1);
    let second = put(2);
    let read = ledger.read_value(&row, first).unwrap();
    assert_eq!(read.as_deref(), Some(&[2; 20_000][..]));
    let key = name.clone();
    let delete = Change::Delete { table, key };
    ledger.apply(vec![delete]).unwrap();
    assert_eq!(ledger.read_value(&row, second).unwrap(), None);
    assert_eq!(ledger.damaged(), 0);
}

/// The power goes where values are out of the ledger, or just before that, and what they were written to has no name yet. The next opening finds another one.
#[test]
fn values_that_are_taken_out_when_the_power_goes_are_counted_once() {
    for was_taken_out in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("ledger");
        let damage = |ledger: &SledLedger, name: &str| {
            let key = full_key(Table::Session, name.as_bytes());
            ledger.db.insert(key, b"nobody wrote this").unwrap();
            ledger.flush().unwrap();
        };
        let ledger = SledLedger::open(&place).unwrap();
        put(&ledger);
        damage(&ledger, "first");
        drop(ledger);
        let ledger = SledLedger::open(&place).unwrap();
        assert_eq!(ledger.values_set_aside, 1);
        let aside = |n: u32| dir.path().join(format!("ledger.broken-{n}"));
        std::fs::rename(aside(0), dir.path().join("ledger.broken.new")).unwrap();
        damage(&ledger, "second");
        if !was_taken_out {
            damage(&ledger, "first");
        }
        drop(ledger);
        let ledger = SledLedger::open(&place).unwrap();
        assert_eq!(ledger.values_set_aside, 2);
        let count = |n| {
            let file = std::fs::read(aside(n).join("values"));
            file.ok().map(|file| keys_aside(&file).unwrap().len())
        };
        let counts = [count(0), count(1)];
        let expected = if was_taken_out {
            [Some(1), Some(1)]
        } else {
            [Some(2), None]
        };
        assert_eq!(counts, expected);
        assert!(!dir.path().join("ledger.broken.new").exists());
        drop(ledger);
        assert_eq!(SledLedger::open(&place).unwrap().values_set_aside, 0);
    }
}

#[test]
fn one_without_checksums_is_read_and_gets_them() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("ledger");
    let ledger = SledLedger::open(&place).unwrap();
    let id = 5_u64.to_be_bytes();
    for n in 0..3_u8 {
        let key = [&piece_prefix(&id)[..], &[0, 0, 0, n]].concat();
        ledger
            .db
            .insert(key, vec![n; limits::LEDGER_PIECE])
            .unwrap();
    }
    let key = full_key(Table::Session, b"large");
    ledger.db.insert(key, value::unchecked(Err(id))).unwrap();
    let key = full_key(Table::Session, b"key");
    ledger
        .db
        .insert(key, value::unchecked(Ok(b"value")))
        .unwrap();
    ledger.flush().unwrap();
    let check = |ledger: &SledLedger| {
        let small = ledger.get(Table::Session, b"key").unwrap();
        assert_eq!(small.as_deref(), Some(&b"value"[..]));
        let large = ledger.get(Table::Session, b"large").unwrap().unwrap();
        assert_eq!(large.len(), 3 * limits::LEDGER_PIECE);
        assert_eq!(large[2 * limits::LEDGER_PIECE], 2);
    };
    check(&ledger);
    drop(ledger);
    let mut ledger = SledLedger::open(&place).unwrap();
    assert!(ledger.is_unchecked);
    check(&ledger);
    ledger.add_checksums().unwrap();
    check(&ledger);
    assert_eq!(ledger.db.len(), 5, "the old pieces are gone");
    drop(ledger);
    let ledger = SledLedger::open(&place).unwrap();
    assert!(!ledger.is_unchecked);
    check(&ledger);
}

#[test]
fn one_that_somebody_has_open_is_waited_for_and_never_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("ledger");
    let moment = Duration::from_millis(50);
    put(&SledLedger::open(&place).unwrap());
    let held = File::open(place.join("db")).unwrap();
    // Until sled's threads have let go of it.
    held.lock().unwrap();
    assert!(SledLedger::open_within(&place, moment).is_err());
    let opening = std::thread::spawn({
        let place = place.clone();
        move || SledLedger::open(&place)
    });
    std::thread::sleep(moment);
    drop(held);
    let opened = opening.join().unwrap().unwrap();
    let found = opened.get(Table::Session, b"key").unwrap();
    assert_eq!(found.as_deref(), Some(&b"value"[..]));
    let names = std::fs::read_dir(dir.path()).unwrap();
    assert_eq!(names.count(), 1, "nothing was set aside");
}
