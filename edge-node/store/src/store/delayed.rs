//! What waits to be published later.

use super::Store;
use crate::apply::packet_key;
use crate::delayed::{DelayedDue, DelayedKey};
use crate::frame::{Lane, PacketRef};
use crate::ledger::{Change, Ledger, LedgerError, Table};
use crate::limits;
use crate::log::WriteError;

/// A message to be published later.
#[derive(Debug, Clone)]
pub struct NewDelayed {
    pub due_ms: i64,
    /// The boot (not 0) by whose clock `due_ms` is, while the time was not known.
    pub blind: Option<u64>,
    /// Given back when it is due.
    pub value: Vec<u8>,
    /// Stored in the same write, as of a message in this lane.
    pub packet: Option<(Lane, PacketRef)>,
}

impl Store {
    /// Keeps a message until it is published; resolves when that is durable. Begun, it is kept whatever becomes of the caller.
    pub async fn delay(&self, message: NewDelayed) -> Result<(), WriteError> {
        let NewDelayed {
            due_ms,
            blind,
            value,
            packet,
        } = message;
        let inner = &self.inner;
        if value.len() > limits::MAX_RECORD {
            return Err(WriteError::TooLarge(value.len()));
        }
        if !inner.delayed.has_room(value.len()) {
            return Err(WriteError::TooMuchDelayed);
        }
        // The ledger must not be what finds the file system full.
        if !inner.space.has_room(value.len()) {
            return Err(WriteError::DiskFull);
        }
        let packet = packet.map(|(lane, packet)| Change::Put {
            table: Table::Unreleased,
            key: packet_key(&packet, lane),
            value: Vec::new(),
        });
        let with = packet.into_iter().collect();
        let failed = |error: LedgerError| WriteError::Failed(error.to_string());
        inner
            .delayed
            .add(&*inner.ledger, &inner.boots, due_ms, blind, &value, with)
            .map_err(failed)?;
        self.keeper.flush().await.map_err(failed)
    }

    /// How many wait.
    pub fn delayed_len(&self) -> usize {
        self.inner.delayed.len()
    }

    /// Those that are due, `most` at a time, in the order of their times.
    pub fn delayed_due(&self, now_ms: i64, most: usize) -> Result<DelayedDue, LedgerError> {
        let inner = &self.inner;
        inner
            .delayed
            .due(&*inner.ledger, &inner.boots, now_ms, most)
    }

    /// It was published with its key, durably.
    pub fn delayed_published(&self, key: DelayedKey) {
        self.inner.delayed.remove(key);
    }

    /// Takes it away without publishing it; resolves when that is durable.
    pub async fn forget_delayed(&self, key: DelayedKey) -> Result<(), LedgerError> {
        self.inner.ledger.apply(vec![key.delete()])?;
        self.inner.delayed.remove(key);
        self.keeper.flush().await
    }

    /// It is due again at this time; not remembered over a restart.
    pub fn put_off_delayed(&self, key: DelayedKey, at_ms: i64) {
        self.inner.delayed.put_off(key, at_ms);
    }

    /// Resolves when what is due may have changed.
    pub async fn delayed_changed(&self) {
        self.inner.delayed.changed.notified().await;
    }

    /// Has whoever waits for [`Store::delayed_changed`] look again.
    pub fn look_at_delayed(&self) {
        self.inner.delayed.changed.notify_one();
    }
}
