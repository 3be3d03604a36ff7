//! Every limit of the store, in bytes unless the name says otherwise.

/// Largest record (key, value and headers) that is taken. A frame holds at least one record whatever `BATCH_TARGET` says.
pub const MAX_RECORD: usize = 8 * 1024 * 1024;
/// A batch that publishes are coalesced into is closed when it is this large. The core takes a batch as a whole: on a link of 1 Mbit/s this is half a
/// second in which nothing else of its lane is seen, and after an outage the first of them needs one or two round trips, and seldom a packet again.
pub const BATCH_TARGET: usize = 64 * 1024;
/// ... or holds this many records.
pub const BATCH_RECORDS: u32 = 1000;
/// Largest entry of a segment: a batch of the largest record, or one from the core, and what stands before it.
pub const MAX_ENTRY: usize = 18 * 1024 * 1024;
/// What waits on a lane that lingers is written when it is so much, however long it has waited: more makes batches hardly smaller on the link.
pub const LINGER_TARGET: usize = 32 * 1024;
/// Bytes written before one sync. More waits for the next sync.
pub const GROUP_TARGET: usize = 4 * 1024 * 1024;
/// Records that wait for the writer. Above it publishes are refused: the disk does not keep up.
pub const MAX_PENDING: usize = 24 * 1024 * 1024;
/// Above this, a message that needs no acknowledgement waits until it is written, so that its publisher is slowed down.
pub const PENDING_TARGET: usize = 2 * 1024 * 1024;
/// Newest frames that are kept in memory for readers at the end of a log.
pub const TAIL: usize = 2 * 1024 * 1024;
/// One read of a segment file.
pub const READ_CHUNK: usize = 128 * 1024;
/// Where the disk can not read, reading goes on behind the next multiple of this: a page, which is what the system reads.
pub const UNREADABLE: u64 = 4096;
/// Places in segments that are remembered, so that a reader goes on where it stopped (a number of places).
pub const READ_HINTS: usize = 32;
/// Streams that one edge writes to (a number of streams): each costs a line in the header of every segment.
pub const MAX_STREAMS: usize = 4096;
/// Partitions of the core whose position an inbox remembers (a number of partitions).
pub const MAX_ORIGINS: usize = 1024;
/// Longest header of a segment.
pub const MAX_SEGMENT_HEADER: usize = 2 * 1024 * 1024;
/// QoS 2 packet ids of one client that wait for their release (a number: all that the protocol has).
pub const MAX_UNRELEASED: usize = 65_535;
/// Lanes that can be configured (a number of lanes). Each is a log with a thread of its own.
pub const MAX_LANES: usize = 16;
/// Longest name of a lane.
pub const MAX_LANE_NAME: usize = 64;
/// Longest client identifier.
pub const MAX_CLIENT_ID: usize = 65_535;
/// A ledger value above this is kept in pieces of this size: sled puts larger ones to files that it never gives back.
pub const LEDGER_PIECE: usize = 8 * 1024;
/// What is written to a ledger between two flushes when much of it is written at once.
pub const LEDGER_REWRITE: usize = 256 * 1024;
/// Free room on the file system with which values that were written before there were checksums are written again.
pub const LEDGER_REWRITE_ROOM: u64 = 256 * 1024 * 1024;
/// What is left free on the file system when a damaged ledger is copied before it is opened.
pub const LEDGER_COPY_ROOM: u64 = 32 * 1024 * 1024;
/// What waits to be published later, all together: it lies in the ledger.
pub const MAX_DELAYED: u64 = 32 * 1024 * 1024;
/// Of it, what is read at a time when it is due, or one message.
pub const DELAYED_READ: u64 = 4 * 1024 * 1024;
/// Batches that the core will never take. When there are more, the oldest is deleted.
pub const QUARANTINE: u64 = 64 * 1024 * 1024;
/// What is kept free on the file system for the ledger: sled writes its file in pieces of 512 KiB.
pub const RESERVE: usize = 2 * 1024 * 1024;
/// Less free than this, and the reserve is given up.
pub const LEDGER_ROOM: u64 = 1024 * 1024;
/// The reserve is written in pieces of this size.
pub const RESERVE_CHUNK: usize = 256 * 1024;
/// Boots whose clock is remembered (a number of boots); the oldest are forgotten.
pub const MAX_BOOTS: usize = 256;
/// Time from a change of a cursor to its place in the ledger, in milliseconds. What is lost with it is sent again.
pub const CHECKPOINT_MS: u64 = 1000;
/// How long a ledger that somebody has open is waited for when it is opened.
pub const LEDGER_LOCK: std::time::Duration =
    std::time::Duration::from_secs(if cfg!(test) { 60 } else { 5 });
/// Damaged values of a ledger that are remembered as told of (a number of values), 8 bytes each.
pub const DAMAGED_REMEMBERED: usize = 4096;
/// Retained messages that have expired and are deleted together (a number of messages): whoever stores something waits meanwhile.
pub const EXPIRED_AT_ONCE: usize = 16;
/// Keys of such messages that are found before the first of them is deleted.
pub const EXPIRED_KEYS: usize = 1024 * 1024;
