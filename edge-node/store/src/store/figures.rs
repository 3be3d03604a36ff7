//! What the store tells of itself.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{LaneInfo, LaneLog, Store};
use crate::gap::records_between;
use crate::ledger::Ledger;
use crate::stats::{self, LaneStats, Stats};

impl Store {
    pub fn stats(&self) -> Stats {
        let inner = &self.inner;
        let count = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let mut stats = Stats {
            messages_down: count(&inner.inbox.counters().records),
            cut: self.cut,
            set_aside: self.set_aside.into(),
            quarantined: count(&self.quarantine.frames),
            sessions_lagging: count(&inner.sessions_lagging),
            gaps: inner.gaps.all().len() as u64,
            damaged_values: inner.ledger.damaged(),
            disk_full: inner.space.is_full(),
            device_bytes: stats::device_bytes(),
            ..Stats::default()
        };
        for (_, log) in inner.logs() {
            let counters = log.counters();
            stats.disk_bytes += log.bytes();
            stats.payload_bytes += count(&counters.payload_bytes);
            stats.bytes_written += count(&counters.bytes_written);
            stats.syncs += count(&counters.syncs);
            stats.refused += count(&counters.refused);
            stats.damaged += count(&counters.damaged);
        }
        for lane in &inner.lanes {
            let lane = lane.stats();
            stats.messages_in += lane.messages_in;
            stats.outbox_messages += lane.messages;
            stats.outbox_bytes += lane.bytes;
        }
        stats
    }

    /// What one lane looks like, in the order of [`Store::lanes`].
    pub fn lane_stats(&self) -> Vec<(LaneInfo, LaneStats)> {
        let lanes = self.inner.lanes.iter().filter(|lane| !lane.is_local());
        lanes
            .map(|lane| (lane.info.clone(), lane.stats()))
            .collect()
    }
}

impl LaneLog {
    fn stats(&self) -> LaneStats {
        let uplink = self.sent();
        let messages = records_between(uplink.position, self.log.end().position);
        let dropped = (self.log.dropped().records).saturating_sub(self.dropped_before);
        LaneStats {
            messages_in: self.log.counters().records.load(Ordering::Relaxed),
            messages,
            bytes: if messages == 0 {
                0
            } else {
                self.log.bytes_from(uplink.position)
            },
            disk_bytes: self.log.bytes(),
            evicted: self.evicted.load(Ordering::Relaxed) + dropped,
            dropped,
        }
    }
}
