//! Every limit of this front end.

/// Most messages that one write to the kernel carries. A retained or QoS 2 message is two commands of the entry, so this
/// stays well below `kernel::limits::MAX_ENTRY_COMMANDS`.
pub const GROUP_MESSAGES: usize = 4096;

/// Bytes of messages after which a group is full, over all partitions. Each of its batches is at most this long, or
/// one message: well within what Kafka consumers accept by default (`fetch.max.bytes`).
pub const GROUP_BYTES: usize = 1024 * 1024;

/// Bytes of messages that may wait to be written, over all streams. A publish beyond it is refused (0x97, quota exceeded).
pub const PENDING_BYTES: usize = 256 * 1024 * 1024;

/// What a waiting message is counted with beside its own bytes.
pub const PENDING_OVERHEAD: usize = 256;

/// Bytes of the messages that wait to be published later, with topics, properties and keys: they are in memory, and read again at each start. As much
/// as may wait to be written. One more is refused (0x97).
pub const DELAYED_BYTES: u64 = 256 * 1024 * 1024;

/// Sessions are written under one of this many locks (see `sessions.rs`): about 3 MB. Those that share one are written one after the other, a sync
/// for each, so that there are about as many as sessions that end or begin together.
pub const SESSION_LOCKS: usize = 65_536;

/// Rows of a table that a task looks at before others have their turns: about a millisecond.
pub const ROWS_AT_ONCE: usize = 1000;

/// Retained messages that have expired and that one write deletes, and their bytes: it says what it deletes. One larger message goes alone.
pub const EXPIRED_AT_ONCE: usize = 256;
pub const EXPIRED_BYTES: usize = 1024 * 1024;

/// Packet ids without a session that one write deletes at start: with the longest client ids less than a write may have.
pub const FORGOTTEN_AT_ONCE: usize = 512;

/// What a PUBLISH may be longer than the largest message: topic and properties.
pub const PACKET_OVERHEAD: u32 = 128 * 1024;

/// Records of a group that are looked at when it is opened, for those that stored sessions have in flight. They lie near its beginning; what is
/// not found among so many is found when its turn comes.
pub const SHARED_CLAIM: usize = 4096;
