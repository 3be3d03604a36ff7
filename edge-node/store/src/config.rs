//! The bounds of a store.

use std::time::Duration;

use record::Compression;

use crate::limits;

/// What happens to a lane that has reached its bound on bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Eviction {
    /// The oldest messages go, and are reported to the core as a gap.
    Oldest,
    /// The message that comes is dropped, counted, and reported to the core as a gap.
    Newest,
    /// The message that comes is refused: [`crate::WriteError::Full`].
    #[default]
    Reject,
}

/// The name of the lane of what only local readers get. Nothing of it is for the core: it lets go of what no session needs.
pub const LOCAL: &str = "local";

/// One lane of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneConfig {
    /// Also the name of its directory: 1 to 64 of `a-z A-Z 0-9 . _ -`, not beginning with a dot. See [`is_lane_name`].
    pub name: String,
    /// Most bytes of segments.
    pub max_bytes: u64,
    /// The lane whose bound on bytes holds for both together: then it is what this one has that goes first.
    pub shares: Option<String>,
    /// What is older is evicted, to within a quarter of this time. `None`: nothing is too old.
    pub max_age: Option<Duration>,
    pub eviction: Eviction,
    /// Of the batches, once and for all: a Kafka consumer gets these bytes. Where it does not help, a batch is left as it is.
    pub compression: Compression,
    /// How long a message may wait for others, so that they are one batch. Whoever published it waits as long, and this much more.
    pub linger: Duration,
}

impl LaneConfig {
    pub fn new(name: &str) -> LaneConfig {
        LaneConfig {
            name: name.to_owned(),
            max_bytes: 1024 * 1024 * 1024,
            shares: None,
            max_age: None,
            eviction: Eviction::Reject,
            compression: Compression::None,
            linger: Duration::ZERO,
        }
    }
}

/// Whether a lane can be called that.
pub fn is_lane_name(name: &str) -> bool {
    (1..=limits::MAX_LANE_NAME).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c))
}

/// Bounds of a store, in bytes.
#[derive(Debug, Clone)]
pub struct Config {
    /// 1 to [`limits::MAX_LANES`], each name once. Their order means nothing here.
    pub lanes: Vec<LaneConfig>,
    /// A session that is further behind than this loses the oldest of what it has not read.
    pub session_bytes: u64,
    pub segment_bytes: u64,
    /// 64 random bits: made the producer id at the first start, and where a fresh one is needed.
    pub random: u64,
}

impl Config {
    /// One lane, `data`.
    pub fn new(random: u64) -> Config {
        Config {
            lanes: vec![LaneConfig::new("data")],
            session_bytes: 256 * 1024 * 1024,
            segment_bytes: 4 * 1024 * 1024,
            random,
        }
    }
}
