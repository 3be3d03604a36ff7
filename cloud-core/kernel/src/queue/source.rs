//! One partition of a queue.

use std::collections::BTreeSet;

use roaring::RoaringTreemap;

use crate::state::{SourceState, offset_u64};

#[derive(Debug)]
pub(super) struct Source {
    /// Next offset to look at.
    pub scanned: i64,
    /// Settled before this life of the queue, at or above `scanned`.
    settled: RoaringTreemap,
    pub ready: RoaringTreemap,
    /// Acquired and not settled.
    pub out: BTreeSet<i64>,
    /// Everything at or above has not been handed out in this life.
    pub delivered_to: i64,
    /// What is below may have been handed out in an earlier life.
    pub uncertain_below: i64,
    /// Low water and `delivered_to` as last written.
    pub persisted: (i64, i64),
    /// Its disk failed: not read again until told to.
    pub failed: bool,
}

impl Source {
    pub fn new(state: SourceState, uncertain_below: i64) -> Source {
        Source {
            scanned: state.low_water,
            settled: state.settled,
            ready: RoaringTreemap::new(),
            out: BTreeSet::new(),
            delivered_to: state.delivered_to,
            uncertain_below,
            persisted: (state.low_water, state.delivered_to),
            failed: false,
        }
    }

    pub fn first_ready(&self) -> Option<i64> {
        self.ready.min().map(u64::cast_signed)
    }

    /// Everything below is settled or was not for the queue.
    pub fn low_water(&self) -> i64 {
        let ready = self.first_ready().unwrap_or(self.scanned);
        let out = self.out.first().copied().unwrap_or(self.scanned);
        ready.min(out).min(self.scanned)
    }

    pub fn is_settled(&self, offset: i64) -> bool {
        self.settled.contains(offset_u64(offset))
    }

    /// The log was looked through up to `next`; `found` is for the queue.
    pub fn looked(&mut self, next: i64, found: &RoaringTreemap) {
        self.ready |= found;
        self.scanned = self.scanned.max(next);
        self.settled.remove_range(..offset_u64(self.scanned));
    }

    pub fn take(&mut self, offset: i64) {
        self.ready.remove(offset_u64(offset));
        self.out.insert(offset);
        self.delivered_to = self.delivered_to.max(offset + 1);
    }

    pub fn put_back(&mut self, offset: i64) {
        if self.out.remove(&offset) {
            self.ready.insert(offset_u64(offset));
        }
    }

    /// The log begins later now; returns how many ready records went with that.
    pub fn trimmed(&mut self, log_start: i64) -> u64 {
        let before = self.ready.len();
        self.ready.remove_range(..offset_u64(log_start));
        self.looked(log_start, &RoaringTreemap::new());
        before - self.ready.len()
    }

    /// Records that cannot be read are passed over; returns how many that were ready.
    pub fn pass_over(&mut self, first: i64, last: i64) -> u64 {
        if self.scanned >= first && self.scanned <= last {
            self.looked(last + 1, &RoaringTreemap::new());
        }
        self.ready
            .remove_range(offset_u64(first)..=offset_u64(last))
    }
}
