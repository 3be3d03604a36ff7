//! What of the WAL is still needed, and how old it is: says when to seal, how far, and which files are dead.

use std::collections::{BTreeMap, VecDeque};

use super::partition::BatchRef;

/// Stamps that are remembered at most.
const MARKS: usize = 256;
/// Distance between two of them at least, in milliseconds.
const MARK_EVERY_MS: i64 = 1000;

/// Batches that live in the WAL: neither trimmed nor sealed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Live {
    pub batches: u64,
    pub bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct WalUse {
    /// First index of a file -> what lives in it. Files that are not here hold nothing.
    pub files: BTreeMap<u64, Live>,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Indexes of entries with the stamps they were written at, thinned: the age of an entry is at most that of the mark before it.
    marks: VecDeque<(u64, i64)>,
}

impl WalUse {
    pub fn add(&mut self, index: u64, bytes: u64) {
        if let Some((_, live)) = self.files.range_mut(..=index).next_back() {
            live.batches += 1;
            live.bytes += bytes;
            self.bytes += bytes;
        }
    }

    pub fn subtract(&mut self, batch: &BatchRef) {
        let bytes = u64::from(batch.batch_len);
        if let Some((_, live)) = self.files.range_mut(..=batch.index).next_back() {
            live.batches = live.batches.saturating_sub(1);
            live.bytes = live.bytes.saturating_sub(bytes);
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    /// Whether nothing of a file is needed.
    pub fn is_dead(&self, first: u64) -> bool {
        self.files.get(&first).is_none_or(|live| live.batches == 0)
    }

    /// Remembers when an entry was written.
    pub fn mark(&mut self, index: u64, stamp: i64) {
        if self
            .marks
            .back()
            .is_some_and(|(_, last)| stamp < last.saturating_add(MARK_EVERY_MS))
        {
            return;
        }
        if self.marks.len() >= MARKS {
            // Older than everything that is needed, but for the last of those.
            let oldest = self.files.iter().find(|(_, live)| live.batches > 0);
            let oldest = oldest.map_or(index, |(first, _)| *first);
            while self.marks.get(1).is_some_and(|(mark, _)| *mark <= oldest) {
                self.marks.pop_front();
            }
        }
        if self.marks.len() >= MARKS {
            let mut place = 0;
            self.marks.retain(|_| {
                place += 1;
                place % 2 == 1
            });
        }
        self.marks.push_back((index, stamp));
    }

    /// When an entry was written, at the earliest; `None` for one older than all that is remembered.
    pub fn stamp_of(&self, index: u64) -> Option<i64> {
        let after = self.marks.partition_point(|(marked, _)| *marked <= index);
        self.marks
            .get(after.checked_sub(1)?)
            .map(|(_, stamp)| *stamp)
    }

    pub fn marks(&self) -> impl ExactSizeIterator<Item = &(u64, i64)> {
        self.marks.iter()
    }

    pub fn set_marks(&mut self, marks: VecDeque<(u64, i64)>) {
        self.marks = marks;
    }

    /// The entry up to which to seal: whole files, as many as hold about `wanted` bytes; also what is in the file that is written, if the
    /// others hold little and `all` is set. `None` = there is nothing to seal. `applied` is the newest entry.
    pub fn seal_through(&self, wanted: u64, all: bool, applied: u64) -> Option<u64> {
        let mut through = None;
        let mut bytes = 0;
        let mut files = self.files.iter().peekable();
        while let Some((_, live)) = files.next() {
            if bytes > 0 && bytes + live.bytes > wanted {
                return through;
            }
            match files.peek() {
                Some((next, _)) => {
                    bytes += live.bytes;
                    if bytes > 0 {
                        through = Some(*next - 1);
                    }
                }
                // The file that is written.
                None if live.bytes > 0 && (all || bytes == 0) => through = Some(applied),
                None => {}
            }
        }
        through
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(files: &[(u64, u64)]) -> WalUse {
        let mut wal_use = WalUse::default();
        for (first, bytes) in files {
            wal_use.files.insert(*first, Live::default());
            if *bytes > 0 {
                wal_use.add(*first, *bytes);
            }
        }
        wal_use
    }

    #[test]
    fn whole_files_are_sealed() {
        /// First indexes of files and their bytes; whether to take all; the entry up to which.
        type Case = (&'static [(u64, u64)], bool, Option<u64>);
        let cases: &[Case] = &[
            (&[], true, None),
            (&[(1, 0)], true, None),
            (&[(1, 40)], false, Some(99)),
            (&[(1, 60), (10, 60), (20, 5)], false, Some(9)),
            (&[(1, 50), (10, 50), (20, 5)], false, Some(19)),
            (&[(1, 50), (10, 30), (20, 5)], false, Some(19)),
            (&[(1, 50), (10, 30), (20, 5)], true, Some(99)),
            (&[(1, 50), (10, 30), (20, 50)], true, Some(19)),
            (&[(1, 0), (10, 300), (20, 5)], true, Some(19)),
            (&[(1, 0), (10, 0), (20, 5)], false, Some(99)),
        ];
        for (files, all, expected) in cases {
            assert_eq!(
                with(files).seal_through(100, *all, 99),
                *expected,
                "{files:?} {all}"
            );
        }
    }

    #[test]
    fn marks_are_bounded_and_never_make_an_entry_younger() {
        let mut wal_use = with(&[(1, 40)]);
        for index in 1..10_000u64 {
            wal_use.mark(index, index as i64 * 400);
        }
        assert!(wal_use.marks().len() <= MARKS);
        for index in (1..10_000).step_by(37) {
            assert!(wal_use.stamp_of(index).unwrap() <= index as i64 * 400);
        }
        assert_eq!(wal_use.stamp_of(0), None);
    }
}
