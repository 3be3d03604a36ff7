//! Queues: who has which record of a log, as sparse state over it.
//!
//! Durable is, for each source, a low-water mark and the settled offsets above it. The rest is found again by looking through the log from
//! the mark: which records are for the queue (the selector says), which of them are ready, who has what. Looking through is driven by
//! whoever wants records or waits for them; commits wake those who wait. Memory grows with what is in flight and with the runs of
//! ready records, not with the records themselves.

mod acquire;
mod dead_letter;
mod heads;
mod leases;
mod scan;
mod settle;
mod source;
mod types;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;

pub use dead_letter::{
    DEAD_COUNT, DEAD_POSITION, DEAD_QUEUE, DEAD_REASON, DEAD_STREAM, DeadReason,
};
pub use types::{
    Acquired, DeliveryId, HolderId, QueueLimits, QueueName, QueueSource, Selector, Verdict,
};

use crate::entry::{Command, Entry};
use crate::error::{QueueError, WriteError};
use crate::kernel::Kernel;
use crate::state::SourceState;
use crate::state::waiters::Signal;
use crate::stats::QueueStats;
use crate::stream::PartitionId;
use heads::Heads;
use leases::Inner;
use source::Source;

/// A queue over partitions. Cheap to share; see [`crate::Kernel::queue`].
pub struct Queue {
    kernel: Kernel,
    name: QueueName,
    selector: ArcSwap<Arc<dyn Selector>>,
    /// Held by whoever looks through the log or takes records: one at a time, so that records go out in order.
    gate: tokio::sync::Mutex<Heads>,
    /// Raised by commits to the sources that have nothing to give.
    committed: Arc<Signal>,
    inner: Mutex<Inner>,
    /// Something may be ready, or the queue is deleted.
    changed: Notify,
    deleted: AtomicBool,
    counts: Counts,
    /// Delivered by an earlier life of the queue in this process: everything below the end may have been.
    reopened: bool,
}

/// Counters since it was opened.
#[derive(Debug, Default)]
struct Counts {
    /// Gone unsettled: by retention, unreadable, or dead without a place to go.
    dropped: AtomicU64,
    dead_lettered: AtomicU64,
    /// Handed out again.
    redelivered: AtomicU64,
    /// Leases that ended by themselves.
    expired: AtomicU64,
    /// See [`QueueStats::source_looks`].
    source_looks: AtomicU64,
}

impl Queue {
    pub(crate) fn open(
        kernel: Kernel,
        name: QueueName,
        selector: Arc<dyn Selector>,
        reopened: bool,
    ) -> Queue {
        let watch = kernel.watch_stable();
        let committed = watch.signal();
        let queue = Queue {
            kernel,
            name,
            selector: ArcSwap::from_pointee(selector),
            gate: tokio::sync::Mutex::new(Heads::new(watch)),
            committed,
            inner: Mutex::default(),
            changed: Notify::new(),
            deleted: AtomicBool::new(false),
            counts: Counts::default(),
            reopened,
        };
        queue.load_sources(true);
        queue
    }

    /// Brings the sources in line with the durable state: keeps those that are known, adds the new, drops the others.
    fn load_sources(&self, at_open: bool) {
        let durable = self
            .kernel
            .core
            .state
            .queues
            .read()
            .get(&self.name)
            .cloned()
            .unwrap_or_default();
        let mut inner = self.inner.lock();
        let gone: Vec<_> = inner
            .sources
            .keys()
            .filter(|p| !durable.contains_key(*p))
            .copied()
            .collect();
        gone.into_iter()
            .for_each(|partition| inner.drop_source(partition));
        inner.stirred.extend(durable.keys());
        for (partition, state) in &durable {
            inner.sources.entry(*partition).or_insert_with(|| {
                // A source that is added now has not been handed out in any earlier life.
                let uncertain = if at_open {
                    self.uncertain_below(*partition, state)
                } else {
                    state.delivered_to
                };
                Source::new(state.clone(), uncertain)
            });
        }
    }

    /// Records below this offset may have been handed out in an earlier life.
    fn uncertain_below(&self, partition: PartitionId, state: &SourceState) -> i64 {
        let core = &self.kernel.core;
        let end = if self.reopened {
            self.kernel.watermarks(partition).map(|w| w.end)
        } else {
            core.uncertain.get(&partition).copied()
        };
        end.unwrap_or(0).max(state.delivered_to)
    }

    /// Its name.
    pub fn name(&self) -> &QueueName {
        &self.name
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    pub(crate) fn set_selector(&self, selector: Arc<dyn Selector>) {
        self.selector.store(Arc::new(selector));
    }

    /// Sets what the owner demands. Leases that are out keep their time.
    pub fn set_limits(&self, limits: QueueLimits) {
        self.inner.lock().limits = limits;
    }

    /// What the owner demands.
    pub fn limits(&self) -> QueueLimits {
        self.inner.lock().limits
    }

    pub(crate) fn stats(&self) -> QueueStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        QueueStats {
            name: self.name.clone(),
            ready: self.ready(),
            in_flight: self.in_flight(),
            dropped: count(&self.counts.dropped),
            dead_lettered: count(&self.counts.dead_lettered),
            redelivered: count(&self.counts.redelivered),
            expired: count(&self.counts.expired),
            source_looks: count(&self.counts.source_looks),
            memory_bytes: self.inner.lock().bytes() as u64,
        }
    }

    fn alive(&self) -> Result<(), QueueError> {
        if self.is_deleted() {
            Err(QueueError::Deleted)
        } else {
            Ok(())
        }
    }

    /// Sets the partitions it draws from, durably. A partition it has already keeps its state (`from` is ignored); one that is not named
    /// is dropped with its state; a new one is looked through from `from`.
    pub async fn set_sources(&self, sources: Vec<QueueSource>) -> Result<(), QueueError> {
        let _gate = self.gate.lock().await;
        self.alive()?;
        // What is gone before the queue begins is not lost to it.
        let start = |p| self.kernel.watermarks(p).map_or(0, |w| w.log_start);
        let sources = sources.into_iter();
        let wanted: BTreeMap<_, _> = sources
            .map(|s| (s.partition, s.from.max(start(s.partition))))
            .collect();
        let durable = self
            .kernel
            .core
            .state
            .queues
            .read()
            .get(&self.name)
            .map(|s| s.keys().copied().collect::<Vec<_>>());
        if durable.is_none_or(|durable| !durable.iter().eq(wanted.keys())) {
            let command = Command::QueueSources {
                queue: self.name.clone(),
                sources: wanted.into_iter().collect(),
            };
            self.kernel.write(Entry::new().with(command)).await?;
        }
        self.load_sources(false);
        self.changed.notify_waiters();
        Ok(())
    }

    /// The sources, with the first offset that is not settled.
    pub fn sources(&self) -> Vec<QueueSource> {
        let inner = self.inner.lock();
        inner
            .sources
            .iter()
            .map(|(partition, source)| QueueSource {
                partition: *partition,
                from: source.low_water(),
            })
            .collect()
    }

    /// Looks through everything committed before the call, so that [`Queue::ready`] is exact.
    pub async fn catch_up(&self) {
        let _gate = self.gate.lock().await;
        self.scan_all().await;
    }

    /// Records that can be acquired, as far as looked through (see [`Queue::catch_up`]).
    pub fn ready(&self) -> u64 {
        self.inner.lock().ready()
    }

    /// Records acquired and not settled.
    pub fn in_flight(&self) -> u64 {
        self.inner.lock().in_flight() as u64
    }

    /// Returns when a record can be acquired, or the queue is deleted. Pushed by commits and releases.
    pub async fn wait_ready(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed, though it is waited for only below.
            changed.as_mut().enable();
            if self.is_deleted() {
                return;
            }
            self.tend().await;
            if self
                .next_ready(&mut *self.gate.lock().await)
                .await
                .is_some()
            {
                return;
            }
            tokio::select! {
                () = changed => {}
                // One is woken, and may leave before it has looked: so all look.
                () = self.committed.raised() => self.changed.notify_waiters(),
            }
        }
    }

    /// Deletes the queue with its state, durably. Every later operation finds it deleted.
    pub async fn delete(&self) -> Result<(), WriteError> {
        let written = self.kernel.write(Entry::new().with(Command::QueueDelete {
            queue: self.name.clone(),
        }));
        if !self.deleted.swap(true, Ordering::AcqRel) {
            // The name is free for a new queue from here on; its state is written after the deletion.
            self.kernel.forget_queue(self);
        }
        self.changed.notify_waiters();
        written.await?;
        *self.inner.lock() = Inner::default();
        Ok(())
    }

    /// The clock's stop watch: leases are no matter of the calendar.
    fn stop_watch_ms(&self) -> u64 {
        self.kernel.core.ports.clock.monotonic_us() / 1000
    }

    /// What is due now and then: leases that have ended, dead letters.
    pub(crate) async fn maintain(&self) {
        self.retry();
        self.follow_trims();
        let expired = self.inner.lock().expire(self.stop_watch_ms());
        if expired > 0 {
            self.counts.expired.fetch_add(expired, Ordering::Relaxed);
            self.changed.notify_waiters();
        }
        self.tend().await;
        // The trim of logs that are the queue's own follows the mark that is durable.
        if self.owns_a_log()
            && let Err(error) = self.persist_progress().await
        {
            tracing::warn!(%error, queue = %self.name, "the progress of a queue was not written; its log is trimmed later");
        }
    }

    fn owns_a_log(&self) -> bool {
        let streams = |p: &PartitionId| self.kernel.stream_by_id(p.stream);
        let inner = self.inner.lock();
        let mut sources = inner.sources.keys();
        sources.any(|p| streams(p).is_some_and(|stream| stream.trims_settled()))
    }

    /// Sources whose disk failed are tried again.
    fn retry(&self) {
        let mut inner = self.inner.lock();
        let failed = inner.sources.iter_mut().filter(|(_, s)| s.failed);
        let failed: Vec<_> = failed.map(|(p, s)| (s.failed = false, *p).1).collect();
        inner.stirred.extend(&failed);
        drop(inner);
        if !failed.is_empty() {
            self.changed.notify_waiters();
        }
    }
}

impl Kernel {
    /// After an orderly stop the log says exactly what was delivered. Before anything more is, it gets an entry, so that a life that wrote
    /// nothing else and was killed is not taken for the orderly one before it.
    async fn begin_deliveries(&self) {
        let begun = self.core.deliveries.get_or_try_init(|| async {
            self.write_urgent(Entry::new()).await?;
            Ok::<(), WriteError>(())
        });
        if let Err(error) = begun.await {
            tracing::warn!(%error, "that deliveries begin was not written; after a crash they may not be marked as redelivered");
        }
    }

    /// Lets every open queue write down how far it is; false when one could not.
    pub(crate) async fn persist_deliveries(&self) -> bool {
        for queue in self.open_queues() {
            if let Err(error) = queue.persist_progress().await {
                tracing::warn!(%error, queue = %queue.name, "the progress of a queue was not written; it is found again by looking through the log");
                return false;
            }
        }
        true
    }
}
