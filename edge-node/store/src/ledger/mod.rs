//! The ledger: small records beside the segment logs. It is off the acknowledgement path: what is in it and not yet durable
//! can be read again from the segments, or asked for again from the core.

#[cfg(any(test, feature = "simulated-disk"))]
mod memory;
mod one_failure;
mod salvage;
mod sled_ledger;
mod value;

use bytes::Bytes;

#[cfg(any(test, feature = "simulated-disk"))]
pub use memory::MemoryLedger;
pub(crate) use one_failure::OneFailure;
pub use sled_ledger::SledLedger;

/// The tables. The number is part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Producer identity, and up to where each log has been applied.
    Identity = 1,
    /// Cursors over the logs.
    Cursor = 2,
    /// Persistent MQTT sessions by client id.
    Session = 3,
    /// Retained messages by topic.
    Retained = 4,
    /// QoS 2 packet ids that wait for PUBREL: (client id, 0, packet id, lane of the message).
    Unreleased = 5,
    /// Gaps of which the core does not know yet: (lane, first entry number).
    Gap = 6,
    /// What is added to the timestamps of a boot that did not know the time: (boot).
    Boot = 7,
    /// Messages that are published later: (due time, number).
    Delayed = 8,
}

#[derive(Debug, Clone)]
pub enum Change {
    Put {
        table: Table,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        table: Table,
        key: Vec<u8>,
    },
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("ledger: {0}")]
pub struct LedgerError(pub String);

/// Rows, and the bytes of their keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowSum {
    pub rows: usize,
    pub bytes: u64,
}

impl RowSum {
    pub(crate) fn add(&mut self, key: usize, value: usize) {
        self.rows += 1;
        self.bytes += (key + value) as u64;
    }

    pub(crate) fn subtract(&mut self, key: usize, value: usize) {
        self.rows = self.rows.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub((key + value) as u64);
    }
}

pub trait Ledger: Send + Sync + 'static {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, LedgerError>;
    /// Rows whose key begins with `prefix`, in the order of keys, until `visit` returns false.
    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        visit: &mut dyn FnMut(&[u8], Bytes) -> bool,
    ) -> Result<(), LedgerError>;
    /// How long the value of a row is, if it is there; 0 = it is damaged.
    fn value_len(&self, table: Table, key: &[u8]) -> Result<Option<usize>, LedgerError> {
        Ok(self.get(table, key)?.map(|value| value.len()))
    }
    /// What all rows of a table are.
    fn sum(&self, table: Table) -> Result<RowSum, LedgerError> {
        let mut sum = RowSum::default();
        self.scan(table, b"", &mut |key, value| {
            sum.add(key.len(), value.len());
            true
        })?;
        Ok(sum)
    }
    /// All or nothing, also over a power cut; durable only after the next [`Ledger::flush`].
    fn apply(&self, changes: Vec<Change>) -> Result<(), LedgerError>;
    /// Blocks until all that was applied before the call survives a power cut.
    fn flush(&self) -> Result<(), LedgerError>;
    /// Whether this is an empty ledger, made because there was none that could be opened.
    fn is_new(&self) -> bool;
    /// Values that were found damaged since it was opened, and passed over.
    fn damaged(&self) -> u64 {
        0
    }
}
