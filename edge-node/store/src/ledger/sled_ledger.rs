//! The ledger on sled 0.34.7.

use std::fs::File;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Change, Ledger, LedgerError, Table};
use crate::limits;

/// Pieces of large values: not a [`Table`], since nobody but this file names it.
const PIECES: u8 = 255;
const INLINE: u8 = 0;
const IN_PIECES: u8 = 1;
/// What sled may keep in memory. It keeps more than that: the rows are few.
const CACHE: u64 = 1024 * 1024;

pub struct SledLedger {
    db: sled::Db,
    dir: PathBuf,
    is_new: bool,
    next_piece: AtomicU64,
    /// Set aside at this opening because it did not open.
    pub set_aside: Option<PathBuf>,
}

/// Why sled does not open.
enum NotOpened {
    /// What is in its files.
    Damaged(LedgerError),
    /// Something around it, that does not tell of its files: no room, no permission, no memory.
    Refused(LedgerError),
    /// Somebody has it open. sled's own threads have, for moments after it was closed.
    Locked(LedgerError),
}

impl NotOpened {
    fn into_error(self) -> LedgerError {
        match self {
            NotOpened::Damaged(error) | NotOpened::Refused(error) | NotOpened::Locked(error) => {
                error
            }
        }
    }
}

impl From<sled::Error> for NotOpened {
    fn from(error: sled::Error) -> NotOpened {
        use ErrorKind::*;
        let refused = match &error {
            sled::Error::Io(error) => matches!(
                error.kind(),
                StorageFull | QuotaExceeded | PermissionDenied | ReadOnlyFilesystem | OutOfMemory
            ),
            _ => false,
        };
        let error = failed(error);
        // It has no kind of its own.
        if error.0.contains("could not acquire lock") {
            NotOpened::Locked(error)
        } else if refused {
            NotOpened::Refused(error)
        } else {
            NotOpened::Damaged(error)
        }
    }
}

fn failed(error: impl std::fmt::Display) -> LedgerError {
    LedgerError(error.to_string())
}

impl SledLedger {
    /// Opens the ledger in `dir`. One that does not open is moved to `dir.broken-N`, and an empty one is begun: the store
    /// rebuilds it from the segments.
    pub fn open(dir: &Path) -> Result<SledLedger, LedgerError> {
        SledLedger::open_within(dir, limits::LEDGER_LOCK)
    }

    /// Waits so long for somebody who has it open.
    fn open_within(dir: &Path, patience: Duration) -> Result<SledLedger, LedgerError> {
        let end = Instant::now() + patience;
        let mut opened = Self::try_open(dir);
        while matches!(opened, Err(NotOpened::Locked(_))) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
            opened = Self::try_open(dir);
        }
        match opened {
            Ok(ledger) => Ok(ledger),
            Err(NotOpened::Refused(error) | NotOpened::Locked(error)) => Err(error),
            Err(NotOpened::Damaged(error)) => {
                let aside = free_name(dir)?;
                tracing::error!(%error, set_aside = %aside.display(), "the ledger does not open; it is rebuilt from the segments");
                std::fs::rename(dir, &aside).map_err(failed)?;
                let mut ledger = Self::try_open(dir).map_err(NotOpened::into_error)?;
                ledger.set_aside = Some(aside);
                Ok(ledger)
            }
        }
    }

    fn try_open(dir: &Path) -> Result<SledLedger, NotOpened> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE)
            // Flushed by us, with a sync of our own: sled's flush is not durable on Linux.
            .flush_every_ms(None);
        let db = reading(|| config.open())?;
        let (is_new, last) = match reading(|| read_all(&db)) {
            Ok(read) => read,
            Err(error) => {
                // It writes when it is closed, which may be as impossible.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
                return Err(error);
            }
        };
        let next = last
            .and_then(|key| Some(u64::from_be_bytes(key.get(1..9)?.try_into().ok()?) + 1))
            .unwrap_or(0);
        let ledger = SledLedger {
            is_new,
            db,
            dir: dir.to_owned(),
            next_piece: AtomicU64::new(next),
            set_aside: None,
        };
        // sled makes its files at open: their names must survive as well as their contents.
        let sync = |dir: &Path| File::open(dir).and_then(|dir| dir.sync_all());
        let refused = |error| NotOpened::Refused(failed(error));
        sync(dir).map_err(refused)?;
        if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            sync(parent).map_err(refused)?;
        }
        Ok(ledger)
    }

    fn read_value(&self, stored: &[u8]) -> Result<Bytes, LedgerError> {
        match stored.split_first() {
            Some((&INLINE, value)) => Ok(Bytes::copy_from_slice(value)),
            Some((&IN_PIECES, id)) => {
                let mut value = Vec::new();
                for piece in self.db.scan_prefix(piece_prefix(id)) {
                    value.extend_from_slice(&piece.map_err(failed)?.1);
                }
                Ok(value.into())
            }
            _ => Err(LedgerError("a value without its tag".into())),
        }
    }

    fn delete_pieces(&self, key: &[u8], batch: &mut sled::Batch) -> Result<(), LedgerError> {
        let old = self.db.get(key).map_err(failed)?;
        if let Some((&IN_PIECES, id)) = old.as_deref().and_then(<[u8]>::split_first) {
            for piece in self.db.scan_prefix(piece_prefix(id)).keys() {
                batch.remove(piece.map_err(failed)?);
            }
        }
        Ok(())
    }
}

/// sled panics on some kinds of damage instead of returning an error.
fn reading<T>(read: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, NotOpened> {
    let read = catch_unwind(AssertUnwindSafe(read)).map_err(|_| {
        let reason = "sled panicked while it read its file, which is damaged";
        NotOpened::Damaged(LedgerError(reason.into()))
    })?;
    read.map_err(NotOpened::from)
}

/// Reads every row: damage that sled meets only where it reads is found while the ledger can still be set aside, and not at each start anew.
/// Gives whether there is none, and the last key of the pieces.
fn read_all(db: &sled::Db) -> Result<(bool, Option<sled::IVec>), sled::Error> {
    let mut is_new = true;
    for row in db.iter() {
        row?;
        is_new = false;
    }
    let last = db.scan_prefix([PIECES]).next_back().transpose()?;
    Ok((is_new, last.map(|(key, _)| key)))
}

fn free_name(dir: &Path) -> Result<PathBuf, LedgerError> {
    (0..u32::MAX)
        .map(|n| {
            let mut name = dir.as_os_str().to_owned();
            name.push(format!(".broken-{n}"));
            PathBuf::from(name)
        })
        .find(|path| !path.exists())
        .ok_or_else(|| LedgerError("no free name to set the broken ledger aside".into()))
}

fn piece_prefix(id: &[u8]) -> Vec<u8> {
    [&[PIECES], id].concat()
}

fn full_key(table: Table, key: &[u8]) -> Vec<u8> {
    [&[table as u8], key].concat()
}

impl Ledger for SledLedger {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, LedgerError> {
        let stored = self.db.get(full_key(table, key)).map_err(failed)?;
        stored.map(|stored| self.read_value(&stored)).transpose()
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        visit: &mut dyn FnMut(&[u8], Bytes) -> bool,
    ) -> Result<(), LedgerError> {
        for row in self.db.scan_prefix(full_key(table, prefix)) {
            let (key, stored) = row.map_err(failed)?;
            let value = self.read_value(&stored)?;
            if !visit(key.get(1..).unwrap_or_default(), value) {
                break;
            }
        }
        Ok(())
    }

    fn contains(&self, table: Table, key: &[u8]) -> Result<bool, LedgerError> {
        self.db.contains_key(full_key(table, key)).map_err(failed)
    }

    fn count(&self, table: Table) -> Result<usize, LedgerError> {
        let mut keys = self.db.scan_prefix(full_key(table, b"")).keys();
        keys.try_fold(0, |count, key| key.map(|_| count + 1))
            .map_err(failed)
    }

    fn apply(&self, changes: Vec<Change>) -> Result<(), LedgerError> {
        let mut batch = sled::Batch::default();
        for change in changes {
            match change {
                Change::Put { table, key, value } => {
                    let key = full_key(table, &key);
                    self.delete_pieces(&key, &mut batch)?;
                    if value.len() <= limits::LEDGER_PIECE {
                        batch.insert(key, [&[INLINE], &value[..]].concat());
                        continue;
                    }
                    let id = self
                        .next_piece
                        .fetch_add(1, Ordering::Relaxed)
                        .to_be_bytes();
                    for (n, piece) in value.chunks(limits::LEDGER_PIECE).enumerate() {
                        let place = (n as u32).to_be_bytes();
                        batch.insert([&piece_prefix(&id)[..], &place].concat(), piece);
                    }
                    batch.insert(key, [&[IN_PIECES], &id[..]].concat());
                }
                Change::Delete { table, key } => {
                    let key = full_key(table, &key);
                    self.delete_pieces(&key, &mut batch)?;
                    batch.remove(key);
                }
            }
        }
        self.db.apply_batch(batch).map_err(failed)
    }

    fn flush(&self) -> Result<(), LedgerError> {
        self.db.flush().map_err(failed)?;
        // sled 0.34.7 stops at sync_file_range, which does not survive a power cut.
        File::open(self.dir.join("db"))
            .and_then(|file| file.sync_data())
            .map_err(failed)
    }

    fn is_new(&self) -> bool {
        self.is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let row = |n: usize| {
            // Some are in pieces, which makes it large.
            let length = if n.is_multiple_of(50) {
                20_000
            } else {
                n % 300
            };
            (format!("key {n}").into_bytes(), vec![n as u8; length])
        };
        // Again and again, so that it is as large and as mixed as after days.
        for n in 0..4000 {
            let (key, value) = row(n % 400);
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
        let mut set_aside = 0;
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
            set_aside += u32::from(ledger.set_aside.is_some());
            // Pieces of what was in pieces may be missing: what is kept so is checked by who reads it.
            for n in (0..400).filter(|n| n % 50 != 0) {
                let (key, value) = row(n);
                let found = ledger.get(Table::Retained, &key).unwrap();
                let is_right = found.is_none_or(|found| found == value);
                assert!(
                    is_right,
                    "TOWLINE_SEED={seed}, run {run}: row {n} is another one"
                );
            }
            put(&ledger);
            drop(ledger);
            // Some damage is met only now.
            let found = SledLedger::open(&place).unwrap();
            let is_there = found.contains(Table::Session, b"key").unwrap();
            assert!(
                is_there || found.set_aside.is_some(),
                "TOWLINE_SEED={seed}, run {run}"
            );
        }
        assert!(set_aside > 0, "nothing was damaged enough");
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
}
