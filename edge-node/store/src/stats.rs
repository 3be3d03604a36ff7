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
    /// Segments, values of the ledger, and ledgers that were set aside when the store was opened.
    pub set_aside: u64,
    /// Values of the ledger whose checksum was wrong when they were read since then.
    pub damaged_values: u64,
    /// Ranges of which the core does not know yet that they are missing.
    pub gaps: u64,
    /// The file system is full: messages are refused until there is room again.
    pub disk_full: bool,
    /// Bytes that this process had the system write to disks, the ledger's and the file system's rounding to pages included; 0 where the
    /// system does not say. Only the store writes.
    pub device_bytes: u64,
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
    /// Messages that the lane's bounds cost since the start: evicted before the core had them, or not taken by `newest`.
    pub evicted: u64,
    /// Those of `evicted` that were not taken, and so are not in `messages_in`.
    pub dropped: u64,
}

impl Stats {
    /// Bytes written: what the system says, but no less than what the logs wrote.
    pub fn worn_bytes(&self) -> u64 {
        self.device_bytes.max(self.bytes_written)
    }
}

/// `write_bytes` of `/proc/self/io`: what was made dirty in the page cache or written, and is or will be on a disk.
pub(crate) fn device_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.trim().parse().ok())
        .unwrap_or(0)
}
