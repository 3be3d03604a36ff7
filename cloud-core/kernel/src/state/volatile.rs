//! Batches of streams whose durability is `memory`: they are in the tail and nowhere else.
//!
//! Their offsets are never used again, though nothing of them is logged: before one is appended, `Reserve` has logged an end that it does
//! not pass, and whatever is appended durably after that begins there or later. So the offsets of durable batches follow from the log
//! alone, and after a restart a partition goes on where no offset has been.

use std::collections::BTreeMap;

use record::Batch;

use super::State;
use super::partition::PartitionLog;
use super::producer::Producer;

/// A batch that is only in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Volatile {
    pub base_offset: i64,
    pub next_offset: i64,
    pub max_timestamp: i64,
    pub bytes: u64,
    /// Newest entry of the WAL when it was appended.
    pub index: u64,
}

impl PartitionLog {
    /// To be called before a batch is given its offset, the end.
    pub fn begin_append(&mut self, volatile: bool) {
        if !volatile {
            self.end = self.end.max(self.reserved);
        }
    }

    /// Whether the sequence of a batch is judged, if it has one. In a stream of durability `memory` most of a producer's batches are not
    /// logged: what is logged between them follows no sequence, and is remembered for what comes after it in memory. Transactions are logged
    /// whole.
    pub fn is_judged(&self, volatile: bool, batch: &Batch) -> bool {
        volatile || !self.is_in_memory(volatile, batch)
    }

    /// Who remembers the producer of a batch.
    pub fn remembering(&mut self, volatile: bool, batch: &Batch) -> &mut BTreeMap<i64, Producer> {
        if self.is_in_memory(volatile, batch) {
            &mut self.volatile_producers
        } else {
            &mut self.producers
        }
    }

    /// Whether the sequence that a batch belongs to is one that only memory knows.
    fn is_in_memory(&self, volatile: bool, batch: &Batch) -> bool {
        volatile || self.is_volatile && !batch.is_transactional()
    }

    /// The stream has another durability from here on. What producers did in memory is not known to the log: they may go on anywhere.
    pub fn set_volatile(&mut self, is_volatile: bool) {
        if self.is_volatile && !is_volatile {
            self.producers.retain(|_, producer| producer.open.is_some());
        }
        if self.is_volatile != is_volatile {
            self.volatile_producers = BTreeMap::new();
        }
        self.is_volatile = is_volatile;
    }

    /// The batch has left the tail. If it was nowhere else it is gone, and if it was the oldest the log begins after it.
    pub fn evicted(&mut self, base_offset: i64) {
        let gone = self
            .volatile
            .pop_front_if(|batch| batch.base_offset == base_offset);
        let Some(gone) = gone else {
            return;
        };
        self.bytes = self.bytes.saturating_sub(gone.bytes);
        let cold = self.cold.front().map(|range| range.base_offset);
        let hot = self.batches.front().map(|batch| batch.base_offset);
        if cold.into_iter().chain(hot).all(|older| older > base_offset) {
            self.trim(gone.next_offset);
        }
    }

    /// The first batch at or after an offset that is only in memory.
    pub fn volatile_at(&self, offset: i64) -> Option<&Volatile> {
        let place = self.volatile.partition_point(|v| v.next_offset <= offset);
        self.volatile.get(place)
    }

    /// What was only in memory is lost: the log goes on where no offset has been, and a producer anywhere. What a replay remembered of its
    /// sequence is what happened to be logged of it, not what it sent last.
    fn resume(&mut self) {
        self.volatile_producers = BTreeMap::new();
        if self.reserved < self.end || self.reserved == 0 {
            return;
        }
        self.end = self.reserved;
        if self.cold.is_empty() && self.batches.is_empty() {
            self.trim(self.end);
        }
    }
}

impl State {
    /// To be called after a recovery, before anything is appended.
    pub fn resume_volatile(&self) {
        for partition in self.directory.read().partitions.values() {
            partition.log.lock().resume();
        }
    }
}
