//! What the state knows of the cold store: whose it is, which segments have records that can still be read, and where each partition's are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::State;
use super::partition::Partition;
use crate::entry::Outcome;
use crate::segment::{Compacted, SegmentId, SegmentMeta, SegmentPart};
use crate::stream::PartitionId;

/// Records of a partition that are in a segment: one part of it, whole or clipped. 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ColdRange {
    pub segment: SegmentId,
    pub base_offset: i64,
    /// One past the last offset.
    pub next_offset: i64,
    /// Milliseconds since the epoch; -1 = no record has one.
    pub max_timestamp: i64,
    pub bytes: u64,
    /// Entry that brought the first batch.
    pub first_index: u64,
    pub compacted: Compacted,
}

impl ColdRange {
    pub fn of(segment: SegmentId, part: &SegmentPart) -> ColdRange {
        ColdRange {
            segment,
            base_offset: part.base_offset,
            next_offset: part.next_offset,
            max_timestamp: part.max_timestamp,
            bytes: part.bytes,
            first_index: part.first_index,
            compacted: part.compacted,
        }
    }
}

/// A segment with ranges that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentState {
    /// Size of the object.
    pub bytes: u64,
    pub footer_bytes: u32,
    pub footer_crc: u32,
    /// Bytes of its ranges that can be read, and how many those are.
    pub live_bytes: u64,
    pub live_ranges: u32,
}

#[derive(Debug, Default)]
pub(crate) struct ColdState {
    /// The log's name in the cold store; `None` until the store is first needed.
    pub log: Option<Uuid>,
    /// Newest epoch that this data directory has taken, and what it put there.
    pub epoch: u32,
    pub nonce: Uuid,
    pub segments: BTreeMap<SegmentId, SegmentState>,
    /// Segments that have left the state and whose objects are to be deleted.
    pub dead: Vec<SegmentId>,
}

impl ColdState {
    pub fn know(&mut self, meta: &SegmentMeta) {
        self.segments.entry(meta.id).or_insert(SegmentState {
            bytes: meta.bytes,
            footer_bytes: meta.footer_bytes,
            footer_crc: meta.footer_crc,
            live_bytes: 0,
            live_ranges: 0,
        });
    }

    pub fn gain(&mut self, range: &ColdRange) {
        if let Some(segment) = self.segments.get_mut(&range.segment) {
            segment.live_bytes = segment.live_bytes.saturating_add(range.bytes);
            segment.live_ranges += 1;
        }
    }

    pub fn lose(&mut self, range: &ColdRange) {
        if let Some(segment) = self.segments.get_mut(&range.segment) {
            segment.live_bytes = segment.live_bytes.saturating_sub(range.bytes);
            segment.live_ranges = segment.live_ranges.saturating_sub(1);
        }
        self.bury(range.segment);
    }

    /// Forgets a segment of which nothing can be read any more.
    pub fn bury(&mut self, id: SegmentId) {
        if self.segments.get(&id).is_some_and(|s| s.live_ranges == 0) {
            self.segments.remove(&id);
            self.dead.push(id);
        }
    }
}

impl State {
    pub(super) fn cold_claim(&self, log: Uuid, epoch: u32, nonce: Uuid) -> Outcome {
        let mut cold = self.cold.lock();
        if cold.log.is_some_and(|known| known != log) || epoch <= cold.epoch {
            return Outcome::NoEffect;
        }
        cold.log = Some(log);
        cold.epoch = epoch;
        cold.nonce = nonce;
        Outcome::Done
    }

    /// Puts ranges in the place of the hot batches that a segment has. A part that does not fit any more (its partition is gone, trimmed,
    /// or has these offsets from elsewhere) is dead.
    pub(super) fn segment_sealed(&self, meta: &SegmentMeta) -> Outcome {
        if self.cold.lock().segments.contains_key(&meta.id) {
            return Outcome::NoEffect;
        }
        // Known before anybody finds it in a partition.
        self.cold.lock().know(meta);
        for part in &meta.parts {
            let Some(partition) = self.partition(part.partition) else {
                continue;
            };
            let mut log = partition.log.lock();
            let Some((range, sealed)) = log.seal(ColdRange::of(meta.id, part)) else {
                continue;
            };
            self.cold.lock().gain(&range);
            drop(log);
            let mut wal_use = self.wal_use.lock();
            sealed.iter().for_each(|batch| wal_use.subtract(batch));
        }
        self.cold.lock().bury(meta.id);
        Outcome::Done
    }

    /// Puts ranges in the place of others, partition by partition: as a whole, or, where it does not fit any more, not at all.
    pub(super) fn ranges_replaced(
        &self,
        removed: &[(SegmentId, PartitionId)],
        added: &[SegmentMeta],
    ) -> Outcome {
        if added
            .iter()
            .any(|meta| self.cold.lock().segments.contains_key(&meta.id))
        {
            return Outcome::NoEffect;
        }
        added.iter().for_each(|meta| self.cold.lock().know(meta));
        let mut leaving: BTreeMap<PartitionId, BTreeSet<SegmentId>> = BTreeMap::new();
        for (segment, partition) in removed {
            leaving.entry(*partition).or_default().insert(*segment);
        }
        let mut coming: BTreeMap<PartitionId, Vec<ColdRange>> = BTreeMap::new();
        for meta in added {
            for part in &meta.parts {
                leaving.entry(part.partition).or_default();
                coming
                    .entry(part.partition)
                    .or_default()
                    .push(ColdRange::of(meta.id, part));
            }
        }
        for (id, segments) in &leaving {
            if let Some(partition) = self.partition(*id) {
                let coming = coming.remove(id).unwrap_or_default();
                self.replace_in(&partition, segments, coming);
            }
        }
        let mut cold = self.cold.lock();
        added.iter().for_each(|meta| cold.bury(meta.id));
        Outcome::Done
    }

    fn replace_in(
        &self,
        partition: &Arc<Partition>,
        leaving: &BTreeSet<SegmentId>,
        coming: Vec<ColdRange>,
    ) {
        let mut log = partition.log.lock();
        let Some((left, came)) = log.replace(leaving, coming) else {
            return;
        };
        // What compaction left out is not to be seen from memory either; what is nowhere but in memory, and what it did not look at, stays there.
        let below = left.iter().map(|r| r.next_offset).max().unwrap_or(0);
        let as_before = came.iter().filter(|r| r.compacted == Compacted::Never);
        let stays = as_before.map(|r| r.base_offset).min();
        let volatile = log.volatile.front().map(|v| v.base_offset);
        let below = stays.into_iter().chain(volatile).fold(below, i64::min);
        let (batches, bytes) = log.drop_tail(below);
        let mut cold = self.cold.lock();
        came.iter().for_each(|range| cold.gain(range));
        left.iter().for_each(|range| cold.lose(range));
        drop((cold, log));
        self.tail.lock().removed(batches, bytes);
    }
}
