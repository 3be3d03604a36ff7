//! What waits to be published later.

use super::Store;
use crate::apply::packet_key;
use crate::delayed::{DelayedDue, DelayedKey};
use crate::frame::{Lane, PacketRef};
use crate::ledger::{Change, Ledger, LedgerError, Table};
use crate::limits;
use crate::log::WriteError;
use crate::sessions::SessionError;
use crate::wills::WillRest;

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
        let failed = |error: LedgerError| WriteError::Failed(error.to_string());
        let apply = |row| {
            let rows = packet.into_iter().chain([row]).collect();
            inner.ledger.apply(rows)
        };
        let delayed = &inner.delayed;
        delayed
            .add(&inner.boots, due_ms, blind, &value, apply)
            .map_err(failed)?;
        self.keeper.flush().await.map_err(failed)
    }

    /// Keeps a will that finds no room in its log until it does, and saves the session without it, or deletes it, in the same step; resolves when
    /// that is durable. It may take of the room that is kept for the ledger: its session had it there.
    pub async fn keep_will(
        &self,
        will: NewDelayed,
        client: &str,
        rest: WillRest,
    ) -> Result<(), SessionError> {
        let (inner, value) = (&self.inner, &will.value);
        let refused = |error: WriteError| LedgerError(error.to_string());
        if value.len() > limits::MAX_RECORD {
            return Err(refused(WriteError::TooLarge(value.len())).into());
        }
        if !inner.delayed.has_room(value.len()) {
            return Err(refused(WriteError::TooMuchDelayed).into());
        }
        if !inner.space.has_room_of_ledger(value.len()) {
            return Err(refused(WriteError::DiskFull).into());
        }
        let apply = |row| self.settle_with(row, client, rest);
        let delayed = &inner.delayed;
        delayed.add(&inner.boots, will.due_ms, will.blind, value, apply)?;
        if let Err(error) = self.keeper.flush().await {
            // It is there, and comes; who was told of an error would bring it once more.
            tracing::warn!(client, %error, "it is not known whether a will that is kept is durable");
        }
        Ok(())
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
