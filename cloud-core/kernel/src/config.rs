//! What can be set about a kernel.

use crate::limits;

/// Settings of a [`crate::Kernel`]. Directories are relative to the root of the [`crate::ports::Disk`].
#[derive(Debug, Clone)]
pub struct KernelConfig {
    /// Size at which a WAL file is full and the next one is begun, in bytes.
    pub wal_file_bytes: u64,
    /// Bytes that the WAL takes on the disk at most; room for at least [`limits::WAL_MIN_FILES`] files. At the bound writes are held back
    /// until something of it was sealed or trimmed.
    pub wal_bytes: u64,
    /// How long writes are held back at that bound before they are refused with `Full`, in milliseconds; also how long they wait for a disk that
    /// does not answer, see [`crate::Kernel::look_at_device`].
    pub wal_stall_ms: u64,
    /// Bytes of entries that may wait for the writer. Whoever waits for its write is held back by that; past this bound, which protects
    /// memory from callers that do not wait, writes are refused with `Full`.
    pub queue_bytes: usize,
    /// Bytes written at most with one fdatasync.
    pub group_bytes: usize,
    /// Bytes of recent batches kept in memory, over all partitions.
    pub tail_bytes: usize,
    /// WAL bytes after which [`crate::Kernel::maintain`] writes a checkpoint.
    pub checkpoint_wal_bytes: u64,
    /// Threads that read from the disk; 0 = reads happen where they are asked for (for simulators).
    pub reader_threads: usize,
    /// Largest batch accepted, in bytes; at most [`limits::MAX_BATCH_BYTES`].
    pub max_batch_bytes: usize,
    /// Partitions of a stream that nobody sized.
    pub default_partitions: u32,
    /// Bytes in the WAL at which they are sealed into a segment of the cold store, and about the size of a segment.
    pub segment_bytes: u64,
    /// Memory for the keys of one compaction pass, in bytes: about 40 a key.
    pub compaction_bytes: usize,
    /// Age at which what is in the WAL is sealed in any case, in milliseconds.
    pub seal_age_ms: i64,
    /// Age from which an object of the cold store that the log does not name is deleted, in milliseconds.
    pub orphan_grace_ms: i64,
    /// Bytes of records from the cold store that are kept in memory; half of it at most is read ahead.
    pub cold_cache_memory_bytes: usize,
    /// Bytes of records from the cold store that are kept on the disk; none when the store is local.
    pub cold_cache_disk_bytes: u64,
    /// Bytes that are fetched from the cold store ahead of one reader.
    pub cold_readahead_bytes: usize,
    /// Idle time after which the window of a [`crate::SequenceRule::Window`] producer is forgotten, in milliseconds.
    pub producer_expiry_ms: i64,
}

impl KernelConfig {
    /// Unsealed bytes at which to seal: well before the WAL is at its bound.
    pub fn seal_at(&self) -> u64 {
        self.segment_bytes.min(self.wal_bytes / 4)
    }
}

impl Default for KernelConfig {
    fn default() -> Self {
        KernelConfig {
            wal_file_bytes: 64 * 1024 * 1024,
            wal_bytes: 4 * 1024 * 1024 * 1024,
            wal_stall_ms: 10_000,
            queue_bytes: 512 * 1024 * 1024,
            group_bytes: 8 * 1024 * 1024,
            tail_bytes: 256 * 1024 * 1024,
            checkpoint_wal_bytes: 256 * 1024 * 1024,
            reader_threads: 2,
            max_batch_bytes: limits::MAX_BATCH_BYTES,
            default_partitions: 1,
            segment_bytes: 128 * 1024 * 1024,
            compaction_bytes: 64 * 1024 * 1024,
            seal_age_ms: 10 * 60 * 1000,
            orphan_grace_ms: 60 * 60 * 1000,
            cold_cache_memory_bytes: 64 * 1024 * 1024,
            cold_cache_disk_bytes: 4 * 1024 * 1024 * 1024,
            cold_readahead_bytes: 16 * 1024 * 1024,
            producer_expiry_ms: 24 * 60 * 60 * 1000,
        }
    }
}
