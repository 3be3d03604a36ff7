//! The log of one partition in memory: index, recent batches, producers, and who waits for its end to move.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use record::Batch;

use crate::entry::Outcome;
use crate::kernel::Watermarks;
use crate::segment::SegmentId;
use crate::state::cold::ColdRange;
use crate::state::producer::{self, Producer};
use crate::state::transaction::Transactions;
use crate::state::volatile::Volatile;
use crate::state::waiters::{Mark, Signal, Waiters};
use crate::stream::PartitionId;

/// Where a batch is: the index of its entry (and so its WAL file), and its place there. 56 bytes a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchRef {
    pub base_offset: i64,
    pub max_timestamp: i64,
    /// Index of the entry.
    pub index: u64,
    /// Where the frame begins in its file.
    pub frame_at: u32,
    /// Length of the frame's body.
    pub body_len: u32,
    /// Where the batch begins in the body.
    pub batch_at: u32,
    pub batch_len: u32,
    pub last_offset_delta: u32,
}

impl BatchRef {
    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }
}

/// A partition.
#[derive(Debug)]
pub(crate) struct Partition {
    pub id: PartitionId,
    pub log: Mutex<PartitionLog>,
    pub waiters: Waiters,
}

#[derive(Debug, Default)]
pub(crate) struct PartitionLog {
    pub log_start: i64,
    pub end: i64,
    /// What is in the cold store, by offset; all of it below `batches`.
    pub cold: VecDeque<ColdRange>,
    /// What is in the WAL, by offset.
    pub batches: VecDeque<BatchRef>,
    /// The newest batches, in memory, with their offsets filled in; they stay when they are sealed.
    pub tail: VecDeque<Batch>,
    /// Those of the tail that are nowhere else, by offset.
    pub volatile: VecDeque<Volatile>,
    /// No offset below is used for what is appended durably; none that was given to `volatile` is above.
    pub reserved: i64,
    /// What the log says of producers.
    pub producers: BTreeMap<i64, Producer>,
    /// What is only in memory of them: never judges what is logged, else a replay would judge otherwise.
    pub volatile_producers: BTreeMap<i64, Producer>,
    /// Its stream is of durability `memory`.
    pub is_volatile: bool,
    pub transactions: Transactions,
    /// Bytes of `cold`, `batches` and `volatile`.
    pub bytes: u64,
    /// Deleted.
    pub gone: bool,
}

/// Where what a read will return is: in the cold store, or else in the WAL, in memory, or first there and then here.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub cold: Option<ColdRange>,
    pub disk: Vec<BatchRef>,
    pub memory: Vec<Batch>,
}

/// What left a log by a trim.
#[derive(Debug, Default)]
pub(crate) struct Trimmed {
    pub cold: Vec<ColdRange>,
    pub batches: Vec<BatchRef>,
    /// Batches that were in memory, and their bytes.
    pub from_tail: usize,
    pub tail_bytes: usize,
}

impl PartitionLog {
    pub fn watermarks(&self) -> Watermarks {
        Watermarks {
            log_start: self.log_start,
            high_watermark: self.reached(Mark::End),
            last_stable: self.reached(Mark::LastStable),
            end: self.end,
        }
    }

    /// See [`crate::Command::AdvanceSequence`].
    pub fn advance_sequence(
        &mut self,
        producer_id: i64,
        epoch: i16,
        next: i32,
        stamp: i64,
    ) -> Outcome {
        // A replay knows nothing of those that are only in memory: one that it made up would be held to what it wrote long ago.
        let made = !self.is_volatile;
        let producers = if self.is_volatile {
            &mut self.volatile_producers
        } else {
            &mut self.producers
        };
        let known = producers.get(&producer_id);
        match producer::advanced(known, epoch, next, stamp).filter(|_| made || known.is_some()) {
            Some(now) => {
                producers.insert(producer_id, now);
                Outcome::Done
            }
            None => Outcome::NoEffect,
        }
    }

    /// First offset of the oldest open transaction, as far as that is still there; without one, the end.
    pub fn last_stable(&self) -> i64 {
        match self.transactions.first_open() {
            Some(first) => first.max(self.log_start),
            None => self.end,
        }
    }

    pub fn mark(&self, mark: Mark) -> i64 {
        match mark {
            Mark::End => self.end,
            Mark::LastStable => self.last_stable(),
        }
    }

    /// How far those who wait for a mark get to see it: not into the hole after the last batch.
    pub fn reached(&self, mark: Mark) -> i64 {
        self.mark(mark).min(self.data_end())
    }

    /// One past the last batch that is there: what lies between that and the end is a hole, and nobody waits for less than a batch after it.
    fn data_end(&self) -> i64 {
        let cold = self.cold.back().map_or(0, |r| r.next_offset);
        let hot = self.batches.back().map_or(0, |b| b.last_offset() + 1);
        let tail = self.tail.back().map_or(0, Batch::next_offset);
        // What was trimmed was there: whoever waits below is to be told.
        cold.max(hot).max(tail).max(self.log_start)
    }

    /// Place of the hot batch with `offset`, or of the first after it.
    pub fn position_of(&self, offset: i64) -> usize {
        self.batches.partition_point(|b| b.last_offset() < offset)
    }

    /// The cold range with `offset`, or the first after it.
    pub fn cold_at(&self, offset: i64) -> Option<&ColdRange> {
        self.cold
            .get(self.cold.partition_point(|r| r.next_offset <= offset))
    }

    /// When the records at `offset`, or the first after it, were committed: entry, and place in the entry.
    pub fn order_at(&self, offset: i64) -> Option<(u64, u32)> {
        let volatile = self.volatile_at(offset);
        if let Some(range) = self.cold_at(offset)
            && volatile.is_none_or(|batch| range.base_offset < batch.base_offset)
        {
            return Some((range.first_index, 0));
        }
        let hot = self.batches.get(self.position_of(offset));
        match volatile {
            Some(batch) if hot.is_none_or(|hot| hot.base_offset > batch.base_offset) => {
                Some((batch.index, u32::MAX))
            }
            _ => hot.map(|batch| (batch.index, batch.batch_at)),
        }
    }

    /// The batches from the one with `offset` that end below `until` (of a cold range: also those behind), up to `max_bytes` but at least one.
    pub fn plan(&self, offset: i64, until: i64, max_bytes: usize) -> Plan {
        let mut plan = Plan::default();
        if offset >= until {
            return plan;
        }
        let in_memory_from = self.tail.front().map_or(i64::MAX, Batch::base_offset);
        if offset < in_memory_from
            && let Some(range) = self.cold_at(offset)
            && range.base_offset < in_memory_from
        {
            // What is in memory alone can lie in its holes.
            let volatile = self.volatile_at(offset).map(|batch| batch.base_offset);
            let volatile = volatile.filter(|base_offset| *base_offset > offset);
            plan.cold = Some(ColdRange {
                next_offset: volatile.map_or(range.next_offset, |v| range.next_offset.min(v)),
                ..*range
            });
            return plan;
        }
        let mut bytes = 0;
        // By its end: a log start within a batch makes a mark that is within it.
        let mut fits = |len: usize, last_offset: i64| {
            let first = bytes == 0;
            bytes += len;
            last_offset < until && (first || bytes <= max_bytes)
        };
        let mut next = offset;
        if offset < in_memory_from {
            for batch in self.batches.range(self.position_of(offset)..) {
                if batch.base_offset >= in_memory_from {
                    break;
                }
                if !fits(batch.batch_len as usize, batch.last_offset()) {
                    return plan;
                }
                next = batch.last_offset() + 1;
                plan.disk.push(*batch);
            }
        }
        let from = self.tail.partition_point(|b| b.last_offset() < next);
        for batch in self.tail.range(from..) {
            if !fits(batch.len(), batch.last_offset()) {
                break;
            }
            plan.memory.push(batch.clone());
        }
        plan
    }

    /// Bytes of the batches in the WAL of entries up to `through`.
    pub fn bytes_through(&self, through: u64) -> u64 {
        let due = self.batches.iter().take_while(|b| b.index <= through);
        due.map(|b| u64::from(b.batch_len)).sum()
    }

    /// What has to be sealed next: batches from `offset` on of entries up to `through`, up to `max_bytes` but at least one, from memory where
    /// they are there.
    pub fn plan_seal(
        &self,
        offset: i64,
        through: u64,
        max_bytes: usize,
    ) -> Vec<(BatchRef, Option<Batch>)> {
        let mut plan = Vec::new();
        let mut bytes = 0;
        for batch in self.batches.range(self.position_of(offset)..) {
            bytes += batch.batch_len as usize;
            if batch.index > through || bytes > max_bytes && !plan.is_empty() {
                break;
            }
            let place = self
                .tail
                .binary_search_by_key(&batch.base_offset, Batch::base_offset);
            plan.push((*batch, place.ok().and_then(|at| self.tail.get(at)).cloned()));
        }
        plan
    }

    /// Whether a batch is still in the WAL where it was.
    pub fn has(&self, batch: &BatchRef) -> bool {
        self.batches.get(self.position_of(batch.base_offset)) == Some(batch)
    }

    /// Moves the log start. Offsets that are reserved for what is only in memory count as there: when the log is replayed, that is gone.
    pub fn trim(&mut self, log_start: i64) -> Trimmed {
        let log_start = log_start.min(self.end.max(self.reserved));
        self.end = self.end.max(log_start);
        let mut gone = Trimmed::default();
        if log_start <= self.log_start {
            return gone;
        }
        self.log_start = log_start;
        self.transactions.trim(log_start);
        while let Some(range) = self.cold.pop_front_if(|r| r.next_offset <= log_start) {
            self.bytes = self.bytes.saturating_sub(range.bytes);
            gone.cold.push(range);
        }
        while let Some(batch) = self.batches.pop_front_if(|b| b.last_offset() < log_start) {
            self.bytes = self.bytes.saturating_sub(u64::from(batch.batch_len));
            gone.batches.push(batch);
        }
        while let Some(batch) = self.volatile.pop_front_if(|b| b.next_offset <= log_start) {
            self.bytes = self.bytes.saturating_sub(batch.bytes);
        }
        (gone.from_tail, gone.tail_bytes) = self.drop_tail(log_start);
        gone
    }

    /// Puts a range in the place of the hot batches that it covers, clipped to what fits; returns what it is now, and the batches. `None` if
    /// it does not fit at all.
    pub fn seal(&mut self, mut range: ColdRange) -> Option<(ColdRange, Vec<BatchRef>)> {
        let cold_end = self.cold.back().map_or(0, |r| r.next_offset);
        range.base_offset = range.base_offset.max(cold_end);
        range.next_offset = range.next_offset.min(self.end);
        // Nothing that is not in the segment may be left below it.
        if range.next_offset <= range.base_offset.max(self.log_start)
            || self
                .batches
                .front()
                .is_some_and(|b| b.base_offset < range.base_offset)
        {
            return None;
        }
        let before = self.batches.len();
        let mut sealed = Vec::new();
        while let Some(batch) = self
            .batches
            .pop_front_if(|b| b.last_offset() < range.next_offset)
        {
            self.bytes = self.bytes.saturating_sub(u64::from(batch.batch_len));
            sealed.push(batch);
        }
        // What waited for a store that did not answer may have been many times what waits from one seal to the next. Of that there is room for
        // twice as many: where it goes up and down as ever, nothing is given back and taken again.
        if self.batches.capacity() / 4 > before {
            self.batches.shrink_to(before * 2);
        }
        if let Some(batch) = self.batches.front() {
            range.next_offset = range.next_offset.min(batch.base_offset);
        }
        self.bytes = self.bytes.saturating_add(range.bytes);
        self.cold.push_back(range);
        Some((range, sealed))
    }

    /// Forgets what is in memory below an offset; returns how many batches and bytes that was.
    pub fn drop_tail(&mut self, below: i64) -> (usize, usize) {
        let (mut batches, mut bytes) = (0, 0);
        while let Some(batch) = self.tail.pop_front_if(|b| b.last_offset() < below) {
            batches += 1;
            bytes += batch.len();
        }
        (batches, bytes)
    }

    /// Puts a range in the place of what is older there: that is clipped to what is left of it, and the range to what is not newer. Below `sealed_to` it
    /// comes only in the place of others. With `is_empty` those leave and nothing comes. Returns what left and what came.
    pub fn lay_over(
        &mut self,
        range: ColdRange,
        sealed_to: i64,
        is_empty: bool,
    ) -> (Vec<ColdRange>, Vec<ColdRange>) {
        let meets = |other: &&ColdRange| {
            other.base_offset < range.next_offset && range.base_offset < other.next_offset
        };
        let is_older = |other: &ColdRange| other.segment < range.segment;
        let (older, newer): (Vec<ColdRange>, Vec<ColdRange>) =
            self.cold.iter().filter(meets).copied().partition(is_older);
        let mut places: Vec<(i64, i64)> = older
            .iter()
            .map(|o| (o.base_offset, o.next_offset))
            .collect();
        places.push((range.base_offset.max(sealed_to), range.next_offset));
        let clipped = |of: &ColdRange, (base_offset, next_offset): (i64, i64)| ColdRange {
            base_offset,
            next_offset,
            ..*of
        };
        let places = minus(&joined(places, &range), &newer).into_iter();
        let covering: Vec<ColdRange> = places.map(|place| clipped(&range, place)).collect();
        let mut came = Vec::new();
        for other in &older {
            let left = minus(&[(other.base_offset, other.next_offset)], &covering);
            came.extend(left.into_iter().map(|place| clipped(other, place)));
        }
        if !is_empty {
            came.extend(covering);
        }
        let stay = self
            .cold
            .iter()
            .filter(|r| !meets(r) || !is_older(r))
            .copied();
        let mut all: Vec<ColdRange> = stay.chain(came.iter().copied()).collect();
        all.sort_unstable_by_key(|r| r.base_offset);
        self.cold = all.into();
        (older, came)
    }

    /// Puts ranges in the place of those of some segments; returns what left and what came. `None`, and nothing is changed, if the new ones
    /// would stand where others are.
    pub fn replace(
        &mut self,
        leaving: &BTreeSet<SegmentId>,
        mut coming: Vec<ColdRange>,
    ) -> Option<(Vec<ColdRange>, Vec<ColdRange>)> {
        coming.retain(|r| r.next_offset > self.log_start && r.base_offset < r.next_offset);
        let leaves = |r: &ColdRange| leaving.contains(&r.segment);
        let stay = self.cold.iter().filter(|r| !leaves(r)).copied();
        let mut after: Vec<ColdRange> = stay.chain(coming.iter().copied()).collect();
        after.sort_unstable_by_key(|r| r.base_offset);
        let hot = self.batches.front().map_or(self.end, |b| b.base_offset);
        let ends = after.iter().skip(1).map(|r| r.base_offset).chain([hot]);
        if after.iter().zip(ends).any(|(r, end)| r.next_offset > end) {
            return None;
        }
        let left: Vec<ColdRange> = self.cold.iter().filter(|r| leaves(r)).copied().collect();
        self.cold = after.into();
        for range in &coming {
            self.bytes = self.bytes.saturating_add(range.bytes);
        }
        for range in &left {
            self.bytes = self.bytes.saturating_sub(range.bytes);
        }
        Some((left, coming))
    }
}

/// Places within a range, by offset: those that touch or overlap are one.
fn joined(mut places: Vec<(i64, i64)>, within: &ColdRange) -> Vec<(i64, i64)> {
    places.sort_unstable();
    let mut joined: Vec<(i64, i64)> = Vec::new();
    for (from, to) in places {
        let (from, to) = (from.max(within.base_offset), to.min(within.next_offset));
        match joined.last_mut() {
            _ if from >= to => {}
            Some((_, end)) if from <= *end => *end = to.max(*end),
            _ => joined.push((from, to)),
        }
    }
    joined
}

/// What of some places no range covers; the ranges are in order.
fn minus(places: &[(i64, i64)], ranges: &[ColdRange]) -> Vec<(i64, i64)> {
    let mut left = Vec::new();
    for (from, to) in places {
        let mut at = *from;
        for range in ranges.iter().filter(|r| r.next_offset > *from) {
            if range.base_offset >= *to {
                break;
            }
            if at < range.base_offset {
                left.push((at, range.base_offset));
            }
            at = at.max(range.next_offset);
        }
        if at < *to {
            left.push((at, *to));
        }
    }
    left
}

impl Partition {
    pub fn new(id: PartitionId, log: PartitionLog) -> Arc<Partition> {
        Arc::new(Partition {
            id,
            log: Mutex::new(log),
            waiters: Waiters::default(),
        })
    }

    /// Adds a waiter for a mark past `offset`; true if that holds already (or the partition is gone).
    pub fn wait(&self, mark: Mark, offset: i64, waiter: u64, signal: &Arc<Signal>) -> bool {
        self.waiters.add(mark, offset, waiter, signal);
        // Looked at after the waiter is in place, so that no commit can pass unseen between the two.
        let log = self.log.lock();
        log.gone || log.reached(mark) > offset
    }

    /// Wakes whoever waits for less.
    pub fn wake(&self, end: i64, last_stable: i64) {
        self.waiters.wake(self.id, Mark::End, end);
        self.waiters.wake(self.id, Mark::LastStable, last_stable);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Compacted;

    fn with_batches(log: &mut PartitionLog, count: i64) {
        for _ in 0..count {
            log.batches.push_back(BatchRef {
                base_offset: log.end,
                max_timestamp: 0,
                index: log.end as u64 + 1,
                frame_at: 0,
                body_len: 100,
                batch_at: 0,
                batch_len: 100,
                last_offset_delta: 0,
            });
            log.end += 1;
            log.bytes += 100;
        }
    }

    fn seal(log: &mut PartitionLog, count: i64) {
        let base_offset = log.cold.back().map_or(0, |range| range.next_offset);
        let range = ColdRange {
            segment: SegmentId(base_offset as u64),
            base_offset,
            next_offset: base_offset + count,
            max_timestamp: 0,
            bytes: 100 * count as u64,
            first_index: base_offset as u64 + 1,
            compacted: Compacted::Never,
        };
        let (_, sealed) = log.seal(range).unwrap();
        assert_eq!(sealed.len() as i64, count);
    }

    #[test]
    fn the_index_of_what_waited_for_a_store_that_was_away_is_given_back() {
        let mut log = PartitionLog::default();
        // As ever: room for what comes between two seals is kept.
        with_batches(&mut log, 1_000);
        let usual = log.batches.capacity();
        for _ in 0..10 {
            seal(&mut log, 1_000);
            with_batches(&mut log, 1_000);
            assert_eq!(log.batches.capacity(), usual);
        }
        // The store is away, and then back: sealed piece by piece.
        with_batches(&mut log, 200_000);
        assert!(log.batches.capacity() >= 200_000);
        while log.batches.len() > 1_000 {
            seal(&mut log, 1_000);
        }
        for _ in 0..2 {
            seal(&mut log, 1_000);
            with_batches(&mut log, 1_000);
        }
        assert!(
            log.batches.capacity() <= 8_000,
            "{}",
            log.batches.capacity()
        );
        assert_eq!(log.batches.len(), 1_000);
        assert_eq!(log.position_of(log.end - 1), 999);
    }
}
