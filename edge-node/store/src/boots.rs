//! Boots that did not know the time, and what is to be added to their timestamps now that it is known.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::ledger::{Change, Ledger, LedgerError, Table};
use crate::limits;
use crate::wire::Reader;

pub(crate) struct Boots(Mutex<BTreeMap<u64, i64>>);

impl Boots {
    pub fn load(ledger: &dyn Ledger) -> Result<Boots, LedgerError> {
        let mut boots = BTreeMap::new();
        ledger.scan(Table::Boot, b"", &mut |key, value| {
            let boot = key.try_into().map(u64::from_be_bytes);
            if let (Ok(boot), Ok(add)) = (boot, Reader(value).get_i64()) {
                boots.insert(boot, add);
            }
            true
        })?;
        Ok(Boots(Mutex::new(boots)))
    }

    /// Durable after the ledger's next flush.
    pub fn set(&self, ledger: &dyn Ledger, boot: u64, add_ms: i64) -> Result<(), LedgerError> {
        let mut boots = self.0.lock();
        let table = Table::Boot;
        let mut changes = vec![Change::Put {
            table,
            key: boot.to_be_bytes().to_vec(),
            value: add_ms.to_be_bytes().to_vec(),
        }];
        boots.insert(boot, add_ms);
        while boots.len() > limits::MAX_BOOTS
            && let Some((old, _)) = boots.pop_first()
        {
            changes.push(Change::Delete {
                table,
                key: old.to_be_bytes().to_vec(),
            });
        }
        ledger.apply(changes)
    }

    pub fn of(&self, boot: u64) -> Option<i64> {
        self.0.lock().get(&boot).copied()
    }

    pub fn all(&self) -> Vec<(u64, i64)> {
        self.0
            .lock()
            .iter()
            .map(|(boot, add)| (*boot, *add))
            .collect()
    }
}
