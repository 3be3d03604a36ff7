//! A ledger on the simulated disk that keeps what sled, flushed and synced by us, keeps: of the batches since the last flush the first
//! ones, each whole or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use kernel::ports::{Disk, DiskFile};
use parking_lot::Mutex;
use store::ledger::{Change, Ledger, LedgerError, Table};

use crate::disk::SimDisk;

const DIRECTORY: &str = "edge/ledger";
/// Its only file: a journal of batches. Runs are short; nothing is ever taken out.
pub const JOURNAL: &str = "edge/ledger/journal";
/// Length and checksum of a batch.
const PREFIX: usize = 8;

type Rows = BTreeMap<(u8, Vec<u8>), Bytes>;

/// See the module.
pub struct JournalLedger {
    file: Arc<dyn DiskFile>,
    rows: Mutex<Rows>,
    is_new: bool,
}

fn failed(error: impl std::fmt::Display) -> LedgerError {
    LedgerError(error.to_string())
}

impl JournalLedger {
    /// Opens what is there. What stands behind a batch that is not whole is cut off.
    pub fn open(disk: &SimDisk) -> Result<JournalLedger, LedgerError> {
        disk.create_dir(DIRECTORY).map_err(failed)?;
        disk.sync_dir("edge").map_err(failed)?;
        let found = disk.list(DIRECTORY).map_err(failed)?;
        let file = if found.is_empty() {
            let file = disk.create(JOURNAL).map_err(failed)?;
            disk.sync_dir(DIRECTORY).map_err(failed)?;
            file
        } else {
            disk.open(JOURNAL, true).map_err(failed)?
        };
        let len = file.len().map_err(failed)?;
        let mut bytes = vec![0; usize::try_from(len).map_err(failed)?];
        file.read_at(0, &mut bytes).map_err(failed)?;
        let mut rows = Rows::new();
        let mut at = 0;
        while let Some(end) = batch(&bytes, at, &mut rows) {
            at = end;
        }
        if at < bytes.len() {
            file.truncate(at as u64).map_err(failed)?;
        }
        file.sync().map_err(failed)?;
        Ok(JournalLedger {
            file,
            is_new: rows.is_empty(),
            rows: Mutex::new(rows),
        })
    }
}

/// Takes the batch at a place into the rows, if it is whole; returns where it ends.
fn batch(bytes: &[u8], at: usize, rows: &mut Rows) -> Option<usize> {
    let word = |at: usize| -> Option<u32> {
        let bytes = bytes.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    let end = at + PREFIX + word(at)? as usize;
    let body = bytes.get(at + PREFIX..end)?;
    if crc32c::crc32c(body) != word(at + 4)? || body.is_empty() {
        return None;
    }
    let mut at = at + PREFIX;
    while at < end {
        let (table, deletes) = (*bytes.get(at)?, *bytes.get(at + 1)? == 1);
        let key_len = word(at + 2)? as usize;
        let value_len = word(at + 6)? as usize;
        let key = bytes.get(at + 10..at + 10 + key_len)?.to_vec();
        at += 10 + key_len;
        let value = bytes.get(at..at + value_len)?;
        at += value_len;
        if deletes {
            rows.remove(&(table, key));
        } else {
            rows.insert((table, key), Bytes::copy_from_slice(value));
        }
    }
    Some(end)
}

impl Ledger for JournalLedger {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, LedgerError> {
        let key = (table as u8, key.to_vec());
        Ok(self.rows.lock().get(&key).cloned())
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        visit: &mut dyn FnMut(&[u8], Bytes) -> bool,
    ) -> Result<(), LedgerError> {
        let rows = self.rows.lock();
        for ((t, key), value) in rows.range((table as u8, prefix.to_vec())..) {
            if *t != table as u8 || !key.starts_with(prefix) || !visit(key, value.clone()) {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, changes: Vec<Change>) -> Result<(), LedgerError> {
        let mut body = Vec::new();
        for change in &changes {
            let (table, deletes, key, value) = match change {
                Change::Put { table, key, value } => (*table, 0, key, &value[..]),
                Change::Delete { table, key } => (*table, 1, key, &[][..]),
            };
            body.extend_from_slice(&[table as u8, deletes]);
            body.extend_from_slice(&(key.len() as u32).to_be_bytes());
            body.extend_from_slice(&(value.len() as u32).to_be_bytes());
            body.extend_from_slice(key);
            body.extend_from_slice(value);
        }
        if body.is_empty() {
            return Ok(());
        }
        let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
        bytes.extend_from_slice(&body);
        let mut rows = self.rows.lock();
        let end = self.file.len().map_err(failed)?;
        self.file.write_at(end, &[&bytes]).map_err(failed)?;
        batch(&bytes, 0, &mut rows);
        Ok(())
    }

    fn flush(&self) -> Result<(), LedgerError> {
        self.file.sync().map_err(failed)
    }

    fn is_new(&self) -> bool {
        self.is_new
    }
}
