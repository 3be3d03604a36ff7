//! Transactions: ending them, and reading only what is decided.

use std::collections::BTreeMap;

use record::Batch;

use super::{Kernel, Read};
use crate::entry::{Appended, Command, Entry, Outcome};
use crate::error::{AppendError, ReadError};
use crate::state::waiters::Mark;
use crate::stream::PartitionId;

/// Transactions that were open when the disk died and are aborted in one entry.
const ABORTS_PER_ENTRY: usize = 1024;

/// A transaction whose records readers leave out. Control batches in the range, and other producers' records, are not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose.
    pub producer_id: i64,
    /// Its first record.
    pub first_offset: i64,
    /// Its control batch.
    pub last_offset: i64,
}

/// A transaction that is undecided in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenTransaction {
    /// Where.
    pub partition: PartitionId,
    /// Whose.
    pub producer_id: i64,
    /// The producer's epoch.
    pub epoch: i16,
    /// Its first record in the partition.
    pub first_offset: i64,
    /// The leader's clock when that was written, milliseconds since the epoch.
    pub started_at: i64,
}

impl Kernel {
    /// Ends the transaction of a producer in partitions, in all of them at once: see [`Command::EndTransaction`]. Takes its place in the order of
    /// calls like [`Kernel::write`]. Returns where the control batches are.
    pub fn end_transaction(
        &self,
        producer_id: i64,
        epoch: i16,
        partitions: Vec<PartitionId>,
        commit: bool,
        coordinator_epoch: i32,
    ) -> impl Future<Output = Result<Vec<(PartitionId, Appended)>, AppendError>> + Send + use<>
    {
        let timestamp = self.core.ports.clock.now_ms();
        let command = Command::end_transaction(
            producer_id,
            epoch,
            partitions,
            commit,
            coordinator_epoch,
            timestamp,
        );
        let written = command.map(|command| self.write(Entry::new().with(command)));
        async move {
            let written = written
                .map_err(|_| AppendError::Malformed("the control batch cannot be encoded"))?;
            match written.await?.pop() {
                Some(Outcome::TransactionEnded(markers)) => Ok(markers),
                Some(Outcome::Refused(error)) => Err(error),
                _ => Err(AppendError::Closed),
            }
        }
    }

    /// Aborts what was open when the disk died, before anybody can write: a control batch must stand before anything else of the producer, for
    /// readers that take its records for aborted until they meet one. If this does not become durable, the next open does it again.
    pub(super) fn abort_orphans(&self) {
        let now = self.core.ports.clock.now_ms();
        let mut aborts = Vec::new();
        for partition in self.core.state.directory.read().partitions.values() {
            let log = partition.log.lock();
            for id in log.transactions.producers() {
                let Some(known) = log.producers.get(&id) else {
                    continue;
                };
                if known.open.is_some_and(|open| open.is_orphaned()) {
                    let at = vec![partition.id];
                    let coordinator = known.coordinator_epoch.max(0);
                    let abort =
                        Command::end_transaction(id, known.epoch, at, false, coordinator, now);
                    aborts.extend(abort.ok());
                }
            }
        }
        while !aborts.is_empty() {
            let rest = aborts.split_off(aborts.len().min(ABORTS_PER_ENTRY));
            let commands = std::mem::replace(&mut aborts, rest);
            // They have their place in the log: nobody need wait for them.
            if let Err(error) = self.submit(Entry { commands }, true) {
                tracing::error!(%error, "transactions from before the restoration are not aborted; they are when it is opened again");
            }
        }
    }

    /// Transactions that began before `started_before` (milliseconds since the epoch, by the leader's clock) and are still open, for whoever
    /// ends those that take too long: they hold back everyone who reads only what is decided.
    pub fn open_transactions(&self, started_before: i64) -> Vec<OpenTransaction> {
        let mut found = Vec::new();
        for partition in self.core.state.directory.read().partitions.values() {
            let log = partition.log.lock();
            for id in log.transactions.producers() {
                let Some((producer, open)) =
                    log.producers.get(&id).and_then(|p| Some((p, p.open?)))
                else {
                    continue;
                };
                if open.started_at < started_before {
                    found.push(OpenTransaction {
                        partition: partition.id,
                        producer_id: id,
                        epoch: producer.epoch,
                        first_offset: open.first_offset,
                        started_at: open.started_at,
                    });
                }
            }
        }
        found.sort_unstable_by_key(|open| (open.started_at, open.partition, open.first_offset));
        found
    }

    /// The aborted transactions that have an offset in `from..to` of a partition, in the order of their ends; those wholly below the log
    /// start are forgotten. Empty for a partition that does not exist.
    pub fn aborted_transactions(
        &self,
        partition: PartitionId,
        from: i64,
        to: i64,
    ) -> Vec<AbortedTransaction> {
        let Some(partition) = self.core.state.partition(partition) else {
            return Vec::new();
        };
        partition.log.lock().transactions.aborted_between(from, to)
    }

    /// Like [`Kernel::read`] below the last stable offset, for readers that leave out aborted records themselves: with the aborted transactions
    /// that the result touches. Empty at the last stable offset: see [`Kernel::wait_stable`].
    pub async fn read_stable(
        &self,
        partition: PartitionId,
        offset: i64,
        max_bytes: usize,
    ) -> Result<(Read, Vec<AbortedTransaction>), ReadError> {
        let read = self
            .read_below(partition, Mark::LastStable, offset, max_bytes)
            .await?;
        let found = self
            .core
            .state
            .partition(partition)
            .ok_or(ReadError::UnknownPartition(partition))?;
        let log = found.log.lock();
        // What was trimmed while it was read has taken its aborted transactions with it.
        if offset < log.log_start {
            return Err(ReadError::OutOfRange {
                partition,
                offset,
                log_start: log.log_start,
                end: log.end,
            });
        }
        // The fate of everything below the last stable offset is known by now, and does not change.
        let aborted = log.transactions.aborted_between(offset, read.next_offset);
        drop(log);
        Ok((read, aborted))
    }

    /// Like [`Kernel::read`], but only what is decided and meant to be seen: batches below the last stable offset, without those of aborted
    /// transactions and without control batches. [`Read::next_offset`] is past what was left out, also when no batch is left.
    pub async fn read_committed(
        &self,
        partition: PartitionId,
        offset: i64,
        max_bytes: usize,
    ) -> Result<Read, ReadError> {
        let (mut read, aborted) = self.read_stable(partition, offset, max_bytes).await?;
        let ranges: BTreeMap<(i64, i64), i64> = aborted
            .iter()
            .map(|a| ((a.producer_id, a.first_offset), a.last_offset))
            .collect();
        // A producer has one transaction at a time, so the last that began at or before the batch is the one it may be in.
        let is_aborted = |batch: &Batch| {
            let at = (batch.producer_id(), batch.base_offset());
            let last_begun = ranges.range(..=at).next_back();
            batch.is_transactional()
                && last_begun.is_some_and(|((id, _), last)| *id == at.0 && at.1 <= *last)
        };
        read.batches
            .retain(|batch| !(batch.is_control() || is_aborted(batch)));
        Ok(read)
    }
}
