//! The log of one partition in memory: index, recent batches, producers, and who waits for its end to move.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use record::Batch;

use crate::kernel::Watermarks;
use crate::state::producer::Producer;
use crate::state::waiters::{Mark, Signal, Waiters};
use crate::stream::PartitionId;

/// Where a batch is: the index of its entry (and so its WAL file), and its place there. 56 bytes a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchRef {
    pub base_offset: i64,
    pub max_timestamp: i64,
    /// Index of the entry.
    pub index: u64,
    /// Where the frame begins in its file.
    pub frame_at: u32,
    /// Length of the frame's body.
    pub body_len: u32,
    /// Where the batch begins in the body.
    pub batch_at: u32,
    pub batch_len: u32,
    pub last_offset_delta: u32,
}

impl BatchRef {
    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }
}

/// A partition.
#[derive(Debug)]
pub(crate) struct Partition {
    pub id: PartitionId,
    pub log: Mutex<PartitionLog>,
    pub waiters: Waiters,
}

#[derive(Debug, Default)]
pub(crate) struct PartitionLog {
    pub log_start: i64,
    pub end: i64,
    /// By offset.
    pub batches: VecDeque<BatchRef>,
    /// The newest of `batches`, in memory, with their offsets filled in.
    pub tail: VecDeque<Batch>,
    pub producers: BTreeMap<i64, Producer>,
    /// Bytes of `batches`.
    pub bytes: u64,
    /// Deleted.
    pub gone: bool,
}

/// What a read will return: what is in memory already, and what must be fetched first.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub disk: Vec<BatchRef>,
    pub memory: Vec<Batch>,
}

impl PartitionLog {
    pub fn watermarks(&self) -> Watermarks {
        Watermarks {
            log_start: self.log_start,
            high_watermark: self.end,
            last_stable: self.end,
            end: self.end,
        }
    }

    pub fn mark(&self, mark: Mark) -> i64 {
        match mark {
            Mark::End => self.end,
            Mark::LastStable => self.watermarks().last_stable,
        }
    }

    /// Place of the batch with `offset`, or of the first after it.
    pub fn position_of(&self, offset: i64) -> usize {
        self.batches.partition_point(|b| b.last_offset() < offset)
    }

    /// The batches from the one with `offset`, up to `max_bytes` but at least one.
    pub fn plan(&self, offset: i64, max_bytes: usize) -> Plan {
        let mut plan = Plan::default();
        let first_in_memory = self.batches.len() - self.tail.len();
        let mut bytes = 0;
        for (position, batch) in self
            .batches
            .iter()
            .enumerate()
            .skip(self.position_of(offset))
        {
            bytes += batch.batch_len as usize;
            if bytes > max_bytes && !(plan.disk.is_empty() && plan.memory.is_empty()) {
                break;
            }
            match position
                .checked_sub(first_in_memory)
                .and_then(|p| self.tail.get(p))
            {
                Some(batch) => plan.memory.push(batch.clone()),
                None => plan.disk.push(*batch),
            }
        }
        plan
    }

    /// Moves the log start; returns the batches that are gone, and how many bytes of them were in memory.
    pub fn trim(&mut self, log_start: i64) -> (Vec<BatchRef>, usize) {
        let log_start = log_start.min(self.end);
        let mut gone = Vec::new();
        let mut freed = 0;
        if log_start <= self.log_start {
            return (gone, freed);
        }
        self.log_start = log_start;
        while self
            .batches
            .front()
            .is_some_and(|b| b.last_offset() < log_start)
        {
            if self.tail.len() == self.batches.len() {
                freed += self.tail.pop_front().map_or(0, |b| b.len());
            }
            if let Some(batch) = self.batches.pop_front() {
                self.bytes = self.bytes.saturating_sub(u64::from(batch.batch_len));
                gone.push(batch);
            }
        }
        (gone, freed)
    }
}

impl Partition {
    pub fn new(id: PartitionId, log: PartitionLog) -> Arc<Partition> {
        Arc::new(Partition {
            id,
            log: Mutex::new(log),
            waiters: Waiters::default(),
        })
    }

    /// Adds a waiter for a mark past `offset`; true if that holds already (or the partition is gone).
    pub fn wait(&self, mark: Mark, offset: i64, waiter: u64, signal: &Arc<Signal>) -> bool {
        self.waiters.add(mark, offset, waiter, signal);
        // Looked at after the waiter is in place, so that no commit can pass unseen between the two.
        let log = self.log.lock();
        log.gone || log.mark(mark) > offset
    }

    /// Wakes whoever waits for less.
    pub fn wake(&self, end: i64, last_stable: i64) {
        self.waiters.wake(self.id, Mark::End, end);
        self.waiters.wake(self.id, Mark::LastStable, last_stable);
    }
}
