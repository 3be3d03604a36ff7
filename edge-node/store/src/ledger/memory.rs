use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Change, Ledger, LedgerError, Table};

type Rows = BTreeMap<(Table, Vec<u8>), Bytes>;

#[derive(Clone, Default)]
struct State {
    durable: Rows,
    visible: Rows,
    /// Batches since the last flush: a power cut keeps a prefix of them.
    unflushed: Vec<Vec<Change>>,
}

/// A ledger for the crash simulator. Clones share one.
#[derive(Clone, Default)]
pub struct MemoryLedger(Arc<Mutex<State>>);

fn change(rows: &mut Rows, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put { table, key, value } => {
                rows.insert((*table, key.clone()), Bytes::copy_from_slice(value));
            }
            Change::Delete { table, key } => {
                rows.remove(&(*table, key.clone()));
            }
        }
    }
}

impl MemoryLedger {
    pub fn new() -> MemoryLedger {
        MemoryLedger::default()
    }

    /// Keeps what was flushed and some of the batches after it, from the oldest on.
    fn cut_power(&self, seed: u64) {
        let mut state = self.0.lock();
        let unflushed = std::mem::take(&mut state.unflushed);
        let kept = (seed % (unflushed.len() as u64 + 1)) as usize;
        for changes in &unflushed[..kept] {
            change(&mut state.durable, changes);
        }
        state.visible = state.durable.clone();
    }

    /// What a power cut now leaves, whatever is still written here by who has not noticed it.
    pub fn left_by_power_cut(&self, seed: u64) -> MemoryLedger {
        let left = MemoryLedger(Arc::new(Mutex::new(self.0.lock().clone())));
        left.cut_power(seed);
        left
    }

    /// Everybody who has this one has the other's rows from now on.
    pub fn become_as(&self, other: &MemoryLedger) {
        let state = other.0.lock().clone();
        *self.0.lock() = state;
    }

    /// As if the ledger had not opened and a new one had been begun.
    pub fn lose(&self) {
        *self.0.lock() = State::default();
    }
}

impl Ledger for MemoryLedger {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, LedgerError> {
        Ok(self.0.lock().visible.get(&(table, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        visit: &mut dyn FnMut(&[u8], Bytes) -> bool,
    ) -> Result<(), LedgerError> {
        let state = self.0.lock();
        for ((t, key), value) in state.visible.range((table, prefix.to_vec())..) {
            if *t != table || !key.starts_with(prefix) || !visit(key, value.clone()) {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, changes: Vec<Change>) -> Result<(), LedgerError> {
        let mut state = self.0.lock();
        change(&mut state.visible, &changes);
        state.unflushed.push(changes);
        Ok(())
    }

    fn flush(&self) -> Result<(), LedgerError> {
        let mut state = self.0.lock();
        state.durable = state.visible.clone();
        state.unflushed.clear();
        Ok(())
    }

    fn is_new(&self) -> bool {
        self.0.lock().visible.is_empty()
    }
}
