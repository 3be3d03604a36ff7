//! The kernel's figures as metrics.

use frontend::figures::{self, Figure, Kind, Read};
use kernel::{Kernel, KernelStats};
use prometheus::Registry;

static FIGURES: [Figure<KernelStats>; 55] = [
    Figure::counter(
        "towline_log_records_total",
        "Records appended, over all streams.",
        |s| s.records_appended,
    ),
    Figure::counter("towline_log_batches_total", "Batches appended.", |s| {
        s.batches_appended
    }),
    Figure::counter(
        "towline_log_bytes_total",
        "Bytes of batches appended.",
        |s| s.bytes_appended,
    ),
    Figure::counter(
        "towline_log_duplicates_total",
        "Batches that were sent before, and not appended again.",
        |s| s.duplicates,
    ),
    Figure::counter(
        "towline_log_refused_total",
        "Batches refused: sequence, epoch, partition.",
        |s| s.appends_refused,
    ),
    Figure::counter(
        "towline_log_corrupt_reads_total",
        "Reads that found damaged data; it was not served.",
        |s| s.corrupt_reads,
    ),
    Figure::counter(
        "towline_log_recovered_damaged_total",
        "Batches found damaged when the log was replayed at the start; they are not served.",
        |s| s.recovered_damaged,
    ),
    Figure::counter(
        "towline_wal_written_bytes_total",
        "Bytes written to the write-ahead log.",
        |s| s.wal_bytes_written,
    ),
    Figure::counter(
        "towline_wal_syncs_total",
        "fdatasync calls of the write-ahead log.",
        |s| s.fsyncs,
    ),
    Figure::counter("towline_wal_entries_total", "Entries made durable.", |s| {
        s.entries
    }),
    Figure::counter(
        "towline_tail_hits_total",
        "Batches read from memory.",
        |s| s.tail_hits,
    ),
    Figure::counter(
        "towline_tail_misses_total",
        "Batches read from disk.",
        |s| s.tail_misses,
    ),
    Figure::gauge(
        "towline_checkpoint_pause_microseconds",
        "Longest time since the start in which nothing was written because a checkpoint was begun.",
        |s| u64::try_from(s.checkpoint_pause.as_micros()).unwrap_or(u64::MAX),
    ),
    Figure::counter("towline_checkpoints_total", "Checkpoints written.", |s| {
        s.checkpoints
    }),
    Figure::counter(
        "towline_checkpoint_written_bytes_total",
        "Bytes of checkpoints written.",
        |s| s.checkpoint_bytes_written,
    ),
    Figure::counter(
        "towline_sealed_bytes_total",
        "Bytes of segments written by sealing.",
        |s| s.sealed_bytes,
    ),
    Figure::counter(
        "towline_rewritten_bytes_total",
        "Bytes of segments written by compaction and copy-forward.",
        |s| s.rewritten_bytes,
    ),
    Figure::gauge(
        "towline_upload_lag_bytes",
        "Bytes of batches in the segment that is due and not yet in the cold store.",
        |s| s.upload_lag_bytes,
    ),
    Figure::gauge(
        "towline_upload_lag_milliseconds",
        "How long ago the first attempt to upload it began; 0 while none is due.",
        |s| u64::try_from(s.upload_lag.as_millis()).unwrap_or(u64::MAX),
    ),
    Figure::counter(
        "towline_seal_failures_total",
        "Attempts to seal that failed; each is made again.",
        |s| s.seal_failures,
    ),
    Figure::gauge(
        "towline_unsealed_bytes",
        "Bytes of batches that are in no segment yet.",
        |s| s.unsealed_bytes,
    ),
    Figure::gauge(
        "towline_unsealed_age_milliseconds",
        "Age of the oldest of them; 0 without any.",
        |s| u64::try_from(s.unsealed_age.as_millis()).unwrap_or(u64::MAX),
    ),
    Figure::gauge(
        "towline_cold_segments",
        "Segments with records that can be read.",
        |s| s.segments,
    ),
    Figure::gauge("towline_cold_bytes", "Bytes of those segments.", |s| {
        s.cold_bytes
    }),
    Figure::gauge(
        "towline_cold_live_bytes",
        "Bytes of batches in them that can be read.",
        |s| s.cold_live_bytes,
    ),
    Figure::gauge(
        "towline_cold_fenced",
        "1 when a copy of this data directory owns the cold store.",
        |s| u64::from(s.fenced),
    ),
    Figure::gauge(
        "towline_wal_device_silent_milliseconds",
        "For how long the disk has not answered the write or sync that it has now.",
        |s| u64::try_from(s.device_silent.as_millis()).unwrap_or(u64::MAX),
    ),
    Figure::gauge(
        "towline_wal_held_back",
        "1 while there is no room and writes are held back or refused.",
        |s| u64::from(s.held_back),
    ),
    Figure::counter(
        "towline_cold_cache_memory_hits_total",
        "Chunks of segments that were in memory.",
        |s| s.cold_reads.memory_hits,
    ),
    Figure::counter(
        "towline_cold_cache_disk_hits_total",
        "Chunks of segments that were on the disk.",
        |s| s.cold_reads.disk_hits,
    ),
    Figure::counter(
        "towline_cold_cache_joined_total",
        "Chunks of segments that were on their way already.",
        |s| s.cold_reads.joined,
    ),
    Figure::counter(
        "towline_cold_cache_misses_total",
        "Chunks of segments that a reader had to wait for.",
        |s| s.cold_reads.misses,
    ),
    Figure::counter(
        "towline_cold_requests_total",
        "Requests to the cold store for reads.",
        |s| s.cold_reads.requests,
    ),
    Figure::counter(
        "towline_cold_read_bytes_total",
        "Bytes that the cold store gave.",
        |s| s.cold_reads.bytes,
    ),
    Figure::counter(
        "towline_cold_damaged_chunks_total",
        "Chunks whose checksum was wrong at the first attempt.",
        |s| s.cold_reads.damaged,
    ),
    Figure::gauge(
        "towline_cold_cache_memory_bytes",
        "Bytes of chunks in memory.",
        |s| s.cold_reads.memory_bytes,
    ),
    Figure::gauge(
        "towline_cold_cache_disk_bytes",
        "Bytes of chunks on the disk.",
        |s| s.cold_reads.disk_bytes,
    ),
    Figure::gauge(
        "towline_wal_bytes",
        "Bytes of write-ahead log on disk.",
        |s| s.wal_bytes_on_disk,
    ),
    Figure::gauge("towline_wal_files", "Files of the write-ahead log.", |s| {
        s.wal_files
    }),
    Figure::gauge(
        "towline_wal_queued_entries",
        "Entries that wait to be written.",
        |s| s.queued_entries,
    ),
    Figure::gauge(
        "towline_wal_queued_bytes",
        "Bytes that wait to be written.",
        |s| s.queued_bytes,
    ),
    Figure::gauge(
        "towline_wal_failed",
        "1 when the disk failed and no write is accepted.",
        |s| u64::from(s.failed.is_some()),
    ),
    Figure::gauge(
        "towline_tail_bytes",
        "Bytes of recent batches in memory.",
        |s| s.tail_bytes,
    ),
    Figure::gauge("towline_streams", "Streams.", |s| s.streams),
    Figure::gauge("towline_partitions", "Partitions.", |s| s.partitions),
    Figure::gauge("towline_cursors", "Groups with committed positions.", |s| {
        s.cursors
    }),
    Figure::gauge(
        "towline_producers",
        "Producers whose sequence is remembered.",
        |s| s.producers,
    ),
    Figure::gauge(
        "towline_recovery_milliseconds",
        "How long the recovery took at start.",
        |s| u64::try_from(s.recovery_time.as_millis()).unwrap_or(u64::MAX),
    ),
    Figure {
        name: "towline_queue_ready",
        help: "Records found that can be acquired.",
        kind: Kind::Gauge,
        read: Read::Labelled("queue", |s| {
            s.queues
                .iter()
                .map(|q| (q.name.to_string(), q.ready))
                .collect()
        }),
    },
    Figure {
        name: "towline_queue_in_flight",
        help: "Records acquired and not settled.",
        kind: Kind::Gauge,
        read: Read::Labelled("queue", |s| {
            s.queues
                .iter()
                .map(|q| (q.name.to_string(), q.in_flight))
                .collect()
        }),
    },
    Figure {
        name: "towline_queue_dead_lettered_total",
        help: "Records sent to where dead letters go.",
        kind: Kind::Counter,
        read: Read::Labelled("queue", |s| {
            s.queues
                .iter()
                .map(|q| (q.name.to_string(), q.dead_lettered))
                .collect()
        }),
    },
    Figure {
        name: "towline_queue_redelivered_total",
        help: "Records handed out that had been, or may have been, handed out before.",
        kind: Kind::Counter,
        read: Read::Labelled("queue", |s| {
            s.queues
                .iter()
                .map(|q| (q.name.to_string(), q.redelivered))
                .collect()
        }),
    },
    Figure {
        name: "towline_queue_expired_total",
        help: "Leases that ended because the holder did not settle in time.",
        kind: Kind::Counter,
        read: Read::Labelled("queue", |s| {
            s.queues
                .iter()
                .map(|q| (q.name.to_string(), q.expired))
                .collect()
        }),
    },
    Figure {
        name: "towline_queue_memory_bytes",
        help: "About how much memory the state of the queue takes.",
        kind: Kind::Gauge,
        read: Read::Labelled("queue", |s| {
            s.queues
                .iter()
                .map(|q| (q.name.to_string(), q.memory_bytes))
                .collect()
        }),
    },
    Figure {
        name: "towline_queue_dropped_total",
        help: "Records that retention removed before they were settled.",
        kind: Kind::Counter,
        read: Read::Labelled("queue", |s| {
            s.queues
                .iter()
                .map(|q| (q.name.to_string(), q.dropped))
                .collect()
        }),
    },
];

/// Fails only when one of the names is taken.
pub fn register(registry: &Registry, kernel: Kernel) -> prometheus::Result<()> {
    figures::register(registry, &FIGURES, move || kernel.stats())
}
