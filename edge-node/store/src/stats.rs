//! What a store tells of itself, for metrics.

/// What the store looks like now; counts are since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub messages_in: u64,
    pub messages_down: u64,
    /// Messages that the core has not acknowledged.
    pub outbox_messages: u64,
    /// Bytes of segments that hold them.
    pub outbox_bytes: u64,
    /// Bytes of all segments.
    pub disk_bytes: u64,
    pub payload_bytes: u64,
    pub bytes_written: u64,
    pub syncs: u64,
    pub refused: u64,
    pub damaged: u64,
    /// Bytes of incomplete writes that were cut off when the store was opened.
    pub cut: u64,
    /// Segments that were set aside when the store was opened.
    pub set_aside: u64,
    pub quarantined: u64,
    pub sessions_lagging: u64,
}

/// What a lane of the outbox looks like now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// Stored since the start.
    pub messages_in: u64,
    /// Messages that the core has not acknowledged, and bytes of the segments that hold them.
    pub messages: u64,
    pub bytes: u64,
    /// Bytes of all its segments: also of those that a local session has not read.
    pub disk_bytes: u64,
}
