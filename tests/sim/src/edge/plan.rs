//! What a seed is about: its lanes, its sizes, its faults.

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};
use record::Compression;
use store::{Config, Eviction, LaneConfig};

/// Bytes that no lane of a run ever has.
pub const UNBOUNDED: u64 = 1 << 30;

/// See the module.
#[derive(Debug, Clone)]
pub struct Plan {
    pub lanes: Vec<LaneConfig>,
    pub segment_bytes: u64,
    pub random: u64,
    pub lives: u32,
    /// Steps of one life, at most.
    pub steps: u32,
    pub streams: u8,
    /// Largest value of a message, in bytes.
    pub value: usize,
    /// How often, of 1, a message needs no acknowledgement.
    pub unacknowledged: f64,
    /// How often the core takes something, against other work.
    pub drains: f64,
    /// How often, of 1, the core will never take a message.
    pub poison: f64,
    /// A fault of the disk comes in some lives: an operation or a sync fails.
    pub faults: bool,
    /// The file system is full in some lives.
    pub full: bool,
    /// Bits flip, and files go, between some lives; or the ledger does not open.
    pub damage: bool,
    /// The edge is enrolled again in some lives.
    pub enrols: bool,
    /// Messages are stamped while the time is not known.
    pub blind: bool,
}

impl Plan {
    pub fn draw(rng: &mut StdRng) -> Plan {
        let names = ["data", "alarms", "bulk"];
        let lanes = names[..rng.random_range(1..=3)].iter().map(|name| {
            let eviction = [Eviction::Oldest, Eviction::Newest, Eviction::Reject];
            let compression = [Compression::None, Compression::Lz4, Compression::Zstd];
            LaneConfig {
                max_bytes: if rng.random_bool(0.5) {
                    UNBOUNDED
                } else {
                    rng.random_range(4_000..20_000)
                },
                max_age: rng
                    .random_bool(0.2)
                    .then(|| Duration::from_millis(rng.random_range(200..2_000))),
                eviction: eviction[rng.random_range(0..3)],
                compression: compression[rng.random_range(0..3)],
                ..LaneConfig::new(name)
            }
        });
        let mut lanes: Vec<LaneConfig> = lanes.collect();
        // The two halves of a lane.
        if lanes.len() > 1 && rng.random_bool(0.5) {
            let max_bytes = rng.random_range(12_000..30_000);
            let name = lanes[0].name.clone();
            lanes[0].max_bytes = max_bytes;
            lanes[1].max_bytes = max_bytes;
            lanes[1].eviction = lanes[0].eviction;
            lanes[1].shares = Some(name);
        }
        let (faults, damage) = (rng.random_bool(0.2), rng.random_bool(0.2));
        Plan {
            lanes,
            segment_bytes: rng.random_range(300..4_000),
            random: rng.random(),
            lives: rng.random_range(5..12),
            steps: rng.random_range(20..300),
            streams: rng.random_range(1..4),
            value: rng.random_range(1..600),
            unacknowledged: [0.0, 0.0, 0.3][rng.random_range(0..3)],
            drains: rng.random_range(0.02..1.0),
            poison: if rng.random_bool(0.3) { 0.02 } else { 0.0 },
            faults,
            full: rng.random_bool(0.2),
            damage,
            // Without the ledger nobody knows what was set aside when it was enrolled.
            enrols: !faults && !damage && rng.random_bool(0.2),
            blind: rng.random_bool(0.2),
        }
    }

    pub fn config(&self) -> Config {
        Config {
            lanes: self.lanes.clone(),
            session_bytes: 1 << 30,
            segment_bytes: self.segment_bytes,
            random: self.random,
        }
    }
}
