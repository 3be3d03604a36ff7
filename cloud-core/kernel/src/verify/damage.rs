//! What a verification finds.

use std::fmt;

use record::StreamAddress;

use crate::state::State;
use crate::state::partition::BatchRef;
use crate::stream::PartitionId;

/// A damaged place, with what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Path in the data directory, or key in the cold store.
    pub place: String,
    /// Position in it; `None` = the whole.
    pub at: Option<u64>,
    /// Bytes from there on; `None` = up to its end.
    pub bytes: Option<u64>,
    /// What is wrong.
    pub reason: String,
    /// Records that cannot be read for it; empty when nobody can ask for them any more, or when nobody knows.
    pub records: Vec<DamagedRecords>,
}

/// Records of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRecords {
    /// Of which.
    pub partition: PartitionId,
    /// Name of its stream.
    pub address: StreamAddress,
    /// First offset.
    pub first_offset: i64,
    /// Last offset, included.
    pub last_offset: i64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)?;
        if let Some(at) = self.at {
            write!(f, " at byte {at}")?;
        }
        write!(f, ": {}", self.reason)?;
        for r in &self.records {
            write!(
                f,
                "; {} partition {} offsets {} to {}",
                r.address, r.partition.partition, r.first_offset, r.last_offset
            )?;
        }
        Ok(())
    }
}

/// The records of a partition from one offset to another, both included, as far as they can still be asked for.
pub(crate) fn records(
    state: &State,
    partition: PartitionId,
    first: i64,
    last: i64,
) -> Option<DamagedRecords> {
    let stream = state.stream(partition.stream)?;
    let found = state.partition(partition)?;
    let log = found.log.lock();
    let first_offset = first.max(log.log_start);
    let last_offset = last.min(log.end - 1);
    (first_offset <= last_offset).then(|| DamagedRecords {
        partition,
        address: stream.address.clone(),
        first_offset,
        last_offset,
    })
}

/// What batches of an entry of the WAL hold that is read from there, by their places in its body.
pub(crate) fn records_of_batches(state: &State, index: u64, places: &[u32]) -> Vec<DamagedRecords> {
    let mut found = Vec::new();
    for partition in state.partitions() {
        let batches: Vec<_> = {
            let log = partition.log.lock();
            let damaged = |b: &&BatchRef| b.index == index && places.contains(&b.batch_at);
            let inside = log.batches.iter().filter(damaged);
            inside.map(|b| (b.base_offset, b.last_offset())).collect()
        };
        let lost = batches.into_iter();
        found.extend(lost.filter_map(|(first, last)| records(state, partition.id, first, last)));
    }
    found.sort_by_key(|r| (r.partition, r.first_offset));
    found
}

/// What entries of the WAL hold that is read from there.
pub(crate) fn records_of_entries(state: &State, first: u64, last: u64) -> Vec<DamagedRecords> {
    let mut found = Vec::new();
    for partition in state.partitions() {
        let batches: Vec<_> = {
            let log = partition.log.lock();
            let inside = log
                .batches
                .iter()
                .filter(|b| (first..=last).contains(&b.index));
            inside.map(|b| (b.base_offset, b.last_offset())).collect()
        };
        let ends = batches.first().zip(batches.last());
        if let Some(((first, _), (_, last))) = ends {
            found.extend(records(state, partition.id, *first, *last));
        }
    }
    found.sort_by_key(|r| (r.partition, r.first_offset));
    found
}
