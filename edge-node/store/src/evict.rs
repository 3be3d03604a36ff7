//! Making room in a lane, and letting go of what is too old: always the oldest segment of a log, and never before it is noted what went.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::bound::Bound;
use crate::disk::Disk;
use crate::frame::{Dropped, Entry};
use crate::gap::GapReason;
use crate::landing::landing;
use crate::log::{End, Evicted, Segment, Shared, WriteError};
use crate::segment::{SegmentReader, Stamp};
use crate::writer::Writer;

/// The counts of dropped messages in a segment, with the numbers of their entries. `after`: what the next segment begins with.
pub(crate) fn dropped_in(
    disk: &dyn Disk,
    segment: &Segment,
    after: (u64, u64),
) -> io::Result<Vec<(u64, Dropped)>> {
    let mut counts = Vec::new();
    if segment.dropped == after {
        return Ok(counts);
    }
    let file = disk.open(&segment.path)?;
    let mut reader = SegmentReader::new(file, segment.data_start, segment.len, None);
    loop {
        match reader.next() {
            Ok(Some(Entry::Dropped { number, dropped })) => counts.push((number, dropped)),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(counts),
            Err(_) if matches!(reader.resync(), Ok(true)) => {}
            Err(_) => return Ok(counts),
        }
    }
}

/// Evicts the oldest segment of a log that is not written to any more; of those that the core has, if `sent`. False: there is none. Any log's writer
/// may do this, as long as it holds what the bound says.
fn evict_closed(log: &Shared, reason: GapReason, sent: bool) -> Result<bool, WriteError> {
    let two = {
        let index = log.index.lock();
        let mut oldest = index.segments.iter().map(|(n, s)| (*n, s.clone()));
        oldest.next().zip(oldest.next())
    };
    let Some(((number, segment), next)) = two else {
        return Ok(false);
    };
    if sent && next.0 > log.sent.lock().number {
        return Ok(false);
    }
    let failed = |error: io::Error| log.write_error(&error);
    let evicted = Evicted {
        first: End {
            number,
            position: segment.first_position,
        },
        next: End {
            number: next.0,
            position: next.1.first_position,
        },
        reason,
        bytes: segment.len - segment.data_start,
        first_time: segment.last.ms,
        last_time: next.1.last.ms,
        dropped: dropped_in(&*log.disk, &segment, next.1.dropped).map_err(failed)?,
        landing: landing(log, next.0).map_err(failed)?,
    };
    (log.on_evict)(evicted).map_err(|error| WriteError::Failed(error.to_string()))?;
    log.remove_segment(number).map_err(failed)?;
    Ok(true)
}

impl Writer {
    /// Takes room for so many bytes: evicts until there is, or nothing is left to evict.
    pub(crate) fn make_room(&mut self, bytes: u64) -> Result<(), WriteError> {
        let bound = self.shared.bound.clone();
        if bound.take(bytes) {
            return Ok(());
        }
        let _going = bound.going();
        while !bound.take(bytes) {
            if !self.evict_for_room(&bound)? {
                bound.grow(bytes);
                break;
            }
        }
        Ok(())
    }

    /// Evicts a segment of one of the logs that have this bound. False: there is none.
    fn evict_for_room(&mut self, bound: &Bound) -> Result<bool, WriteError> {
        let logs = bound.logs();
        // The core misses nothing of what it has.
        for log in &logs {
            if evict_closed(log, GapReason::EvictedBytes, true)? {
                return Ok(true);
            }
        }
        for log in &logs {
            let evicted = if Arc::ptr_eq(log, &self.shared) {
                self.evict_oldest(GapReason::EvictedBytes)?
            } else {
                evict_closed(log, GapReason::EvictedBytes, false)?
            };
            if evicted {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Evicts segments of which everything is older than the lane allows. A segment that has been written to for a quarter of that time is
    /// closed, so that a lane with few messages also lets go of them.
    pub(crate) fn expire(
        &mut self,
        now_ms: i64,
        boots: &BTreeMap<u64, i64>,
    ) -> Result<(), WriteError> {
        let Some(max_age) = self.shared.config.max_age else {
            return Ok(());
        };
        let max_age = i64::try_from(max_age.as_millis()).unwrap_or(i64::MAX);
        let age = |stamp: Stamp| -> Option<i64> {
            let ms = match stamp.blind {
                None => Some(stamp.ms).filter(|ms| *ms >= 0),
                Some(boot) => boots.get(&boot).and_then(|add| stamp.ms.checked_add(*add)),
            };
            Some(now_ms.saturating_sub(ms?))
        };
        if let Some(since) = self.active_since
            && age(since).is_some_and(|age| age > max_age / 4)
        {
            self.roll_if_used()?;
        }
        let bound = self.shared.bound.clone();
        let _going = bound.going();
        loop {
            let newest_record = {
                let index = self.shared.index.lock();
                index.segments.values().nth(1).map(|next| next.last)
            };
            let too_old = newest_record.and_then(age).is_some_and(|age| age > max_age);
            if !too_old || !self.evict_oldest(GapReason::EvictedAge)? {
                return Ok(());
            }
        }
    }

    /// False: there is only an empty segment.
    fn evict_oldest(&mut self, reason: GapReason) -> Result<bool, WriteError> {
        if evict_closed(&self.shared, reason, false)? {
            return Ok(true);
        }
        let (first, _) = self.active_segment();
        if self.state.next_number <= first {
            return Ok(false);
        }
        self.roll()?;
        evict_closed(&self.shared, reason, false)
    }

    /// Messages that were dropped and that no entry of the log counts yet.
    pub(crate) fn uncounted(&self) -> Option<Dropped> {
        let so_far = *self.shared.dropped.borrow();
        let records = so_far.records.saturating_sub(self.state.dropped.0);
        if records == 0 {
            return None;
        }
        let dropped = Dropped {
            records,
            bytes: so_far.bytes.saturating_sub(self.state.dropped.1),
            first_time: so_far.first_time,
            last_time: so_far.last_time,
        };
        Some(dropped)
    }
}
