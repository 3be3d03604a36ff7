//! Which records of a compacted log stay.

use record::{Batch, BatchError, Record, Retained};

use super::keys::NewestOffsets;
use crate::kernel::AbortedTransaction;

/// Decides about the records of one range of one partition.
pub(crate) struct Filter<'a> {
    pub newest: &'a NewestOffsets,
    pub aborted: &'a [AbortedTransaction],
    /// Whether the deletions in the range have been seen by everybody who had the time to.
    pub drop_tombstones: bool,
    /// Last offset of the log. Its record stays whatever it is: readers before it would never get to the end otherwise.
    pub last: i64,
}

/// What was left of a range.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    /// Some record was left out.
    pub changed: bool,
    /// Deletions stayed, which a later pass will leave out.
    pub tombstones: bool,
}

impl Filter<'_> {
    /// The batch without the records that are superseded, aborted, or deletions whose time is over. Control batches stay: readers of what is
    /// around them need them. A record without a key is nobody's older value: it stays.
    pub fn apply(&self, batch: &Batch, left: &mut Left) -> Result<Retained, BatchError> {
        if batch.is_control() {
            return Ok(Retained::All);
        }
        if is_aborted(self.aborted, batch) {
            left.changed = true;
            return Ok(Retained::None);
        }
        let mut tombstones = false;
        let retained = batch.retain(|record| {
            let stays = self.stays(record);
            tombstones |= stays && is_tombstone(record);
            stays
        })?;
        left.tombstones |= tombstones;
        left.changed |= retained != Retained::All;
        Ok(retained)
    }

    fn stays(&self, record: &Record) -> bool {
        match &record.key {
            None => true,
            Some(key) => {
                let superseded = self.newest.has_newer(key, record.offset);
                let over =
                    self.drop_tombstones && is_tombstone(record) && record.offset != self.last;
                !superseded && !over
            }
        }
    }
}

/// Notes the keys of a batch; `Some(offset)` = the table was full at this record.
pub(crate) fn note(
    newest: &mut NewestOffsets,
    aborted: &[AbortedTransaction],
    batch: &Batch,
) -> Result<Option<i64>, BatchError> {
    if batch.is_control() || is_aborted(aborted, batch) {
        return Ok(None);
    }
    for record in batch.records()? {
        let record = record?;
        if let Some(key) = &record.key
            && !newest.note(key, record.offset)
        {
            return Ok(Some(record.offset));
        }
    }
    Ok(None)
}

fn is_tombstone(record: &Record) -> bool {
    record.key.is_some() && record.value.is_none()
}

fn is_aborted(aborted: &[AbortedTransaction], batch: &Batch) -> bool {
    batch.is_transactional()
        && aborted.iter().any(|transaction| {
            transaction.producer_id == batch.producer_id()
                && (transaction.first_offset..=transaction.last_offset)
                    .contains(&batch.base_offset())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use record::{BatchBuilder, NewRecord};

    fn batch(base: i64, records: &[(Option<&str>, Option<&str>)]) -> Batch {
        let mut builder = BatchBuilder::new().producer(9, 0, 0).transactional();
        for (key, value) in records {
            let text =
                |text: &Option<&str>| text.map(|t| bytes::Bytes::copy_from_slice(t.as_bytes()));
            let record = NewRecord {
                key: text(key),
                value: text(value),
                ..NewRecord::default()
            };
            builder.push(&record).unwrap();
        }
        builder.build().unwrap().patched(base, 0)
    }

    fn offsets(batch: &Batch, retained: &Retained) -> Vec<i64> {
        let batch = match retained {
            Retained::All => batch,
            Retained::Some(left) => left,
            Retained::None => return Vec::new(),
        };
        batch
            .records()
            .unwrap()
            .map(|record| record.unwrap().offset)
            .collect()
    }

    #[test]
    fn the_newest_of_each_key_stays_and_what_has_no_key() {
        let old = batch(
            10,
            &[
                (Some("a"), Some("1")),
                (Some("b"), Some("1")),
                (None, Some("x")),
            ],
        );
        let new = batch(20, &[(Some("a"), Some("2")), (Some("d"), None)]);
        let mut newest = NewestOffsets::bounded(1 << 16);
        for batch in [&old, &new] {
            assert_eq!(note(&mut newest, &[], batch).unwrap(), None);
        }
        for (drop_tombstones, expected) in [(false, vec![20, 21]), (true, vec![20])] {
            let filter = Filter {
                newest: &newest,
                aborted: &[],
                drop_tombstones,
                last: 99,
            };
            let mut left = Left::default();
            assert_eq!(
                offsets(&old, &filter.apply(&old, &mut left).unwrap()),
                [11, 12]
            );
            assert_eq!(
                left,
                Left {
                    changed: true,
                    tombstones: false
                }
            );
            let mut left = Left::default();
            assert_eq!(
                offsets(&new, &filter.apply(&new, &mut left).unwrap()),
                expected
            );
            assert_eq!(
                left,
                Left {
                    changed: drop_tombstones,
                    tombstones: !drop_tombstones
                }
            );
        }
    }

    #[test]
    fn what_was_aborted_neither_stays_nor_supersedes() {
        let kept = batch(10, &[(Some("a"), Some("1"))]);
        let aborted = batch(20, &[(Some("a"), Some("2"))]);
        let index = [AbortedTransaction {
            producer_id: 9,
            first_offset: 15,
            last_offset: 25,
        }];
        let mut newest = NewestOffsets::bounded(1 << 16);
        for batch in [&kept, &aborted] {
            assert_eq!(note(&mut newest, &index, batch).unwrap(), None);
        }
        let filter = Filter {
            newest: &newest,
            aborted: &index,
            drop_tombstones: false,
            last: 99,
        };
        let mut left = Left::default();
        assert_eq!(filter.apply(&kept, &mut left).unwrap(), Retained::All);
        assert!(!left.changed);
        assert_eq!(filter.apply(&aborted, &mut left).unwrap(), Retained::None);
        assert!(left.changed);
    }
}
