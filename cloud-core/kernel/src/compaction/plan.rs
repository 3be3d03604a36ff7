//! Which ranges of a compacted log a pass goes through, and how what is left of them is put together. Nothing here reads or writes.

use crate::segment::Compacted;
use crate::state::cold::ColdRange;

/// What a stream asks for, and where its partition is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// Milliseconds since the epoch.
    pub now: i64,
    pub delete_retention_ms: i64,
    pub min_compaction_lag_ms: i64,
    pub min_cleanable_dirty_ratio: f64,
    /// Transactions below it are decided.
    pub last_stable: i64,
}

impl Terms {
    /// How many ranges, from the first, compaction may look at; `None` if it is not worth it.
    pub fn due(&self, ranges: &[ColdRange]) -> Option<usize> {
        let old_enough = |range: &&ColdRange| {
            range.next_offset <= self.last_stable
                && (self.min_compaction_lag_ms == 0
                    || range.max_timestamp < self.now.saturating_sub(self.min_compaction_lag_ms))
        };
        let eligible: Vec<&ColdRange> = ranges.iter().take_while(old_enough).collect();
        let total: u64 = eligible.iter().map(|range| range.bytes).sum();
        let dirty: u64 = eligible
            .iter()
            .filter(|range| range.compacted == Compacted::Never)
            .map(|range| range.bytes)
            .sum();
        #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
        let worth_it = dirty > 0 && dirty as f64 / total as f64 >= self.min_cleanable_dirty_ratio;
        let deletions_over = eligible.iter().any(|range| self.deletions_are_over(range));
        (worth_it || deletions_over).then_some(eligible.len())
    }

    /// Whether deletions in a range were there for long enough, so that they may go, too.
    pub fn deletions_are_over(&self, range: &ColdRange) -> bool {
        match range.compacted {
            Compacted::Since(since) => since.saturating_add(self.delete_retention_ms) <= self.now,
            Compacted::Never | Compacted::Wholly => false,
        }
    }
}

/// What is to become of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub range: ColdRange,
    /// It has to be written anew.
    pub rewrite: bool,
    /// Records from this offset on were not taken into account: they stay as they are, for another pass. The range's end when all were.
    pub until: i64,
    pub drop_tombstones: bool,
}

/// Ranges, or pieces of them, that become one part of a new segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    /// Pieces, by offset: the range, and from where to where.
    pub pieces: Vec<Piece>,
    /// What compaction says of the part if it still has deletions; without any, and unless it was never compacted, it is `Wholly`.
    pub compacted: Compacted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub range: ColdRange,
    pub from: i64,
    pub to: i64,
    pub drop_tombstones: bool,
}

impl Group {
    pub fn base_offset(&self) -> i64 {
        self.pieces.first().map_or(0, |piece| piece.from)
    }

    pub fn next_offset(&self) -> i64 {
        self.pieces.last().map_or(0, |piece| piece.to)
    }
}

/// Puts together what is written anew. Ranges stay apart where their deletions go at different times, so that none goes before its time and none
/// stays because of others; everything of a partition in one segment goes together, since a segment's ranges are replaced together.
pub(crate) fn groups(steps: &[Step], now: i64) -> Vec<Group> {
    let rewritten: std::collections::BTreeSet<_> = steps
        .iter()
        .filter(|step| step.rewrite)
        .map(|step| step.range.segment)
        .collect();
    let mut groups: Vec<Group> = Vec::new();
    // Whether the last group takes more: only right behind it.
    let mut open = false;
    for step in steps {
        if !rewritten.contains(&step.range.segment) {
            open = false;
            continue;
        }
        let Step { range, until, .. } = *step;
        let piece = |from, to| Piece {
            range,
            from,
            to,
            drop_tombstones: step.drop_tombstones,
        };
        let becomes = match range.compacted {
            Compacted::Never => Compacted::Since(now),
            Compacted::Since(_) if step.drop_tombstones => Compacted::Wholly,
            other => other,
        };
        let done = until.clamp(range.base_offset, range.next_offset);
        if done > range.base_offset {
            let piece = piece(range.base_offset, done);
            match groups.last_mut().filter(|_| open) {
                Some(group) if group.compacted == becomes => group.pieces.push(piece),
                _ => groups.push(Group {
                    pieces: vec![piece],
                    compacted: becomes,
                }),
            }
            open = true;
        }
        if done < range.next_offset {
            groups.push(Group {
                pieces: vec![piece(done, range.next_offset)],
                compacted: range.compacted,
            });
            open = false;
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentId;

    fn range(segment: u64, base: i64, next: i64, compacted: Compacted) -> ColdRange {
        ColdRange {
            segment: SegmentId(segment),
            base_offset: base,
            next_offset: next,
            max_timestamp: base,
            bytes: (next - base).unsigned_abs(),
            first_index: 1,
            compacted,
        }
    }

    const TERMS: Terms = Terms {
        now: 1000,
        delete_retention_ms: 100,
        min_compaction_lag_ms: 0,
        min_cleanable_dirty_ratio: 0.5,
        last_stable: i64::MAX,
    };

    #[test]
    fn a_pass_is_due_when_enough_is_dirty_or_deletions_are_over() {
        use Compacted::*;
        /// Bytes and state of each range; then what is due.
        type Case = (&'static [(i64, Compacted)], Terms, Option<usize>);
        let cases: &[Case] = &[
            (&[], TERMS, None),
            (&[(10, Never)], TERMS, Some(1)),
            (&[(30, Wholly), (10, Never)], TERMS, None),
            (&[(10, Wholly), (10, Never)], TERMS, Some(2)),
            (&[(30, Since(900)), (10, Never)], TERMS, Some(2)),
            (&[(30, Since(901)), (10, Never)], TERMS, None),
            (
                &[(10, Never), (10, Never)],
                Terms {
                    last_stable: 15,
                    ..TERMS
                },
                Some(1),
            ),
            (
                &[(10, Never)],
                Terms {
                    last_stable: 5,
                    ..TERMS
                },
                None,
            ),
            (
                &[(10, Never), (10, Never)],
                Terms {
                    min_compaction_lag_ms: 995,
                    ..TERMS
                },
                Some(1),
            ),
        ];
        for (ranges, terms, expected) in cases {
            let mut base = 0;
            let ranges: Vec<_> = ranges
                .iter()
                .map(|(bytes, compacted)| {
                    base += bytes;
                    range(1, base - bytes, base, *compacted)
                })
                .collect();
            assert_eq!(terms.due(&ranges), *expected, "{ranges:?} {terms:?}");
        }
    }

    #[test]
    fn ranges_whose_deletions_go_at_different_times_stay_apart() {
        use Compacted::*;
        let step = |segment, base: i64, compacted, rewrite, until, drop_tombstones| Step {
            range: range(segment, base, base + 10, compacted),
            rewrite,
            until,
            drop_tombstones,
        };
        let steps = [
            step(1, 0, Wholly, true, 10, false),
            step(2, 10, Since(5), true, 20, true),
            step(3, 20, Since(950), true, 30, false),
            step(4, 30, Since(960), false, 40, false),
            step(5, 40, Never, true, 50, false),
            step(6, 50, Never, true, 53, false),
            // Not taken into account, but of a segment that is.
            step(6, 60, Never, false, 0, false),
        ];
        let seen: Vec<_> = groups(&steps, 1000)
            .iter()
            .map(|g| {
                (
                    g.base_offset(),
                    g.next_offset(),
                    g.pieces.len(),
                    g.compacted,
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                (0, 20, 2, Wholly),
                (20, 30, 1, Since(950)),
                (40, 53, 2, Since(1000)),
                (53, 60, 1, Never),
                (60, 70, 1, Never),
            ]
        );
    }
}
