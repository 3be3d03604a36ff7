//! The ledger on sled 0.34.7.

use std::fs::File;
use std::io::ErrorKind;
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
        // sled panics on some kinds of damage instead of returning an error.
        let open = std::panic::AssertUnwindSafe(|| config.open());
        let opened = std::panic::catch_unwind(open).map_err(|_| {
            NotOpened::Damaged(LedgerError(
                "sled panicked while it read its file, which is damaged".into(),
            ))
        })?;
        let db = opened.map_err(NotOpened::from)?;
        let last = db
            .scan_prefix([PIECES])
            .next_back()
            .transpose()
            .map_err(NotOpened::from)?;
        let next = last
            .and_then(|(key, _)| Some(u64::from_be_bytes(key.get(1..9)?.try_into().ok()?) + 1))
            .unwrap_or(0);
        let ledger = SledLedger {
            is_new: db.is_empty(),
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
