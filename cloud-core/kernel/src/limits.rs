//! Every limit of the kernel that is not a setting, by name.

/// Largest batch that can be appended, in bytes.
pub const MAX_BATCH_BYTES: usize = 32 * 1024 * 1024;
/// Largest entry (all commands together, encoded), in bytes. One entry is one frame in one file.
pub const MAX_ENTRY_BYTES: usize = 48 * 1024 * 1024;
/// Most commands in one entry.
pub const MAX_ENTRY_COMMANDS: usize = 65_536;
/// Longest name of a table, cursor or queue, in bytes.
pub const MAX_NAME_BYTES: usize = 1024;
/// Longest key of a table, in bytes.
pub const MAX_TABLE_KEY_BYTES: usize = 128 * 1024;
/// Largest value of a table, in bytes.
pub const MAX_TABLE_VALUE_BYTES: usize = 32 * 1024 * 1024;
/// Largest metadata kept with a cursor position, in bytes.
pub const MAX_CURSOR_METADATA_BYTES: usize = 64 * 1024;
/// Most partitions of one stream.
pub const MAX_PARTITIONS: u32 = 100_000;
/// Most configuration keys of one stream, and the longest key or value in bytes.
pub const MAX_STREAM_CONFIG_KEYS: usize = 256;
/// Longest key or value of a stream's configuration, in bytes.
pub const MAX_STREAM_CONFIG_BYTES: usize = 4096;
/// Batches a producer and partition that [`crate::SequenceRule::Window`] remembers.
pub const SEQUENCE_WINDOW: usize = 5;
/// Producer ids handed out from one log entry; what is left of a block is lost at a restart.
pub const PRODUCER_ID_BLOCK: u32 = 1000;
/// Most bytes one call of [`crate::Kernel::read`] returns, whatever was asked (a single larger batch is still returned).
pub const MAX_READ_BYTES: usize = 64 * 1024 * 1024;
/// Bytes a queue reads from a log at a time while it looks for records to deliver.
pub const QUEUE_SCAN_BYTES: usize = 1024 * 1024;
/// Bytes of dead letters that a queue writes in one entry (one larger record goes alone).
pub const QUEUE_DEAD_LETTER_BYTES: usize = 1024 * 1024;
/// Dead letters that a queue writes in one entry.
pub const QUEUE_DEAD_LETTER_RECORDS: usize = 1000;
/// Size about which a chunk of a segment is complete, in bytes: what is read from the cold store, verified and kept at a time.
pub const CHUNK_BYTES: usize = 512 * 1024;
/// Largest footer of a segment, in bytes.
pub const MAX_FOOTER_BYTES: usize = 128 * 1024 * 1024;
/// Most partitions whose records go into one segment.
pub const MAX_SEGMENT_PARTS: usize = 65_536;
/// Bytes that are uploaded to the cold store at a time.
pub const UPLOAD_PART_BYTES: usize = 8 * 1024 * 1024;
/// Offsets that are reserved at a time for batches that are only in memory; at a restart, what is left of them is skipped.
pub const RESERVED_OFFSETS: i64 = 1 << 20;
/// Files of the WAL that are made ahead, allocated.
pub const WAL_SPARES: usize = 2;
/// Of the WAL's room this share (one in so many) may be dead files that wait to be used again.
pub const WAL_SPARES_SHARE: u64 = 4;
/// Of a WAL file this share (one in so many) is a reserve for what makes room again, unless a spare file is ready.
pub const WAL_RESERVE_SHARE: u64 = 8;
/// Longest that the writer waits for more to write at once, in microseconds.
pub const GATHER_MAX_US: u64 = 200;
/// Bytes of a group after which it does not wait: the device's bandwidth counts then, not its latency.
pub const GATHER_MAX_BYTES: u64 = 256 * 1024;
/// Most groups in a row after which it does not wait because it was in vain before.
pub const GATHER_MAX_SKIPS: u32 = 64;
/// Fewest files that `wal_bytes` must have room for.
pub const WAL_MIN_FILES: u64 = 4;
/// Bytes of the WAL that are read at a time at open.
pub const RECOVERY_PIECE_BYTES: usize = 4 * 1024 * 1024;
/// So many of these are read or being read ahead of what is applied: with the entry that is put together from them, all the memory that
/// reading takes.
pub const RECOVERY_PIECES: usize = 4;
/// Bytes of footers of segments that are kept in memory (the newest one whatever its size).
pub const FOOTER_CACHE_BYTES: usize = 16 * 1024 * 1024;
/// Damaged ranges that are remembered so that each is logged once; with more, some are logged again.
pub const MAX_DAMAGE_TOLD: usize = 10_000;
/// How often a read looks again when what it wanted to read was moved meanwhile.
pub const READ_ATTEMPTS: u32 = 8;
/// Requests to the cold store at a time, for chunks.
pub const COLD_REQUESTS: usize = 16;
/// Of those, requests ahead of readers.
pub const COLD_REQUESTS_AHEAD: usize = 12;
/// Requests at a time, and those ahead of readers, where the cold store is a directory: as many as keep its device reading, and no more, for a sync of
/// the log waits behind those that are with the device, and each takes a thread.
pub const LOCAL_REQUESTS: usize = 4;
/// See `LOCAL_REQUESTS`.
pub const LOCAL_REQUESTS_AHEAD: usize = 2;
/// How long after a write the log counts as being written, in microseconds.
pub const LOG_IN_USE_US: u64 = 100_000;
/// Largest request to a store that is far away which joins neighbouring chunks, in bytes.
pub const COLD_COALESCE_BYTES: usize = 4 * 1024 * 1024;
/// Readers of the cold store that are known, to tell those that go on from those that look something up.
pub const COLD_READERS: usize = 256;
/// Bytes that wait to be written to the disk's part of the cache; what comes beyond is not kept there.
pub const COLD_CACHE_WAITING_BYTES: usize = 16 * 1024 * 1024;
/// Threads that read and write the disk's part of the cache.
pub const COLD_CACHE_THREADS: usize = 2;
/// How long the disk's part of the cache is not written after the disk failed, in microseconds.
pub const COLD_CACHE_PAUSE_US: u64 = 10_000_000;
/// How long the object of a segment stays after the log has no use for it, for those who read it, in microseconds.
pub const DEAD_SEGMENT_GRACE_US: u64 = 60_000_000;
/// How often the cold store is searched for segments that the log does not name, in microseconds.
pub const ORPHAN_SEARCH_EVERY_US: u64 = 600_000_000;
/// How often a checkpoint is uploaded to the cold store at most, in microseconds.
pub const CHECKPOINT_UPLOAD_EVERY_US: u64 = 60_000_000;
/// Checkpoints kept in the cold store.
pub const COLD_CHECKPOINTS: usize = 2;
/// After a restoration from the cold store each partition goes on so many offsets after the last that is known: more than can have been handed
/// out and lost with the disk, since that is bounded by the WAL.
pub const RESTORED_OFFSETS: i64 = 1 << 40;
/// After a restoration from the cold store producer ids go on so many after the last that is known.
pub const RESTORED_PRODUCER_IDS: i64 = 1 << 32;
