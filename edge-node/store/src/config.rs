//! The bounds of a store.

/// Bounds of a store, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// The outbox refuses what does not fit.
    pub outbox_bytes: u64,
    /// A session that is further behind than this loses the oldest of what it has not read.
    pub session_bytes: u64,
    pub segment_bytes: u64,
    /// 64 random bits: made the producer id at the first start.
    pub random: u64,
}

impl Config {
    pub fn new(random: u64) -> Config {
        Config {
            outbox_bytes: 1024 * 1024 * 1024,
            session_bytes: 256 * 1024 * 1024,
            segment_bytes: 4 * 1024 * 1024,
            random,
        }
    }
}
