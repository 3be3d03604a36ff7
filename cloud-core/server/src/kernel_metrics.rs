//! The kernel's figures as metrics.

use frontend::figures::{self, Figure, Kind, Read};
use kernel::{Kernel, KernelStats};
use prometheus::Registry;

static FIGURES: [Figure<KernelStats>; 26] = [
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
    Figure::counter("towline_checkpoints_total", "Checkpoints written.", |s| {
        s.checkpoints
    }),
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
