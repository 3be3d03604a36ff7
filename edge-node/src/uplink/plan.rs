//! How the logs of the outbox are sent: one lane of the connection each.

use std::collections::HashMap;
use std::sync::Arc;

use store::{Lane, Store};
use sync::schedule::LaneShare;
use sync_quic::LaneInfo;

use crate::lanes;

/// One log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanePlan {
    pub lane: Lane,
    pub name: String,
    /// As it was set, 0 to 9.
    pub priority: u8,
    /// Its place in line: the priority, and the live half of a fresh-first lane before everything else of it.
    pub rank: u8,
    pub rate: Option<u64>,
    /// The log that has the rate together with this one: of a fresh-first lane the live half.
    pub rate_of: Lane,
    pub link_compression: bool,
}

/// Those of the configuration, and those that are not in it any more as long as something is in them.
pub fn plan(store: &Store, configured: &[lanes::Lane]) -> Vec<LanePlan> {
    let mut plans = Vec::new();
    let found = store.lane_stats();
    let numbers: HashMap<Arc<str>, Lane> = found
        .iter()
        .map(|(info, _)| (info.name.clone(), info.lane))
        .collect();
    for (info, stats) in found {
        let named = lanes::of_log(configured, &info.name);
        if named.is_none()
            && stats.messages == 0
            && !store.gaps().iter().any(|gap| gap.lane == info.lane)
        {
            continue;
        }
        let is_live = named.is_some_and(|lane| lane.fresh_first && lane.name == *info.name);
        let priority = named.map_or(lanes::PRIORITY, |lane| lane.priority);
        plans.push(LanePlan {
            lane: info.lane,
            name: info.name.to_string(),
            priority,
            rank: priority * 2 + u8::from(is_live),
            rate: named.and_then(|lane| lane.rate),
            rate_of: named
                .and_then(|lane| numbers.get(&*lane.name).copied())
                .unwrap_or(info.lane),
            link_compression: named.is_some_and(|lane| lane.link_compression),
        });
    }
    // What is too much for one connection waits for the next: those that are not configured any more come last.
    plans.sort_by_key(|plan| {
        !configured
            .iter()
            .any(|lane| plan.name.starts_with(&lane.name))
    });
    plans.truncate(sync::limits::MAX_LANES);
    plans
}

impl LanePlan {
    pub fn info(&self) -> LaneInfo {
        LaneInfo {
            number: self.lane.0,
            name: self.name.clone(),
            priority: self.priority,
            link_compression: self.link_compression,
        }
    }

    pub fn share(&self) -> LaneShare {
        LaneShare {
            number: self.lane.0,
            rank: self.rank,
            rate: self.rate,
            rate_of: self.rate_of.0,
        }
    }
}
