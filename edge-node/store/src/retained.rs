//! How many retained messages there are, and how many bytes, without counting them each time.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::ledger::{Change, Ledger, LedgerError, RowSum, Table};

pub(crate) struct RetainedCount(Mutex<RowSum>);

impl RetainedCount {
    pub fn load(ledger: &dyn Ledger) -> Result<RetainedCount, LedgerError> {
        let sum = ledger.sum(Table::Retained)?;
        Ok(RetainedCount(Mutex::new(sum)))
    }

    pub fn get(&self) -> RowSum {
        *self.0.lock()
    }

    /// Makes changes, one caller at a time, and counts what they do to the retained messages.
    pub fn apply(&self, ledger: &dyn Ledger, changes: Vec<Change>) -> Result<(), LedgerError> {
        // The last change of a key is what stays: a value of this length, or nothing.
        let mut ends: BTreeMap<&[u8], Option<usize>> = BTreeMap::new();
        for change in &changes {
            let (table, key, stays) = match change {
                Change::Put { table, key, value } => (table, key, Some(value.len())),
                Change::Delete { table, key } => (table, key, None),
            };
            if *table == Table::Retained {
                ends.insert(key, stays);
            }
        }
        let mut sum = self.get();
        for (key, stays) in ends {
            if let Some(before) = ledger.value_len(Table::Retained, key)? {
                sum.subtract(key.len(), before);
            }
            if let Some(value) = stays {
                sum.add(key.len(), value);
            }
        }
        ledger.apply(changes)?;
        *self.0.lock() = sum;
        Ok(())
    }
}
