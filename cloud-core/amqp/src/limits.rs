//! Every limit of this front end, in one place. Sizes are in bytes, times in seconds unless the name says otherwise.

/// Largest frame offered in `connection.tune`, header and end byte included (the value RabbitMQ offers too).
pub const FRAME_MAX: u32 = 131_072;
/// `frame-min-size` of the specification: both peers must accept frames up to this.
pub const FRAME_MIN: u32 = 4_096;
/// Largest frame before tuning: what an unauthenticated peer can make us buffer.
pub const FRAME_MAX_BEFORE_TUNE: u32 = 16_384;
/// Channels a connection may have open; also offered in `connection.tune`.
pub const CHANNEL_MAX: u16 = 2_047;
/// Heartbeat offered in `connection.tune`.
pub const HEARTBEAT_SECONDS: u16 = 60;
/// From accept to `connection.open-ok`.
pub const HANDSHAKE_SECONDS: u64 = 10;
/// How long a peer may take to answer `connection.close`.
pub const CLOSE_SECONDS: u64 = 2;
/// Largest message body: a batch of the log holds 32 MiB, properties and framing included.
pub const BODY_MAX: u64 = 31 * 1024 * 1024;
/// Body bytes reserved at once when a content header announces a body; the rest grows as bytes arrive.
pub const BODY_RESERVE: usize = 256 * 1024;
/// Nesting of tables and arrays in a field table.
pub const TABLE_DEPTH: usize = 16;
/// Entries of one field table.
pub const TABLE_ENTRIES: usize = 1_024;
/// Output waiting for the peer above which no further message is acquired for it.
pub const OUTPUT_HIGH_WATER: usize = 1024 * 1024;
/// Output waiting for the peer above which nothing more is read from it.
pub const OUTPUT_MAX: usize = 8 * 1024 * 1024;
/// Bytes of published messages not yet durable above which nothing more is read from the peer.
pub const UNCOMMITTED_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of messages in one transaction (`tx.select`).
pub const TRANSACTION_BYTES: usize = 32 * 1024 * 1024;
/// The same in writes.
pub const UNCOMMITTED_WRITES: usize = 256;
/// Bytes of one coalesced batch of published messages.
pub const BATCH_BYTES: usize = 512 * 1024;
/// Messages in one coalesced batch.
pub const BATCH_MESSAGES: usize = 4_096;
/// Messages taken from a queue at once for one consumer.
pub const ACQUIRE_MESSAGES: usize = 128;
/// Bytes taken from a queue at once for one consumer.
pub const ACQUIRE_BYTES: usize = 1024 * 1024;
/// Messages out to one channel without acknowledgement (reached only with an unlimited prefetch).
pub const UNACKED_PER_CHANNEL: usize = 65_536;
/// Consumers on one channel.
pub const CONSUMERS_PER_CHANNEL: usize = 1_024;
/// Queues in one namespace.
pub const QUEUES: usize = 65_536;
/// Exchanges in one namespace.
pub const EXCHANGES: usize = 16_384;
/// Bindings in one namespace.
pub const BINDINGS: usize = 262_144;
