//! What a partition should be.

use std::collections::BTreeMap;

use kernel::{AbortedTransaction, PartitionId, SequenceRule};
use record::Batch;

use super::producer::{self, Producer};

/// How much of an append survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Nothing of it after a restart.
    Memory,
    /// The death of the process.
    PageCache,
    /// The power.
    Synced,
}

/// A batch in a log.
#[derive(Clone)]
pub struct Kept {
    /// With its offset.
    pub batch: Batch,
    pub class: Class,
}

/// A partition.
#[derive(Clone, Default)]
pub struct Log {
    /// At least this much is trimmed.
    pub log_start: i64,
    pub end: i64,
    pub batches: Vec<Kept>,
    pub producers: BTreeMap<i64, Producer>,
    /// What is only in memory of them.
    pub volatile_producers: BTreeMap<i64, Producer>,
    /// By their ends.
    pub aborted: Vec<AbortedTransaction>,
    /// Its stream is of durability `memory`.
    pub is_volatile: bool,
    /// Offsets were reserved for what is only in memory: what is logged may begin after any of them.
    pub jumps: bool,
    /// Last offset and bytes of what was only in memory and is gone: retention counted it as long as it was there.
    pub gone: Vec<(i64, u64)>,
}

impl Log {
    /// Who knows the producers of an entry.
    pub(super) fn producers(&mut self, volatile: bool) -> &mut BTreeMap<i64, Producer> {
        if volatile {
            &mut self.volatile_producers
        } else {
            &mut self.producers
        }
    }

    /// Whether the sequence of a batch is checked. Of what is only in memory the log does not know what came before.
    pub(super) fn checks(&self, volatile: bool, batch: &Batch, rule: SequenceRule) -> bool {
        (volatile || !self.is_volatile || batch.is_transactional())
            && producer::is_checked(batch, rule)
    }

    /// Where the next batch goes.
    pub(super) fn next_offset(&self, volatile: bool, placed: Option<i64>) -> Result<i64, String> {
        match placed {
            Some(placed) if self.jumps && !volatile && placed < self.end => Err(format!(
                "a batch got the offset {placed}, and {} was the next",
                self.end
            )),
            Some(placed) if self.jumps && !volatile => Ok(placed),
            _ => Ok(self.end),
        }
    }

    /// Puts a batch at the end; returns its last offset.
    pub(super) fn put(
        &mut self,
        batch: &Batch,
        at: i64,
        class: Class,
        partition: PartitionId,
    ) -> i64 {
        let batch = batch.patched(at, partition.leader_epoch());
        self.jumps |= class == Class::Memory;
        self.end = batch.next_offset();
        self.batches.push(Kept { batch, class });
        self.end - 1
    }

    pub(super) fn set_volatile(&mut self, is_volatile: bool) {
        if self.is_volatile && !is_volatile {
            self.producers.retain(|_, producer| producer.open.is_some());
        }
        if self.is_volatile != is_volatile {
            self.volatile_producers.clear();
        }
        self.is_volatile = is_volatile;
        self.jumps |= is_volatile;
    }

    /// What of a log start lasts: that records go which are only in memory is written down nowhere. With them go offsets of logged batches below
    /// of which compaction has left nothing.
    pub fn lasting_start(&self, log_start: i64, compacts: bool) -> i64 {
        if !self.jumps {
            return log_start;
        }
        if compacts {
            return 0;
        }
        let logged = self
            .batches
            .iter()
            .filter(|kept| kept.class != Class::Memory);
        let below = logged.map(|kept| kept.batch.next_offset());
        below.filter(|next| *next <= log_start).max().unwrap_or(0)
    }

    /// The batch with that offset.
    pub fn find(&self, offset: i64) -> Option<&Kept> {
        let at = self
            .batches
            .partition_point(|kept| kept.batch.last_offset() < offset);
        self.batches
            .get(at)
            .filter(|kept| kept.batch.base_offset() <= offset)
    }
}
