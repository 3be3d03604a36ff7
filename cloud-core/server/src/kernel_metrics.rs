//! The kernel's figures as metrics. They are read when they are asked for.

use kernel::{Kernel, KernelStats, QueueStats};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntCounter, IntGauge, IntGaugeVec, Opts};

/// Name, help, figure.
type Figure = (&'static str, &'static str, fn(&KernelStats) -> u64);
type QueueFigure = (&'static str, &'static str, fn(&QueueStats) -> u64);

const COUNTERS: [Figure; 11] = [
    ("towline_log_records_total", "Records appended, over all streams.", |s| s.records_appended),
    ("towline_log_batches_total", "Batches appended.", |s| s.batches_appended),
    ("towline_log_bytes_total", "Bytes of batches appended.", |s| s.bytes_appended),
    ("towline_log_duplicates_total", "Batches recognised by their sequence as sent before, and not appended again.", |s| s.duplicates),
    ("towline_log_refused_total", "Batches refused: sequence, epoch, unknown partition.", |s| s.appends_refused),
    ("towline_log_corrupt_reads_total", "Reads that found damaged data; it was not served.", |s| s.corrupt_reads),
    ("towline_wal_written_bytes_total", "Bytes written to the write-ahead log.", |s| s.wal_bytes_written),
    ("towline_wal_syncs_total", "fdatasync calls of the write-ahead log; each makes many entries durable.", |s| s.fsyncs),
    ("towline_wal_entries_total", "Entries made durable.", |s| s.entries),
    ("towline_tail_hits_total", "Batches read from memory.", |s| s.tail_hits),
    ("towline_tail_misses_total", "Batches read from disk.", |s| s.tail_misses),
];

const GAUGES: [Figure; 10] = [
    ("towline_wal_bytes", "Bytes of write-ahead log on disk.", |s| s.wal_bytes_on_disk),
    ("towline_wal_files", "Files of the write-ahead log.", |s| s.wal_files),
    ("towline_wal_queued_entries", "Entries that wait to be written.", |s| s.queued_entries),
    ("towline_wal_queued_bytes", "Bytes that wait to be written.", |s| s.queued_bytes),
    ("towline_wal_failed", "1 when the disk failed and no write is accepted any more.", |s| u64::from(s.failed.is_some())),
    ("towline_tail_bytes", "Bytes of recent batches in memory.", |s| s.tail_bytes),
    ("towline_streams", "Streams.", |s| s.streams),
    ("towline_partitions", "Partitions.", |s| s.partitions),
    ("towline_cursors", "Groups with committed positions.", |s| s.cursors),
    ("towline_producers", "Producers whose sequence is remembered.", |s| s.producers),
];

const QUEUE_GAUGES: [QueueFigure; 2] = [
    ("towline_queue_ready", "Records found that can be acquired.", |q| q.ready),
    ("towline_queue_in_flight", "Records acquired and not settled.", |q| q.in_flight),
];

const RECOVERY: (&str, &str) = ("towline_recovery_seconds", "How long the recovery took at start.");

pub struct KernelMetrics {
    kernel: Kernel,
    descriptions: Vec<Desc>,
}

impl KernelMetrics {
    pub fn new(kernel: Kernel) -> prometheus::Result<KernelMetrics> {
        let plain = COUNTERS.iter().chain(&GAUGES).map(|figure| (figure.0, figure.1)).chain([RECOVERY]);
        let mut descriptions = plain
            .map(|(name, help)| Desc::new(name.into(), help.into(), vec![], Default::default()))
            .collect::<prometheus::Result<Vec<_>>>()?;
        for (name, help, _) in QUEUE_GAUGES {
            descriptions.push(Desc::new(name.into(), help.into(), vec!["queue".into()], Default::default())?);
        }
        Ok(KernelMetrics { kernel, descriptions })
    }

    fn families(&self) -> prometheus::Result<Vec<MetricFamily>> {
        let stats = self.kernel.stats();
        let mut families = Vec::new();
        for (name, help, figure) in COUNTERS {
            let counter = IntCounter::new(name, help)?;
            counter.inc_by(figure(&stats));
            families.extend(counter.collect());
        }
        for (name, help, figure) in GAUGES {
            let gauge = IntGauge::new(name, help)?;
            gauge.set(signed(figure(&stats)));
            families.extend(gauge.collect());
        }
        let recovery = Gauge::new(RECOVERY.0, RECOVERY.1)?;
        recovery.set(stats.recovery_time.as_secs_f64());
        families.extend(recovery.collect());
        for (name, help, figure) in QUEUE_GAUGES {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["queue"])?;
            for queue in &stats.queues {
                gauges.with_label_values(&[&queue.name.to_string()]).set(signed(figure(queue)));
            }
            families.extend(gauges.collect());
        }
        Ok(families)
    }
}

fn signed(figure: u64) -> i64 {
    i64::try_from(figure).unwrap_or(i64::MAX)
}

impl Collector for KernelMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.families().unwrap_or_else(|error| {
            tracing::error!(%error, "the kernel's metrics cannot be given");
            Vec::new()
        })
    }
}
