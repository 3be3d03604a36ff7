//! What a seed is about: every seed draws its own sizes, its own mix of work and its own faults, so that rare combinations come up.

use kernel::KernelConfig;
use rand::{RngExt, rngs::StdRng};

use crate::cold::ColdWeather;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    Write,
    Read,
    Wait,
    Maintain,
    Acquire,
    Settle,
    Release,
    Sources,
    Purge,
    Rest,
    Seal,
    SealAll,
    Tend,
    Rewrite,
    Expire,
    Switch,
}

const WORK: &[(Work, u32)] = &[
    (Work::Write, 40),
    (Work::Read, 15),
    (Work::Wait, 3),
    (Work::Maintain, 6),
    (Work::Acquire, 8),
    (Work::Settle, 8),
    (Work::Release, 2),
    (Work::Sources, 2),
    (Work::Purge, 1),
    (Work::Rest, 2),
    (Work::Seal, 12),
    (Work::SealAll, 3),
    (Work::Tend, 6),
    (Work::Rewrite, 8),
    (Work::Expire, 1),
    (Work::Switch, 1),
];

/// A kind of command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Append,
    Put,
    Delete,
    Commit,
    Forget,
    Trim,
    Create,
    Drop,
    Alter,
    Grow,
    Transact,
    Forgive,
    Advance,
    Ids,
}

const KINDS: &[(Kind, u32)] = &[
    (Kind::Append, 70),
    (Kind::Put, 8),
    (Kind::Delete, 4),
    (Kind::Commit, 6),
    (Kind::Forget, 1),
    (Kind::Trim, 4),
    (Kind::Create, 5),
    (Kind::Drop, 1),
    (Kind::Alter, 2),
    (Kind::Grow, 1),
    (Kind::Transact, 25),
    (Kind::Forgive, 1),
    (Kind::Ids, 1),
    (Kind::Advance, 3),
];

/// How the lives of a seed end.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    pub power_cut: f64,
    pub sync_failure: f64,
    pub io_error: f64,
    pub full: f64,
    pub crash_in_recovery: f64,
    /// The cold store is out for a while.
    pub outage: f64,
    /// A bit of an object flips.
    pub damage: f64,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Plan {
    pub config: KernelConfig,
    pub lives: u32,
    pub steps: u32,
    pub in_flight: usize,
    work: Vec<(Work, u32)>,
    kinds: Vec<(Kind, u32)>,
    pub faults: Faults,
    /// Largest value of a record, in bytes, and how often one is that large.
    pub value_bytes: usize,
    pub large_values: f64,
    /// How often an entry says in a table that it was there.
    pub marks: f64,
    /// How often a stream promises less than to sync.
    pub weak_streams: f64,
    /// How often a stream promises nothing but memory.
    pub volatile_streams: f64,
    /// How often the clock moves, and how far, in microseconds.
    pub time: f64,
    pub time_us: u64,
    pub slow_disk_us: u64,
    pub cold: ColdWeather,
    /// How often a stream keeps only the newest record of each key.
    pub compacted_streams: f64,
    /// There is a place for dead letters.
    pub dead_letters: bool,
    /// What the owners of queues demand: one of these.
    pub max_deliveries: [Option<u32>; 2],
    pub lease_ms: [Option<u64>; 2],
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(rng: &mut StdRng) -> Plan {
        let wal_file_bytes = *pick(rng, &[4096, 8192, 16_384, 65_536]);
        let config = KernelConfig {
            wal_file_bytes,
            wal_bytes: wal_file_bytes * *pick(rng, &[4, 8, 30, 1000]),
            wal_stall_ms: *pick(rng, &[0, 100, 10_000]),
            tail_bytes: *pick(rng, &[0, 500, 3000, 30_000, 1 << 20]),
            checkpoint_wal_bytes: *pick(rng, &[2000, 6000, 20_000, 200_000]),
            group_bytes: *pick(rng, &[4096, 16_384, 1 << 20]),
            queue_bytes: *pick(rng, &[20_000, 200_000, 4 << 20, 4 << 20]),
            segment_bytes: *pick(rng, &[1000, 5000, 30_000, 1 << 27]),
            seal_age_ms: *pick(rng, &[0, 1000, 60_000, 600_000]),
            orphan_grace_ms: *pick(rng, &[0, 60_000, 3_600_000]),
            compaction_bytes: *pick(rng, &[100, 200, 1 << 26]),
            cold_cache_memory_bytes: *pick(rng, &[0, 3000, 1 << 26]),
            cold_cache_disk_bytes: *pick(rng, &[0, 20_000]),
            cold_readahead_bytes: *pick(rng, &[0, 5000, 1 << 23]),
            reader_threads: 0,
            ..KernelConfig::default()
        };
        let damage = rng.random_bool(0.15);
        let chance = |rng: &mut StdRng, often: f64| {
            if rng.random_bool(0.5) { often } else { 0.0 }
        };
        Plan {
            config,
            lives: rng.random_range(2..5),
            steps: *pick(rng, &[100, 300, 600]),
            in_flight: *pick(rng, &[1, 4, 12, 40]),
            work: reweighed(rng, WORK)
                .into_iter()
                // What queues owe is not known when records are lost.
                .filter(|(work, _)| !damage || *work != Work::Sources)
                .collect(),
            kinds: reweighed(rng, KINDS),
            faults: Faults {
                power_cut: *pick(rng, &[0.2, 0.7, 1.0]),
                sync_failure: chance(rng, 0.3),
                io_error: chance(rng, 0.2),
                full: chance(rng, 0.3),
                crash_in_recovery: chance(rng, 0.4),
                outage: chance(rng, 0.3),
                damage: if damage { 0.5 } else { 0.0 },
            },
            value_bytes: *pick(rng, &[20, 300, 300, 2000]),
            large_values: *pick(rng, &[0.0, 0.02]),
            marks: *pick(rng, &[0.0, 0.3, 0.8]),
            weak_streams: *pick(rng, &[0.0, 0.0, 0.3, 0.7]),
            volatile_streams: *pick(rng, &[0.0, 0.0, 0.3]),
            time: *pick(rng, &[0.01, 0.1]),
            time_us: *pick(rng, &[1000, 1_000_000, 60_000_000]),
            slow_disk_us: *pick(rng, &[0, 100, 500_000]),
            cold: ColdWeather {
                error: *pick(rng, &[0.0, 0.02, 0.2]),
                slow_us: *pick(rng, &[0, 1000, 2_000_000]),
                lag_us: *pick(rng, &[0, 10_000_000, 2_000_000_000]),
                local: rng.random_bool(0.5),
            },
            compacted_streams: *pick(rng, &[0.0, 0.5, 0.9]),
            dead_letters: rng.random_bool(0.6),
            max_deliveries: [None, *pick(rng, &[None, Some(1), Some(2), Some(4)])],
            lease_ms: [None, *pick(rng, &[None, Some(0), Some(20), Some(10_000)])],
        }
    }

    pub fn work(&self, rng: &mut StdRng) -> Work {
        weighed(rng, &self.work)
    }

    pub fn kind(&self, rng: &mut StdRng) -> Kind {
        weighed(rng, &self.kinds)
    }
}

/// Any one of these.
pub fn pick<'a, T>(rng: &mut StdRng, from: &'a [T]) -> &'a T {
    &from[rng.random_range(0..from.len())]
}

/// Some of the weights are another one in this seed. The first stays: without it nothing happens.
fn reweighed<T: Copy>(rng: &mut StdRng, weights: &[(T, u32)]) -> Vec<(T, u32)> {
    let reweigh = |(at, (item, weight)): (usize, &(T, u32))| {
        let factor = if at == 0 {
            2
        } else {
            *pick(rng, &[0, 1, 2, 2, 2, 4, 10])
        };
        (*item, weight * factor)
    };
    weights.iter().enumerate().map(reweigh).collect()
}

fn weighed<T: Copy>(rng: &mut StdRng, weights: &[(T, u32)]) -> T {
    let total: u32 = weights.iter().map(|(_, weight)| weight).sum();
    let mut at = rng.random_range(0..total);
    for (item, weight) in weights {
        match at.checked_sub(*weight) {
            Some(rest) => at = rest,
            None => return *item,
        }
    }
    weights[0].0
}
