//! What should become of commands, and what only the kernel decides of it.

use kernel::{AppendError, Outcome, PartitionId, StreamId};
use record::Batch;

use super::view::View;

/// What should become of a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    Appended {
        base_offset: i64,
        last_offset: i64,
        duplicate: bool,
    },
    Unknown,
    OutOfOrder,
    Fenced,
    /// Its transaction, or that of its coordinator, does not allow it.
    Transaction,
    NotApplied,
    Done,
    NoEffect,
    /// With a number that no stream has had.
    Created,
    /// First of the producer ids.
    Ids(i64),
    /// Where the control batches are.
    Ended(Vec<(PartitionId, i64)>),
}

impl Expected {
    pub fn is(&self, found: &Outcome) -> bool {
        match (self, found) {
            (
                Expected::Appended {
                    base_offset,
                    last_offset,
                    duplicate,
                },
                Outcome::Appended(found),
            ) => {
                (found.base_offset, found.last_offset, found.duplicate)
                    == (*base_offset, *last_offset, *duplicate)
            }
            (Expected::Ended(expected), Outcome::TransactionEnded(found)) => {
                let found = found.iter().map(|(p, marker)| (*p, marker.base_offset));
                found.eq(expected.iter().copied())
            }
            (Expected::Ids(expected), Outcome::ProducerIds(found)) => expected == found,
            (Expected::Unknown, Outcome::Refused(AppendError::UnknownPartition(_)))
            | (Expected::OutOfOrder, Outcome::Refused(AppendError::OutOfOrderSequence { .. }))
            | (Expected::Fenced, Outcome::Refused(AppendError::FencedEpoch { .. }))
            | (
                Expected::Transaction,
                Outcome::Refused(
                    AppendError::TransactionState { .. } | AppendError::FencedCoordinator { .. },
                ),
            )
            | (Expected::NotApplied, Outcome::NotApplied)
            | (Expected::Done, Outcome::Done)
            | (Expected::NoEffect, Outcome::NoEffect)
            | (Expected::Created, Outcome::StreamCreated(_)) => true,
            _ => false,
        }
    }
}

/// What the model cannot know: the numbers of streams, and where a log goes on after offsets that were reserved.
pub trait Decided {
    /// The number of the stream that a command creates.
    fn created(&self, position: usize) -> Option<StreamId>;

    /// Where the batch of a command is in a partition, not below `from`.
    fn placed(
        &self,
        position: usize,
        partition: PartitionId,
        batch: &Batch,
        from: i64,
    ) -> Option<i64>;
}

/// By the answer of the kernel.
pub struct Answered<'a>(pub &'a [Outcome]);

impl Decided for Answered<'_> {
    fn created(&self, position: usize) -> Option<StreamId> {
        match self.0.get(position) {
            Some(Outcome::StreamCreated(id)) => Some(*id),
            _ => None,
        }
    }

    fn placed(&self, position: usize, partition: PartitionId, _: &Batch, _: i64) -> Option<i64> {
        match self.0.get(position) {
            Some(Outcome::Appended(appended)) => Some(appended.base_offset),
            Some(Outcome::TransactionEnded(markers)) => markers
                .iter()
                .find(|(p, _)| *p == partition)
                .map(|(_, marker)| marker.base_offset),
            _ => None,
        }
    }
}

/// By what the next process finds.
pub struct Found<'a> {
    pub view: &'a View,
    /// The streams that the commands create.
    pub created: Vec<Option<StreamId>>,
}

impl Decided for Found<'_> {
    fn created(&self, position: usize) -> Option<StreamId> {
        self.created.get(position).copied().flatten()
    }

    fn placed(&self, _: usize, partition: PartitionId, batch: &Batch, from: i64) -> Option<i64> {
        let (_, partitions) = self.view.streams.get(&partition.stream)?;
        let found = partitions.get(partition.partition as usize)?;
        let later = found
            .batches
            .iter()
            .filter(|there| there.base_offset() >= from);
        let mut same = later.filter(|there| is_same(there, batch));
        same.next().map(Batch::base_offset)
    }
}

/// Whether two batches are the same but for their place.
pub fn is_same(one: &Batch, other: &Batch) -> bool {
    // Base offset, length and leader epoch come first.
    one.bytes().get(16..) == other.bytes().get(16..)
}
