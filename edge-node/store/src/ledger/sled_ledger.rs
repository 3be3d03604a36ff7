//! The ledger on sled 0.34.7.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use self::mark::{MARK, Marks};
use self::restore::{look, salvage};
use self::values::Damaged;
use super::value::{self, Stored, Whole, checksum};
use super::{Change, Ledger, LedgerError, RowSum, Table};
use crate::limits;

mod mark;
mod restore;
mod values;

/// Pieces of large values: not a [`Table`], since nobody but this file names it.
const PIECES: u8 = 255;
/// What sled may keep in memory. It keeps more than that: the rows are few.
const CACHE: u64 = 1024 * 1024;
/// The file of values that were set aside, in a directory of their own.
const VALUES: &str = "values";

pub struct SledLedger {
    db: sled::Db,
    dir: PathBuf,
    is_new: bool,
    next_piece: AtomicU64,
    marks: Mutex<Marks>,
    /// Rows that were written before there were checksums.
    is_unchecked: bool,
    damaged: Damaged,
    /// Set aside at this opening because it did not open. What could be read in it is in this one.
    pub set_aside: Option<PathBuf>,
    /// Values that were set aside at this opening because their checksums were wrong.
    pub values_set_aside: u32,
}

/// Why sled does not open.
#[derive(Debug)]
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
        let fresh = beside(dir, ".new");
        if fresh.exists() {
            if dir.exists() {
                remove_dir(&fresh)?;
            } else {
                // It was whole before the damaged one was moved away.
                std::fs::rename(&fresh, dir).map_err(failed)?;
            }
        }
        let before = beside(dir, ".before");
        // Left behind, it only takes room: what comes of it is in the ledger.
        let remove_before = || {
            let removed = remove_dir(&before).and_then(|()| sync_parent(dir).map_err(failed));
            if let Err(error) = removed {
                tracing::warn!(%error, "the copy of the ledger can not be removed");
            }
        };
        let mark = look(dir, &before);
        match Self::wait_and_open(dir, patience, mark) {
            Ok(ledger) => {
                remove_before();
                Ok(ledger)
            }
            Err(NotOpened::Refused(error) | NotOpened::Locked(error)) => Err(error),
            Err(NotOpened::Damaged(error)) => {
                let aside = free_name(dir)?;
                tracing::error!(%error, set_aside = %aside.display(), "the ledger does not open; it is set aside");
                let is_kept = before.join("db").exists();
                match salvage(if is_kept { &before } else { dir }, &fresh, mark) {
                    Ok((taken, left)) => {
                        tracing::warn!(
                            taken,
                            left,
                            "values were salvaged from the ledger that does not open; what else was in it is rebuilt from the segments"
                        );
                        std::fs::rename(dir, &aside).map_err(failed)?;
                        std::fs::rename(&fresh, dir).map_err(failed)?;
                    }
                    // The next start has more room, or rights; until then nothing is moved.
                    Err(NotOpened::Refused(error)) => {
                        remove_dir(&fresh)?;
                        return Err(error);
                    }
                    Err(NotOpened::Locked(error) | NotOpened::Damaged(error)) => {
                        tracing::error!(%error, "nothing can be salvaged from it; it is rebuilt from the segments");
                        remove_dir(&fresh)?;
                        std::fs::rename(dir, &aside).map_err(failed)?;
                    }
                }
                let opened = Self::wait_and_open(dir, limits::LEDGER_LOCK, 0);
                let mut ledger = opened.map_err(NotOpened::into_error)?;
                // Its place has been made durable.
                remove_before();
                ledger.set_aside = Some(aside);
                Ok(ledger)
            }
        }
    }

    fn wait_and_open(dir: &Path, patience: Duration, mark: u64) -> Result<SledLedger, NotOpened> {
        let end = Instant::now() + patience;
        let mut opened = Self::try_open(dir, mark);
        while matches!(opened, Err(NotOpened::Locked(_))) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
            opened = Self::try_open(dir, mark);
        }
        opened
    }

    /// `mark`: how new it must be.
    fn try_open(dir: &Path, mark: u64) -> Result<SledLedger, NotOpened> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE)
            // Flushed by us, with a sync of our own: sled's flush is not durable on Linux.
            .flush_every_ms(None);
        let db = reading(|| config.open())?;
        let contents = match reading(|| read_all(&db)) {
            Ok(read) => read,
            Err(error) => {
                // It writes when it is closed, which may be as impossible.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
                return Err(error);
            }
        };
        let is_older = match contents.mark {
            Some(found) => found.saturating_add(1) < mark,
            // It is damaged itself, and sled has not seen that.
            None => false,
        };
        if is_older || contents.is_new && mark > 0 {
            let reason = "what was durable in it is gone: there is damage that sled takes for the end of its file";
            return Err(NotOpened::Damaged(LedgerError(reason.into())));
        }
        let mut ledger = SledLedger {
            marks: Mutex::new(Marks::of(contents.mark.unwrap_or(mark), !contents.is_new)),
            is_new: contents.is_new,
            db,
            dir: dir.to_owned(),
            next_piece: AtomicU64::new(contents.next_piece),
            is_unchecked: contents.is_unchecked,
            damaged: Damaged::default(),
            set_aside: None,
            values_set_aside: 0,
        };
        // sled makes its files at open: their names must survive as well as their contents.
        let refused = |error| NotOpened::Refused(failed(error));
        for made in [&dir.join("conf"), dir] {
            File::open(made)
                .and_then(|made| made.sync_all())
                .map_err(refused)?;
        }
        sync_parent(dir).map_err(refused)?;
        // Reads pass over those that can not be set aside.
        if let Err(error) = ledger.set_values_aside(&contents.damaged) {
            tracing::error!(%error, "damaged values of the ledger can not be set aside");
        }
        if contents.mark.is_none() {
            // There are greater ones in the file than those that would be written without it.
            let rows = vec![(MARK.into(), Bytes::copy_from_slice(&mark.to_be_bytes()))];
            ledger.put(rows).map_err(NotOpened::Refused)?;
        }
        Ok(ledger)
    }

    /// Takes values whose checksums are wrong out of the ledger, to a file of their own: durable when this returns.
    ///
    /// Under a name that does not count yet, until they are out of the ledger: after a power cut in between they are set aside once.
    fn set_values_aside(&mut self, keys: &[sled::IVec]) -> Result<(), LedgerError> {
        let draft = beside(&self.dir, ".broken.new");
        // The power went before it had its name. If they are out of the ledger, it counts.
        let drafted = std::fs::read(draft.join(VALUES)).ok();
        if let Some(drafted) = drafted.as_deref().and_then(keys_aside)
            && drafted
                .iter()
                .any(|key| !keys.iter().any(|found| found == key))
        {
            let aside = free_name(&self.dir)?;
            std::fs::rename(&draft, &aside).map_err(failed)?;
            sync_parent(&self.dir).map_err(failed)?;
            self.values_set_aside = drafted.len() as u32;
        }
        if keys.is_empty() {
            return Ok(());
        }
        let count = keys.len() as u32;
        let mut bytes = count.to_be_bytes().to_vec();
        let mut batch = sled::Batch::default();
        for key in keys {
            let row = self.db.get(key).map_err(failed)?.unwrap_or_default();
            let mut stored = row.to_vec();
            if let Some(Stored::InPieces { id, .. }) = Stored::read(key, &row) {
                for piece in self.db.scan_prefix(piece_prefix(&id)) {
                    let (key, piece) = piece.map_err(failed)?;
                    stored.extend_from_slice(&piece);
                    batch.remove(key);
                }
            }
            for part in [&key[..], &stored] {
                bytes.extend_from_slice(&(part.len() as u32).to_be_bytes());
                bytes.extend_from_slice(part);
            }
            batch.remove(key);
            tracing::error!(key = %key.escape_ascii(), "a value of the ledger is damaged: it is set aside");
        }
        let write = || {
            if draft.exists() {
                std::fs::remove_dir_all(&draft)?;
            }
            DirBuilder::new().mode(0o700).create(&draft)?;
            let mut file = OpenOptions::new();
            let file = file.write(true).create_new(true).mode(0o600);
            let mut file = file.open(draft.join(VALUES))?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            File::open(&draft)?.sync_all()?;
            sync_parent(&self.dir)
        };
        write().map_err(failed)?;
        self.db.apply_batch(batch).map_err(failed)?;
        self.flush()?;
        let aside = free_name(&self.dir)?;
        std::fs::rename(&draft, &aside).map_err(failed)?;
        sync_parent(&self.dir).map_err(failed)?;
        self.values_set_aside += count;
        Ok(())
    }

    /// Writes what was written before there were checksums again.
    pub(crate) fn add_checksums(&mut self) -> Result<(), LedgerError> {
        if !self.is_unchecked {
            return Ok(());
        }
        let mut changes = Vec::new();
        let mut bytes = 0;
        for row in self.db.range(..[PIECES]) {
            let (key, stored) = row.map_err(failed)?;
            let is_checked = match Stored::read(&key, &stored) {
                Some(Stored::Here { sum, .. }) => sum.is_some(),
                Some(Stored::InPieces { whole, .. }) => whole.is_some(),
                None => true,
            };
            if is_checked {
                continue;
            }
            if let Some(value) = self.read_value(&key, stored)? {
                bytes += key.len() + value.len();
                changes.push((key, value));
            }
            if bytes > limits::LEDGER_REWRITE {
                self.put(std::mem::take(&mut changes))?;
                bytes = 0;
            }
        }
        self.put(changes)?;
        self.is_unchecked = false;
        tracing::info!("the values of the ledger have checksums now");
        Ok(())
    }

    fn put(&self, rows: Vec<(sled::IVec, Bytes)>) -> Result<(), LedgerError> {
        let mut batch = sled::Batch::default();
        for (key, value) in rows {
            self.delete_pieces(&key, &mut batch)?;
            self.insert(key.to_vec(), &value, &mut batch);
        }
        self.db.apply_batch(batch).map_err(failed)?;
        self.flush()
    }

    fn insert(&self, key: Vec<u8>, value: &[u8], batch: &mut sled::Batch) {
        if value.len() <= limits::LEDGER_PIECE {
            let row = value::here(&key, value);
            batch.insert(key, row);
            return;
        }
        let id = self.next_piece.fetch_add(1, Ordering::Relaxed);
        let id = id.to_be_bytes();
        for (n, piece) in value.chunks(limits::LEDGER_PIECE).enumerate() {
            let place = (n as u32).to_be_bytes();
            batch.insert([&piece_prefix(&id)[..], &place].concat(), piece);
        }
        let row = value::in_pieces(&key, value, id);
        batch.insert(key, row);
    }

    fn delete_pieces(&self, key: &[u8], batch: &mut sled::Batch) -> Result<(), LedgerError> {
        let old = self.db.get(key).map_err(failed)?;
        let old = old.as_deref().and_then(|old| Stored::read(key, old));
        if let Some(Stored::InPieces { id, .. }) = old {
            for piece in self.db.scan_prefix(piece_prefix(&id)).keys() {
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

fn sync_parent(dir: &Path) -> std::io::Result<()> {
    match dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn remove_dir(dir: &Path) -> Result<(), LedgerError> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

struct Contents {
    is_new: bool,
    next_piece: u64,
    is_unchecked: bool,
    /// `None`: it is damaged.
    mark: Option<u64>,
    /// Keys of values whose checksums are wrong.
    damaged: Vec<sled::IVec>,
}

/// Reads every row: damage that sled meets only where it reads is found while the ledger can still be set aside, and not at each start anew.
/// What is in pieces is put together as it comes by: the pieces stand behind all else.
fn read_all(db: &sled::Db) -> Result<Contents, sled::Error> {
    let mut contents = Contents {
        is_new: true,
        next_piece: 0,
        is_unchecked: false,
        mark: Some(0),
        damaged: Vec::new(),
    };
    let mut large = HashMap::new();
    for row in db.iter() {
        let (key, stored) = row?;
        contents.is_new = false;
        if key.first() == Some(&PIECES) {
            let id: Option<[u8; 8]> = key.get(1..9).and_then(|id| id.try_into().ok());
            let Some(id) = id else { continue };
            contents.next_piece = u64::from_be_bytes(id).saturating_add(1);
            if let Some((_, _, found)) = large.get_mut(&id) {
                let Whole { len, sum } = found;
                *len = len.saturating_add(stored.len() as u32);
                *sum = crc32c::crc32c_append(*sum, &stored);
            }
            continue;
        }
        if *key == *MARK {
            contents.mark = mark::read(&stored);
        }
        match Stored::read(&key, &stored) {
            Some(Stored::Here { sum: None, .. }) => contents.is_unchecked = true,
            Some(Stored::Here { sum, value }) if sum == Some(checksum(&key, value)) => {}
            Some(Stored::InPieces { whole: None, .. }) => contents.is_unchecked = true,
            Some(Stored::InPieces { id, whole }) => {
                let found = Whole::of(&key, b"");
                if let Some((key, ..)) = large.insert(id, (key, whole, found)) {
                    // Two of them cannot both be what was written.
                    contents.damaged.push(key);
                }
            }
            _ => contents.damaged.push(key),
        }
    }
    let large = large.into_values();
    let damaged = large.filter(|(_, whole, found)| *whole != Some(*found));
    contents.damaged.extend(damaged.map(|(key, ..)| key));
    Ok(contents)
}

/// The keys of values that were set aside, by their file. `None`: it is not whole.
fn keys_aside(file: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (count, mut rest) = file.split_first_chunk()?;
    let mut keys = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let mut parts = [&[][..]; 2];
        for part in &mut parts {
            let (len, behind) = rest.split_first_chunk()?;
            (*part, rest) = behind.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        }
        keys.push(parts[0].to_vec());
    }
    Some(keys)
}

fn beside(dir: &Path, ending: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn free_name(dir: &Path) -> Result<PathBuf, LedgerError> {
    (0..u32::MAX)
        .map(|n| beside(dir, &format!(".broken-{n}")))
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
        let key = full_key(table, key);
        match self.db.get(&key).map_err(failed)? {
            Some(stored) => self.read_value(&key, stored),
            None => Ok(None),
        }
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        visit: &mut dyn FnMut(&[u8], Bytes) -> bool,
    ) -> Result<(), LedgerError> {
        for row in self.db.scan_prefix(full_key(table, prefix)) {
            let (key, stored) = row.map_err(failed)?;
            let Some(value) = self.read_value(&key, stored)? else {
                continue;
            };
            if !visit(key.get(1..).unwrap_or_default(), value) {
                break;
            }
        }
        Ok(())
    }

    fn value_len(&self, table: Table, key: &[u8]) -> Result<Option<usize>, LedgerError> {
        let key = full_key(table, key);
        let stored = self.db.get(&key).map_err(failed)?;
        Ok(stored.map(|stored| value::len(&key, &stored)))
    }

    fn sum(&self, table: Table) -> Result<RowSum, LedgerError> {
        let mut sum = RowSum::default();
        for row in self.db.scan_prefix(full_key(table, b"")) {
            let (key, stored) = row.map_err(failed)?;
            sum.add(key.len() - 1, value::len(&key, &stored));
        }
        Ok(sum)
    }

    fn apply(&self, changes: Vec<Change>) -> Result<(), LedgerError> {
        let mut batch = sled::Batch::default();
        for change in changes {
            match change {
                Change::Put { table, key, value } => {
                    let key = full_key(table, &key);
                    self.delete_pieces(&key, &mut batch)?;
                    self.insert(key, &value, &mut batch);
                }
                Change::Delete { table, key } => {
                    let key = full_key(table, &key);
                    self.delete_pieces(&key, &mut batch)?;
                    batch.remove(key);
                }
            }
        }
        let mut marks = self.marks.lock();
        let Some(mark) = marks.next() else {
            drop(marks);
            self.db.apply_batch(batch).map_err(failed)?;
            self.marks.lock().applied(None);
            return Ok(());
        };
        batch.insert(MARK, mark::row(mark));
        // Under the lock, so that none is written behind the one that follows it.
        self.db.apply_batch(batch).map_err(failed)?;
        marks.applied(Some(mark));
        Ok(())
    }

    fn flush(&self) -> Result<(), LedgerError> {
        let mark = self.marks.lock().flushing();
        self.db.flush().map_err(failed)?;
        // sled 0.34.7 stops at sync_file_range, which does not survive a power cut.
        File::open(self.dir.join("db"))
            .and_then(|file| file.sync_data())
            .map_err(failed)?;
        self.marks.lock().flushed(mark);
        Ok(())
    }

    fn is_new(&self) -> bool {
        self.is_new
    }

    fn damaged(&self) -> u64 {
        self.damaged.count()
    }
}

#[cfg(test)]
mod tests;
