//! How many retained messages there are, without counting them each time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::ledger::{Change, Ledger, LedgerError, Table};

pub(crate) struct RetainedCount(AtomicUsize);

impl RetainedCount {
    pub fn load(ledger: &dyn Ledger) -> Result<RetainedCount, LedgerError> {
        Ok(RetainedCount(AtomicUsize::new(
            ledger.count(Table::Retained)?,
        )))
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Makes changes, one caller at a time, and counts what they do to the retained messages.
    pub fn apply(&self, ledger: &dyn Ledger, changes: Vec<Change>) -> Result<(), LedgerError> {
        // The last change of a key is what stays.
        let mut ends: BTreeMap<&[u8], bool> = BTreeMap::new();
        for change in &changes {
            let (table, key, stays) = match change {
                Change::Put { table, key, .. } => (table, key, true),
                Change::Delete { table, key } => (table, key, false),
            };
            if *table == Table::Retained {
                ends.insert(key, stays);
            }
        }
        let mut count = self.get();
        for (key, stays) in ends {
            match (ledger.contains(Table::Retained, key)?, stays) {
                (false, true) => count += 1,
                (true, false) => count = count.saturating_sub(1),
                _ => {}
            }
        }
        ledger.apply(changes)?;
        self.0.store(count, Ordering::Relaxed);
        Ok(())
    }
}
