//! After the first error nothing is written to a ledger any more: what a sync that failed left behind, no later sync tells, and what is
//! written behind it could outlive it.

use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::watch;

use super::{Change, Ledger, LedgerError, RowSum, Table};
use crate::space::Space;

pub(crate) struct OneFailure {
    ledger: Arc<dyn Ledger>,
    space: Arc<Space>,
    failed: watch::Sender<bool>,
}

impl OneFailure {
    pub fn new(ledger: Arc<dyn Ledger>, space: Arc<Space>) -> OneFailure {
        OneFailure {
            ledger,
            space,
            failed: watch::Sender::new(false),
        }
    }

    /// Becomes true with the first error.
    pub fn failure(&self) -> watch::Receiver<bool> {
        self.failed.subscribe()
    }

    fn write(
        &self,
        write: impl FnOnce(&dyn Ledger) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        if *self.failed.borrow() {
            return Err(LedgerError("it failed before".into()));
        }
        self.space.look_ahead();
        let written = write(&*self.ledger);
        if let Err(error) = &written {
            tracing::error!(%error, "the ledger failed: nothing is written to it until a restart");
            self.failed.send_replace(true);
        }
        written
    }
}

impl Ledger for OneFailure {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, LedgerError> {
        self.ledger.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        visit: &mut dyn FnMut(&[u8], Bytes) -> bool,
    ) -> Result<(), LedgerError> {
        self.ledger.scan(table, prefix, visit)
    }

    fn value_len(&self, table: Table, key: &[u8]) -> Result<Option<usize>, LedgerError> {
        self.ledger.value_len(table, key)
    }

    fn sum(&self, table: Table) -> Result<RowSum, LedgerError> {
        self.ledger.sum(table)
    }

    fn apply(&self, changes: Vec<Change>) -> Result<(), LedgerError> {
        self.write(|ledger| ledger.apply(changes))
    }

    fn flush(&self) -> Result<(), LedgerError> {
        self.write(|ledger| ledger.flush())
    }

    fn is_new(&self) -> bool {
        self.ledger.is_new()
    }

    fn damaged(&self) -> u64 {
        self.ledger.damaged()
    }
}
