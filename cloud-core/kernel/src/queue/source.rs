//! One partition of a queue.

use std::collections::{BTreeMap, HashMap};

use roaring::RoaringTreemap;

use super::types::HolderId;
use crate::state::{SourceState, offset_u64};

/// What somebody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    pub holder: HolderId,
    /// Tells this acquisition from all others of the record.
    pub epoch: u64,
    /// When it ends by itself, on the clock's stop watch, milliseconds.
    pub until: Option<u64>,
    pub state: LeaseState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeaseState {
    /// Taken for somebody who has no answer yet: not handed out.
    Coming,
    Held,
    /// Its end is being written; what comes of that is not known yet.
    Ending,
    /// The same, and the holder is gone: if the write fails the record is put back.
    EndingAlone,
}

#[derive(Debug)]
pub(super) struct Source {
    /// Next offset to look at.
    pub scanned: i64,
    /// Where the log began when that was last looked at.
    log_start: i64,
    /// Settled before this life of the queue, at or above `scanned`.
    settled: RoaringTreemap,
    pub ready: RoaringTreemap,
    /// Purged; their settlement is being written.
    pub purged: RoaringTreemap,
    /// Acquired and not settled.
    pub out: BTreeMap<i64, Lease>,
    /// What of `ready` and `out` has been handed out before in this life...
    handed: RoaringTreemap,
    /// ... and how often beyond the first time.
    again: HashMap<i64, u32>,
    /// Everything at or above has not been handed out in this life.
    pub delivered_to: i64,
    /// What is below may have been handed out in an earlier life.
    pub uncertain_below: i64,
    /// Low water and `delivered_to` as the log has them, durably.
    pub persisted: (i64, i64),
    /// Its disk failed: not read again until told to.
    pub failed: bool,
    /// How many of `ready` are in the count over all sources.
    pub counted: u64,
}

/// What retention took from a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trimmed {
    /// Ready records that are gone.
    pub records: u64,
    /// First offset that is gone.
    pub first: i64,
    /// Where the log begins now.
    pub log_start: i64,
    /// Records were removed that nobody had looked at: maybe more of them were for the queue.
    pub unseen: bool,
}

impl Source {
    pub fn new(state: SourceState, uncertain_below: i64) -> Source {
        Source {
            scanned: state.low_water,
            log_start: 0,
            settled: state.settled,
            ready: RoaringTreemap::new(),
            purged: RoaringTreemap::new(),
            out: BTreeMap::new(),
            handed: RoaringTreemap::new(),
            again: HashMap::new(),
            // What an earlier life may have handed out stays so after the next orderly stop.
            delivered_to: state.delivered_to.max(uncertain_below),
            uncertain_below,
            persisted: (state.low_water, state.delivered_to),
            failed: false,
            counted: 0,
        }
    }

    pub fn first_ready(&self) -> Option<i64> {
        self.ready.min().map(u64::cast_signed)
    }

    /// Everything below is durably settled, or was not for the queue.
    pub fn low_water(&self) -> i64 {
        self.low_water_without(&RoaringTreemap::new())
    }

    /// The low-water mark once `leaving` is durably settled. What others are still writing does not count as settled.
    pub fn low_water_without(&self, leaving: &RoaringTreemap) -> i64 {
        let bounds = [
            self.ready.min(),
            // Few of them: those at the front that leave are skipped, not all that is out.
            (self.out.keys().map(|offset| offset_u64(*offset))).find(|o| !leaving.contains(*o)),
            (&self.purged - leaving).min(),
        ];
        let bounds = bounds.into_iter().flatten().map(u64::cast_signed);
        bounds.fold(self.scanned, i64::min)
    }

    /// The log was looked through up to `next`; of it, `found` is for the queue unless it is settled. Returns how much is.
    pub fn looked(&mut self, next: i64, mut found: RoaringTreemap) -> u64 {
        found -= &self.settled;
        let new = found.len();
        self.ready |= found;
        self.scanned = self.scanned.max(next);
        self.settled.remove_range(..offset_u64(self.scanned));
        new
    }

    /// Hands a record out; returns how often it has been, this time included.
    pub fn take(&mut self, offset: i64, lease: Lease) -> u32 {
        self.ready.remove(offset_u64(offset));
        self.out.insert(offset, lease);
        self.delivered_to = self.delivered_to.max(offset + 1);
        if !self.handed.insert(offset_u64(offset)) {
            let again = self.again.entry(offset).or_insert(0);
            *again = again.saturating_add(1);
        }
        self.deliveries(offset)
    }

    /// How often a record has been handed out in this life.
    pub fn deliveries(&self, offset: i64) -> u32 {
        let again = self.again.get(&offset).copied().unwrap_or(0);
        u32::from(self.handed.contains(offset_u64(offset))).saturating_add(again)
    }

    /// What was taken did not come to be handed out.
    pub fn not_handed(&mut self, offset: i64) {
        match self.again.get_mut(&offset) {
            Some(again) if *again > 1 => *again -= 1,
            Some(_) => drop(self.again.remove(&offset)),
            None => drop(self.handed.remove(offset_u64(offset))),
        }
    }

    /// Puts a record back in its place; false when the log does not have it any more.
    pub fn put_back(&mut self, offset: i64) -> bool {
        self.out.remove(&offset);
        if offset < self.log_start {
            self.forget_deliveries(offset);
            return false;
        }
        self.ready.insert(offset_u64(offset));
        true
    }

    /// A record is settled, durably.
    pub fn end(&mut self, offset: i64) {
        self.out.remove(&offset);
        self.forget_deliveries(offset);
    }

    fn forget_deliveries(&mut self, offset: i64) {
        self.handed.remove(offset_u64(offset));
        self.again.remove(&offset);
    }

    /// Takes everything that is ready, to be settled.
    pub fn purge(&mut self) -> RoaringTreemap {
        let ready = std::mem::take(&mut self.ready);
        self.purged |= &ready;
        ready
    }

    /// What became of the settlement of purged records.
    pub fn purge_ended(&mut self, offsets: RoaringTreemap, durable: bool) {
        self.purged -= &offsets;
        if durable {
            self.handed -= &offsets;
            let handed = &self.handed;
            self.again
                .retain(|offset, _| handed.contains(offset_u64(*offset)));
        } else {
            self.ready |= offsets;
        }
    }

    /// Whether the log begins later than when that was last looked at.
    pub fn begins_before(&self, log_start: i64) -> bool {
        self.log_start < log_start
    }

    /// Follows the log start; says what went with it that was not settled.
    pub fn trimmed(&mut self, log_start: i64) -> Option<Trimmed> {
        if !self.begins_before(log_start) {
            return None;
        }
        let first = self.low_water();
        self.log_start = log_start;
        let records = self.ready.remove_range(..offset_u64(log_start));
        let unseen = self.scanned < log_start;
        self.looked(log_start, RoaringTreemap::new());
        // What is out is still counted: its holder may yet settle it.
        let out: Vec<u64> = self
            .out
            .range(..log_start)
            .map(|(o, _)| offset_u64(*o))
            .collect();
        self.handed.remove_range(..offset_u64(log_start));
        self.handed.extend(out);
        let handed = &self.handed;
        self.again
            .retain(|offset, _| handed.contains(offset_u64(*offset)));
        (records > 0 || unseen).then_some(Trimmed {
            records,
            first,
            log_start,
            unseen,
        })
    }

    /// Records that cannot be read are passed over; returns how many that were ready.
    pub fn pass_over(&mut self, first: i64, last: i64) -> u64 {
        if self.scanned >= first && self.scanned <= last {
            self.looked(last + 1, RoaringTreemap::new());
        }
        self.ready
            .remove_range(offset_u64(first)..=offset_u64(last))
    }

    /// About how much memory this takes, in bytes.
    pub fn bytes(&self) -> usize {
        let bitmaps = [&self.settled, &self.ready, &self.purged, &self.handed];
        bitmaps.map(RoaringTreemap::serialized_size).iter().sum::<usize>()
            // A B-tree is at least half full; a hash map, too.
            + self.out.len() * 2 * size_of::<(i64, Lease)>()
            + self.again.len() * 2 * size_of::<(i64, u32)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> Lease {
        Lease {
            holder: HolderId(1),
            epoch: 1,
            until: None,
            state: LeaseState::Held,
        }
    }

    #[test]
    fn ten_million_ready_records_cost_little_whatever_the_selector() {
        for every in [2, 1000] {
            let mut source = Source::new(SourceState::default(), 0);
            let found = RoaringTreemap::from_sorted_iter((0..10_000_000).map(|n| n * every));
            source.looked(10_000_000 * 1000, found.unwrap());
            assert_eq!(source.ready.len(), 10_000_000);
            assert!(
                source.bytes() < 64 << 20,
                "every {every}: {}",
                source.bytes()
            );
            // What is taken is paid for, what waits is not paid for again.
            let before = source.bytes();
            for n in 0..1000 {
                source.take(n * every as i64, lease());
            }
            assert!(source.bytes() < before + 1000 * 256);
        }
    }

    #[test]
    fn the_mark_counts_only_on_what_is_durable() {
        let mut source = Source::new(SourceState::default(), 0);
        source.looked(10, RoaringTreemap::from_iter(0..10));
        (0..4).for_each(|n| {
            source.take(n, lease());
        });
        let leaving = RoaringTreemap::from_iter([0, 1]);
        assert_eq!(source.low_water_without(&leaving), 2);
        assert_eq!(source.low_water(), 0);
        source.end(0);
        source.end(1);
        assert_eq!(source.low_water(), 2);
        let purged = source.purge();
        assert_eq!(source.low_water_without(&purged), 2);
        source.end(2);
        source.end(3);
        assert_eq!(source.low_water(), 4);
        source.purge_ended(purged, false);
        assert_eq!((source.low_water(), source.ready.len()), (4, 6));
    }
}
