//! Reading values, while others write them, and what is told of those that are damaged.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use parking_lot::Mutex;

use super::super::LedgerError;
use super::super::value::{Stored, Whole, checksum};
use super::{SledLedger, failed, piece_prefix};
use crate::limits;

/// Values whose checksum was wrong when they were read. Each counts once, however often it is read.
#[derive(Default)]
pub(super) struct Damaged {
    told: Mutex<Told>,
    hasher: RandomState,
}

#[derive(Default)]
struct Told {
    count: u64,
    /// Of keys and what stood there.
    rows: HashSet<u64>,
}

impl Damaged {
    pub fn count(&self) -> u64 {
        self.told.lock().count
    }

    fn found(&self, key: &[u8], stored: &[u8]) {
        let row = self.hasher.hash_one((key, stored));
        let mut told = self.told.lock();
        if told.rows.contains(&row) {
            return;
        }
        if told.rows.len() >= limits::DAMAGED_REMEMBERED {
            told.rows.clear();
        }
        told.rows.insert(row);
        told.count += 1;
        drop(told);
        tracing::error!(key = %key.escape_ascii(), "a value of the ledger is damaged: it is passed over");
    }
}

impl SledLedger {
    /// The value of a row that was read a moment ago. `None` = it is gone, or damaged. It is set aside at the next start, which finds it as well.
    pub(super) fn read_value(
        &self,
        key: &[u8],
        mut stored: sled::IVec,
    ) -> Result<Option<Bytes>, LedgerError> {
        loop {
            if let Some(value) = self.whole_value(key, &stored)? {
                return Ok(Some(value));
            }
            // The pieces are others, or gone, where it was replaced or deleted since.
            match self.db.get(key).map_err(failed)? {
                Some(now) if now != stored => stored = now,
                Some(_) => {
                    self.damaged.found(key, &stored);
                    return Ok(None);
                }
                None => return Ok(None),
            }
        }
    }

    /// `None` = what is there is not what was written.
    fn whole_value(&self, key: &[u8], stored: &[u8]) -> Result<Option<Bytes>, LedgerError> {
        Ok(match Stored::read(key, stored) {
            Some(Stored::Here { sum, value }) => sum
                .is_none_or(|sum| sum == checksum(key, value))
                .then(|| Bytes::copy_from_slice(value)),
            Some(Stored::InPieces { id, whole }) => {
                let mut value = Vec::new();
                for piece in self.db.scan_prefix(piece_prefix(&id)) {
                    value.extend_from_slice(&piece.map_err(failed)?.1);
                }
                whole
                    .is_none_or(|whole| whole == Whole::of(key, &value))
                    .then(|| value.into())
            }
            None => None,
        })
    }
}
