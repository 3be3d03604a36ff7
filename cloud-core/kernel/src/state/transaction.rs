//! Transactions of one partition: which are open, which were aborted.

use std::collections::{BTreeMap, VecDeque};

use crate::kernel::AbortedTransaction;

/// A transaction that has begun in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Open {
    pub first_offset: i64,
    /// Stamp of its first batch, milliseconds since the epoch; [`ORPHANED`] = nobody will end it.
    pub started_at: i64,
}

/// The stamp of a transaction that was open when the disk died: its coordinator may know nothing of it.
const ORPHANED: i64 = i64::MIN;

impl Open {
    /// The same transaction, for whoever opens the log next to abort.
    pub fn orphaned(self) -> Open {
        Open {
            started_at: ORPHANED,
            ..self
        }
    }

    pub fn is_orphaned(&self) -> bool {
        self.started_at == ORPHANED
    }
}

/// An aborted transaction, and what lets a search stop early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub transaction: AbortedTransaction,
    /// The last stable offset right after: no transaction that ended later begins below it.
    pub stable_after: i64,
}

/// What a partition knows of transactions. Empty, it holds no memory.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    /// First offset -> producer id.
    open: BTreeMap<i64, i64>,
    /// By last offset.
    aborted: VecDeque<Aborted>,
}

impl Transactions {
    /// First offset of the oldest open transaction.
    pub fn first_open(&self) -> Option<i64> {
        self.open.keys().next().copied()
    }

    /// Producers of the open transactions, the oldest transaction first.
    pub fn producers(&self) -> impl Iterator<Item = i64> {
        self.open.values().copied()
    }

    pub fn begin(&mut self, producer_id: i64, first_offset: i64) {
        self.open.insert(first_offset, producer_id);
    }

    pub fn commit(&mut self, first_offset: i64) {
        self.open.remove(&first_offset);
    }

    /// `last_offset`: the control batch's.
    pub fn abort(&mut self, producer_id: i64, first_offset: i64, last_offset: i64) {
        self.open.remove(&first_offset);
        self.aborted.push_back(Aborted {
            transaction: AbortedTransaction {
                producer_id,
                first_offset,
                last_offset,
            },
            stable_after: self.first_open().unwrap_or(last_offset + 1),
        });
    }

    /// The aborted transactions with an offset in `from..to`, by last offset.
    pub fn aborted_between(&self, from: i64, to: i64) -> Vec<AbortedTransaction> {
        let first = self
            .aborted
            .partition_point(|aborted| aborted.transaction.last_offset < from);
        let mut found = Vec::new();
        for aborted in self.aborted.range(first..) {
            if aborted.transaction.first_offset < to {
                found.push(aborted.transaction);
            }
            if aborted.stable_after >= to {
                break;
            }
        }
        found
    }

    /// Forgets the aborted transactions that lie wholly below the log start.
    pub fn trim(&mut self, log_start: i64) {
        let gone = self
            .aborted
            .partition_point(|aborted| aborted.transaction.last_offset < log_start);
        self.aborted.drain(..gone);
        if self.aborted.is_empty() {
            self.aborted = VecDeque::new();
        }
    }

    pub fn aborted(&self) -> &VecDeque<Aborted> {
        &self.aborted
    }

    /// Puts back what a checkpoint holds.
    pub fn restore(&mut self, aborted: Aborted) {
        self.aborted.push_back(aborted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the definition, on random histories. The seed is printed by the assertion.
    #[test]
    fn the_search_finds_what_a_look_at_all_finds() {
        use rand::{RngExt, SeedableRng, rngs::StdRng};
        let first: u64 = rand::random::<u32>().into();
        for seed in first..first + 200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut transactions = Transactions::default();
            let mut open: BTreeMap<i64, i64> = BTreeMap::new();
            let mut all = Vec::new();
            let mut end = 0;
            let mut log_start = 0;
            for _ in 0..60 {
                let producer = rng.random_range(0..6);
                match open.remove(&producer) {
                    None => {
                        open.insert(producer, end);
                        transactions.begin(producer, end);
                    }
                    Some(first) if rng.random_bool(0.5) => {
                        transactions.abort(producer, first, end);
                        all.push((producer, first, end));
                    }
                    Some(first) => transactions.commit(first),
                }
                end += rng.random_range(1..4);
                if rng.random_bool(0.05) {
                    log_start = rng.random_range(log_start..=end);
                    transactions.trim(log_start);
                }
                let from = rng.random_range(log_start..=end);
                let to = rng.random_range(from..=end);
                let found: Vec<_> = transactions
                    .aborted_between(from, to)
                    .into_iter()
                    .map(|a| (a.producer_id, a.first_offset, a.last_offset))
                    .collect();
                let mut expected = all.clone();
                expected.retain(|(_, first, last)| *last >= from && *first < to);
                assert_eq!(found, expected, "seed {seed}, {from}..{to}");
                let oldest = open.values().min().copied();
                assert_eq!(transactions.first_open(), oldest, "seed {seed}");
            }
        }
    }
}
