//! A ledger that opens without what was durable in it is set aside; one that a power cut has left never is.

use super::*;

/// Random numbers from a seed that is printed.
struct Chance(u64);

impl Chance {
    fn new() -> Chance {
        let given = std::env::var("TOWLINE_SEED");
        let given = given.ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()) << 20 | 1);
        println!("TOWLINE_SEED={seed}");
        Chance(seed)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) >> 11) as usize % n
    }
}

fn change(n: usize, version: u32, len: usize) -> Change {
    let mut value = version.to_be_bytes().to_vec();
    value.resize(4 + len, n as u8);
    Change::Put {
        table: Table::Retained,
        key: format!("key {n}").into_bytes(),
        value,
    }
}

/// The version of a row; 0: there is none.
fn version(ledger: &SledLedger, n: usize) -> u32 {
    let found = ledger.get(Table::Retained, format!("key {n}").as_bytes());
    let found = found.unwrap();
    found.map_or(0, |value| {
        u32::from_be_bytes(value[..4].try_into().unwrap())
    })
}

fn place(dir: &Path, name: &str, conf: &Path, db: &[u8]) -> PathBuf {
    let place = dir.join(name);
    std::fs::create_dir(&place).unwrap();
    std::fs::copy(conf, place.join("conf")).unwrap();
    std::fs::write(place.join("db"), db).unwrap();
    place
}

#[test]
fn damage_that_sled_takes_for_the_end_of_its_log_is_found() {
    const ROWS: usize = 300;
    let mut chance = Chance::new();
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let ledger = SledLedger::open(&whole).unwrap();
    // What was durable before the last flush but one, and what is.
    let (mut settled, mut durable, mut now) = (vec![0; ROWS], vec![0; ROWS], vec![0; ROWS]);
    for turn in 1..3000 {
        let n = chance.below(ROWS);
        now[n] = turn;
        ledger
            .apply(vec![change(n, turn, chance.below(400))])
            .unwrap();
        if turn % 7 == 0 {
            ledger.flush().unwrap();
            settled.clone_from(&durable);
            durable.clone_from(&now);
        }
    }
    ledger.flush().unwrap();
    drop(ledger);
    let bytes = std::fs::read(whole.join("db")).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let (mut found, mut salvaged) = (0, 0);
    for run in 0..80 {
        let mut damaged = bytes.clone();
        let at = chance.below(used);
        if run % 2 == 0 {
            damaged[at] ^= 1 << chance.below(8);
        } else {
            let sector = at / 512 * 512;
            // The file may end in the middle of its last sector.
            let end = damaged.len().min(sector + 512);
            damaged[sector..end].fill(0);
        }
        let place = place(
            dir.path(),
            &format!("run-{run}"),
            &whole.join("conf"),
            &damaged,
        );
        let ledger = SledLedger::open(&place).unwrap();
        let newest = (0..ROWS)
            .filter(|n| version(&ledger, *n) == now[*n])
            .count();
        if ledger.set_aside.is_some() {
            found += 1;
            salvaged += newest;
        } else if ledger.values_set_aside == 0 {
            for (n, settled) in settled.iter().enumerate() {
                let version = version(&ledger, n);
                assert!(
                    version >= *settled,
                    "run {run}, at {at}: row {n} is {version}, and was {settled}"
                );
            }
        }
        // It is not found again, and goes on.
        ledger.apply(vec![change(0, 5000, 10)]).unwrap();
        ledger.flush().unwrap();
        ledger.apply(vec![change(1, 5001, 10)]).unwrap();
        ledger.flush().unwrap();
        drop(ledger);
        let ledger = SledLedger::open(&place).unwrap();
        assert!(ledger.set_aside.is_none(), "run {run}, at {at}");
        assert_eq!((version(&ledger, 0), version(&ledger, 1)), (5000, 5001));
        assert!(!beside(&place, ".before").exists());
    }
    println!(
        "{found} ledgers were set aside, {salvaged} of {} rows salvaged",
        found * ROWS
    );
    assert!(
        found > 5 && salvaged > found * ROWS * 3 / 4,
        "{found}, {salvaged}"
    );
}

/// Of what was written after the last flush any sectors may be there, in this life of the ledger and in those before. Where sled finds all that was durable,
/// nothing is set aside. It does not always: what it moves to free a part of its file may not be durable when it writes over that part.
#[test]
fn what_a_power_cut_leaves_is_not_taken_for_damage() {
    const ROWS: usize = 100;
    let mut chance = Chance::new();
    let dir = tempfile::tempdir().unwrap();
    let (mut cuts, mut copied, mut lost, mut alarms) = (0, 0, 0, 0);
    for history in 0..8 {
        let mut here = dir.path().join(format!("history-{history}"));
        let mut turn = 0;
        for life in 0..8 {
            let ledger = SledLedger::open(&here).unwrap();
            let mut now: Vec<u32> = (0..ROWS).map(|n| version(&ledger, n)).collect();
            let mut durable = None;
            let steps = chance.below(400);
            for step in 0..steps {
                turn += 1;
                let n = chance.below(ROWS);
                now[n] = turn;
                let large = chance.below(40) == 0;
                let len = if large { 20_000 } else { chance.below(600) };
                ledger.apply(vec![change(n, turn, len)]).unwrap();
                if chance.below(6) == 0 && step + 20 < steps {
                    ledger.flush().unwrap();
                    let mark = ledger.marks.lock().flushing().unwrap();
                    let on_disk = std::fs::read(here.join("db")).unwrap();
                    durable = Some((now.clone(), mark, on_disk));
                }
            }
            // Written, and not synced: what a flush does before the power goes.
            ledger.db.flush().unwrap();
            let Some((durable, mark, on_disk)) = durable else {
                ledger.flush().unwrap();
                continue;
            };
            let mut left = std::fs::read(here.join("db")).unwrap();
            let often = 1 + chance.below(8);
            for (n, sector) in left.chunks_mut(512).enumerate() {
                let before = on_disk.get(n * 512..).unwrap_or_default();
                if chance.below(8) < often {
                    let len = sector.len().min(before.len());
                    sector[..len].copy_from_slice(&before[..len]);
                    sector[len..].fill(0);
                }
            }
            drop(ledger);
            cuts += 1;
            let copy = |what: &str| {
                let name = format!("{what}-{history}-{life}");
                place(dir.path(), &name, &here.join("conf"), &left)
            };
            let (plain, opened, next) = (copy("plain"), copy("opened"), copy("next"));
            let survey = survey(&opened, (MARK, mark::read)).unwrap();
            copied += u32::from(!survey.is_regular);
            // As sled has it, whatever it is compared with.
            let is_whole = SledLedger::try_open(&plain, 0).is_ok_and(|found| {
                let rows = durable.iter().enumerate();
                let mut rows = rows.map(|(n, durable)| version(&found, n) >= *durable);
                rows.all(|is_there| is_there) && found.marks.lock().flushing() >= Some(mark)
            });
            let opened = SledLedger::open(&opened).unwrap();
            if is_whole {
                assert!(
                    opened.set_aside.is_none() && opened.values_set_aside == 0,
                    "history {history}, life {life}: a power cut is no damage"
                );
            } else {
                lost += 1;
                alarms += u32::from(opened.set_aside.is_some());
                break;
            }
            here = next;
        }
    }
    println!(
        "{cuts} power cuts, {copied} left a file that is copied; sled lost something in {lost}, of which {alarms} were found"
    );
    assert!(cuts > lost * 3 && copied > 0, "{cuts} {lost} {copied}");
}
