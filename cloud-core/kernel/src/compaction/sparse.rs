//! Copy-forward: what is left of segments that are mostly dead, and small segments that time has piled up, go together into a new one.

use std::collections::BTreeSet;

use super::plan::{Group, Piece};
use super::{Job, segments_of};
use crate::kernel::Kernel;
use crate::segment::{HEADER_BYTES, SegmentId, TRAILER_BYTES};
use crate::state::cold::{ColdRange, SegmentState};

/// A segment of less than this part of the wanted size is small.
const SMALL: u64 = 8;
/// Small segments that there must be before they are put together: each byte is copied once for every eightfold growth.
const SMALL_SEGMENTS: usize = 8;

impl Kernel {
    /// What copy-forward has to do, for about one segment.
    pub(super) fn sparse_jobs(&self) -> Vec<Job> {
        let damaged: BTreeSet<SegmentId> = {
            let damaged = self.core.rewriting.damaged.lock();
            damaged.iter().map(|(segment, _)| *segment).collect()
        };
        let leaving = {
            let cold = self.core.state.cold.lock();
            let known = cold
                .segments
                .iter()
                .filter(|(id, _)| !damaged.contains(id))
                .map(|(id, segment)| (*id, *segment));
            choose(known, self.core.config.segment_bytes)
        };
        if leaving.is_empty() {
            return Vec::new();
        }
        let directory = self.core.state.directory.read();
        let mut jobs = Vec::new();
        for partition in directory.partitions.values() {
            let Some(stream) = directory.by_id.get(&partition.id.stream) else {
                continue;
            };
            let log = partition.log.lock();
            let ranges = log.cold.iter().filter(|r| leaving.contains(&r.segment));
            let groups = groups(ranges);
            if !groups.is_empty() {
                jobs.push(Job {
                    partition: partition.clone(),
                    stream: stream.clone(),
                    leaving: segments_of(&groups),
                    aborted: log.transactions.aborted_between(
                        groups.first().map_or(0, Group::base_offset),
                        groups.last().map_or(0, Group::next_offset),
                    ),
                    groups,
                    last: log.end - 1,
                    newest: None,
                });
            }
        }
        jobs
    }
}

/// The segments to copy, the oldest first, until they fill a segment.
fn choose(
    segments: impl Iterator<Item = (SegmentId, SegmentState)>,
    wanted: u64,
) -> BTreeSet<SegmentId> {
    let frame = (HEADER_BYTES + TRAILER_BYTES) as u64;
    let (mut sparse, mut small) = (Vec::new(), Vec::new());
    for (id, segment) in segments {
        let data = segment.bytes - (u64::from(segment.footer_bytes) + frame).min(segment.bytes);
        if segment.live_bytes < data / 2 {
            sparse.push((id, segment.live_bytes));
        } else if segment.bytes < wanted / SMALL {
            small.push((id, segment.live_bytes));
        }
    }
    let candidates = if small.len() >= SMALL_SEGMENTS {
        sparse.extend(small);
        sparse
    } else {
        sparse
    };
    let mut bytes = 0;
    candidates
        .into_iter()
        .take_while(|(_, live)| {
            let room = bytes < wanted;
            bytes += live;
            room
        })
        .map(|(id, _)| id)
        .collect()
}

/// Ranges that touch and are alike become one.
fn groups<'a>(ranges: impl Iterator<Item = &'a ColdRange>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for range in ranges {
        let piece = Piece {
            range: *range,
            from: range.base_offset,
            to: range.next_offset,
            drop_tombstones: false,
        };
        match groups.last_mut() {
            Some(group)
                if group.next_offset() == range.base_offset
                    && group.compacted == range.compacted =>
            {
                group.pieces.push(piece);
            }
            _ => groups.push(Group {
                pieces: vec![piece],
                compacted: range.compacted,
            }),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Compacted;

    fn chosen(segments: &[(u64, u64)]) -> Vec<u64> {
        let segments = segments.iter().zip(1..).map(|((data, live), id)| {
            let state = SegmentState {
                bytes: data + 100 + (HEADER_BYTES + TRAILER_BYTES) as u64,
                footer_bytes: 100,
                footer_crc: 0,
                live_bytes: *live,
                live_ranges: 1,
            };
            (SegmentId(id), state)
        });
        choose(segments, 8000).iter().map(|id| id.0).collect()
    }

    #[test]
    fn sparse_segments_are_copied_and_small_ones_when_there_are_many() {
        assert_eq!(chosen(&[]), []);
        assert_eq!(chosen(&[(8000, 8000), (8000, 4000)]), []);
        assert_eq!(chosen(&[(8000, 3999), (8000, 8000), (8000, 10)]), [1, 3]);
        assert_eq!(chosen(&[(500, 500); 7]), []);
        assert_eq!(chosen(&[(500, 500); 8]).len(), 8);
        // Not more than makes a segment.
        assert_eq!(
            chosen(&[(40_000, 5000), (40_000, 5000), (40_000, 5000)]),
            [1, 2]
        );
    }

    #[test]
    fn only_what_touches_and_is_alike_goes_together() {
        let range = |segment, base_offset, next_offset, compacted| ColdRange {
            segment: SegmentId(segment),
            base_offset,
            next_offset,
            max_timestamp: 0,
            bytes: 1,
            first_index: 1,
            compacted,
        };
        let ranges = [
            range(1, 0, 10, Compacted::Never),
            range(2, 10, 20, Compacted::Never),
            range(3, 25, 30, Compacted::Never),
            range(4, 30, 40, Compacted::Wholly),
        ];
        let seen: Vec<_> = groups(ranges.iter())
            .iter()
            .map(|group| (group.base_offset(), group.next_offset()))
            .collect();
        assert_eq!(seen, [(0, 20), (25, 30), (30, 40)]);
    }
}
