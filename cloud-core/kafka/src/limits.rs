//! Every limit of this crate.

use std::time::Duration;

/// Largest request in bytes that may carry records (Produce). Kafka's `socket.request.max.bytes`.
pub const MAX_PRODUCE_REQUEST: usize = 104_857_600;
/// Largest request in bytes of every other kind.
pub const MAX_REQUEST: usize = 4 * 1024 * 1024;
/// The same of a client that has not said who it is, where it has to.
pub const MAX_STRANGERS_REQUEST: usize = 64 * 1024;
/// The receive buffer grows by at most this many bytes at a time, whatever length a frame claims.
pub const RECEIVE_CHUNK: usize = 256 * 1024;
/// Room made in an empty receive buffer; small, since a stored batch keeps the whole buffer in memory that it came in.
pub const RECEIVE_SMALL: usize = 16 * 1024;
/// Bytes received ahead while a request is being answered.
pub const READ_AHEAD: usize = 64 * 1024;
/// Smallest request: key, version and correlation id.
pub const MIN_REQUEST: usize = 8;
/// Elements of all arrays of one request together; bounds the memory that decoding costs.
pub const MAX_REQUEST_ELEMENTS: usize = 200_000;
/// Longest string in bytes, in both encodings (Kafka's own limit).
pub const MAX_STRING: usize = i16::MAX as usize;
/// Produce requests of one connection that may wait for the disk at once.
pub const MAX_PIPELINED_REQUESTS: usize = 64;
/// Bytes of the produce requests of one connection that may wait for the disk at once.
pub const MAX_PIPELINED_BYTES: usize = 64 * 1024 * 1024;
/// Largest Fetch response in bytes, whatever the client asks (one oversized first batch aside).
pub const MAX_FETCH_RESPONSE: usize = 55 * 1024 * 1024;
/// Longest time a Fetch may wait for data.
pub const MAX_FETCH_WAIT: Duration = Duration::from_secs(300);
/// A response that a client does not take off the wire for this long closes its connection.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(120);
/// Bounds of a group member's session timeout in ms (`group.min/max.session.timeout.ms`).
pub const MIN_SESSION_TIMEOUT_MS: i32 = 1_000;
/// See [`MIN_SESSION_TIMEOUT_MS`].
pub const MAX_SESSION_TIMEOUT_MS: i32 = 1_800_000;
/// How long the first rebalance of an empty group waits for more members (`group.initial.rebalance.delay.ms`).
pub const INITIAL_REBALANCE_DELAY_MS: u64 = 500;
/// Members of one group.
pub const MAX_GROUP_MEMBERS: usize = 4_096;
/// Characters of the client's name that go into a member id.
pub const MAX_MEMBER_NAME: usize = 255;
/// Groups that have members or a generation in memory.
pub const MAX_GROUPS: usize = 65_536;
/// Bytes of subscription metadata and assignment kept for one member.
pub const MAX_MEMBER_BYTES: usize = 1024 * 1024;
/// Bytes of the metadata string of one committed offset (`offset.metadata.max.bytes`).
pub const MAX_OFFSET_METADATA: usize = 4_096;
/// Bytes of a group id.
pub const MAX_GROUP_ID: usize = 512;
/// Partitions of one topic.
pub const MAX_PARTITIONS: i32 = 10_000;
/// How long the end of a connection may take.
pub const LAST_WORDS: Duration = Duration::from_secs(1);
