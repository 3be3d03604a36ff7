//! Figures for metrics.

use std::time::Duration;

use uuid::Uuid;

use crate::cold::ColdCacheStats;
use crate::queue::QueueName;

/// What the kernel has done since it opened, and what it holds now.
#[derive(Debug, Clone, Default)]
pub struct KernelStats {
    /// Bytes written to the WAL, frames and file headers included.
    pub wal_bytes_written: u64,
    /// Bytes of WAL files on disk.
    pub wal_bytes_on_disk: u64,
    /// WAL files on disk.
    pub wal_files: u64,
    /// fdatasync calls of the WAL.
    pub fsyncs: u64,
    /// Entries made durable.
    pub entries: u64,
    /// Entries that wait to be written.
    pub queued_entries: u64,
    /// Bytes that wait to be written.
    pub queued_bytes: u64,
    /// Batches appended.
    pub batches_appended: u64,
    /// Records appended.
    pub records_appended: u64,
    /// Bytes of batches appended.
    pub bytes_appended: u64,
    /// Batches recognised as duplicates.
    pub duplicates: u64,
    /// Appends refused when applied.
    pub appends_refused: u64,
    /// Bytes of batches in memory.
    pub tail_bytes: u64,
    /// Batches read from memory.
    pub tail_hits: u64,
    /// Batches read from disk.
    pub tail_misses: u64,
    /// Reads that found damaged data.
    pub corrupt_reads: u64,
    /// Batches whose records were found damaged when their entries were replayed at open; they are not served.
    pub recovered_damaged: u64,
    /// Streams.
    pub streams: u64,
    /// Partitions.
    pub partitions: u64,
    /// Cursors.
    pub cursors: u64,
    /// Producers whose sequence is remembered, over all partitions.
    pub producers: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Longest time since the start in which nothing was written because a checkpoint was begun.
    pub checkpoint_pause: Duration,
    /// Bytes of them.
    pub checkpoint_bytes_written: u64,
    /// How long the recovery took at open.
    pub recovery_time: Duration,
    /// Entries replayed at open.
    pub recovered_entries: u64,
    /// Bytes of batches in the WAL that are not sealed.
    pub unsealed_bytes: u64,
    /// How old the oldest of them is; zero if there is none.
    pub unsealed_age: Duration,
    /// Name of the log in the cold store; `None` while nothing was needed there.
    pub cold_log: Option<Uuid>,
    /// Newest epoch of the cold store that this data directory has taken.
    pub cold_epoch: u32,
    /// Segments with records that can be read.
    pub segments: u64,
    /// Bytes of those segments.
    pub cold_bytes: u64,
    /// Bytes of batches in them that can be read.
    pub cold_live_bytes: u64,
    /// Bytes written to the cold store by sealing.
    pub sealed_bytes: u64,
    /// Bytes written to the cold store by compaction and copy-forward.
    pub rewritten_bytes: u64,
    /// Bytes of batches in the segment that is due; 0 while none is. All of them are only here until the last part is in the cold store.
    pub upload_lag_bytes: u64,
    /// Bytes of that segment that have been sent, its header included.
    pub upload_sent_bytes: u64,
    /// How long ago its first attempt began; zero while none is due.
    pub upload_lag: Duration,
    /// Attempts to seal that failed.
    pub seal_failures: u64,
    /// Why the newest attempt failed; `None` after one that did not.
    pub seal_error: Option<String>,
    /// A copy of this data directory owns the cold store: nothing is sealed any more.
    pub fenced: bool,
    /// Reads from the cold store.
    pub cold_reads: ColdCacheStats,
    /// For how long the disk has not answered the write or sync that it has now; zero when it has none.
    pub device_silent: Duration,
    /// There is no room in the WAL or on the disk: writes are held back, or refused, until some is made.
    pub held_back: bool,
    /// Why no write is accepted any more, if so.
    pub failed: Option<String>,
    /// Queues that are open.
    pub queues: Vec<QueueStats>,
}

/// One queue.
#[derive(Debug, Clone)]
pub struct QueueStats {
    /// Its name.
    pub name: QueueName,
    /// Records found that can be acquired.
    pub ready: u64,
    /// Records acquired and not settled.
    pub in_flight: u64,
    /// Records that went unsettled since it was opened: retention removed them, they cannot be read, or they were to be dead letters and
    /// there was no place for those.
    pub dropped: u64,
    /// Records sent to where dead letters go.
    pub dead_lettered: u64,
    /// Records handed out that had been, or may have been, handed out before.
    pub redelivered: u64,
    /// Leases that ended because the holder did not settle in time.
    pub expired: u64,
    /// How often a source was looked at for what it has to give next: once for each change of it, whatever the number of sources.
    pub source_looks: u64,
    /// About how much memory its state takes, in bytes.
    pub memory_bytes: u64,
}
