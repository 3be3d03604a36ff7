//! Which transactions of a partition are open, which were aborted, and what a reader of committed records sees of it.

use kernel::{AbortedTransaction, OpenTransaction, PartitionId};
use record::Batch;

use super::Log;
use super::view::PartitionView;

impl Log {
    /// First offset, producer and epoch of each open transaction.
    fn open(&self) -> Vec<(i64, i64, i16)> {
        let producers = self.producers.iter();
        let mut open: Vec<_> = producers
            .filter_map(|(id, producer)| Some((producer.open?, *id, producer.epoch)))
            .collect();
        open.sort_unstable();
        open
    }

    /// Everything below is decided.
    pub fn last_stable(&self, log_start: i64, end: i64) -> i64 {
        match self.open().first() {
            Some((first, _, _)) => (*first).max(log_start),
            None => end,
        }
    }

    fn is_aborted(&self, batch: &Batch) -> bool {
        batch.is_transactional()
            && self.aborted.iter().any(|aborted| {
                aborted.producer_id == batch.producer_id()
                    && (aborted.first_offset..=aborted.last_offset).contains(&batch.base_offset())
            })
    }

    /// Whether a batch is for readers, once it is decided.
    pub fn is_meant(&self, batch: &Batch) -> bool {
        !batch.is_control() && !self.is_aborted(batch)
    }

    /// Compares what was found of transactions. What was read of all batches was compared before.
    /// In a log that is compacted the two need not have looked at the same copy of it.
    pub fn check_transactions(&self, found: &PartitionView, compacts: bool) -> Result<(), String> {
        let marks = found.watermarks;
        let stable = self.last_stable(marks.log_start, marks.high_watermark);
        if marks.last_stable != stable {
            return Err(format!(
                "the last stable offset is {}, not {stable}",
                marks.last_stable
            ));
        }
        let open: Vec<_> = found.open.iter().map(plain).collect();
        if open != self.open() {
            return Err(format!("open are {open:?}, not {:?}", self.open()));
        }
        let aborted = self.aborted.iter();
        let aborted: Vec<AbortedTransaction> = aborted
            .filter(|aborted| aborted.last_offset >= marks.log_start)
            .copied()
            .collect();
        if found.aborted != aborted {
            return Err(format!("aborted are {:?}, not {aborted:?}", found.aborted));
        }
        let Some(committed) = &found.committed else {
            return Ok(());
        };
        let all = found.batches.iter();
        let meant = all.filter(|batch| batch.last_offset() < stable && self.is_meant(batch));
        let there = meant.filter(|batch| !found.is_reported(batch));
        let expected: Vec<i64> = there.map(Batch::base_offset).collect();
        let seen = committed.bases.iter().copied();
        let seen: Vec<i64> = seen
            .filter(|base| {
                let kept = self.find(*base);
                kept.is_none_or(|kept| !found.is_reported(&kept.batch))
            })
            .collect();
        let all_meant = || {
            let meant = |offset: &i64| {
                let kept = self.find(*offset).filter(|_| *offset < stable);
                kept.is_some_and(|kept| self.is_meant(&kept.batch))
            };
            compacts && seen.iter().all(meant)
        };
        if seen != expected && !all_meant() {
            return Err(format!(
                "a reader of committed records sees the batches at {seen:?}, not at {expected:?}"
            ));
        }
        Ok(())
    }
}

fn plain(open: &OpenTransaction) -> (i64, i64, i16) {
    (open.first_offset, open.producer_id, open.epoch)
}

/// The open transactions of one partition, by their beginning.
pub fn open_in(all: &[OpenTransaction], partition: PartitionId) -> Vec<OpenTransaction> {
    let here = all.iter().filter(|open| open.partition == partition);
    let mut here: Vec<_> = here.copied().collect();
    here.sort_unstable_by_key(|open| open.first_offset);
    here
}
