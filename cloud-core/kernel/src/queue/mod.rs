//! Queues: who has which record of a log, as sparse state over it.
//!
//! Durable is, for each source, a low-water mark and the settled offsets above it. The rest is found again by looking through the log from
//! the mark: which records are for the queue (the selector says), which of them are ready, who has what. Looking through is driven by
//! whoever wants records or waits for them; commits wake those who wait. Memory grows with what is in flight and with the runs of
//! ready records, not with the records themselves.

mod scan;
mod source;
mod types;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use record::Record;
use tokio::sync::Notify;

pub use types::{Acquired, DeliveryId, HolderId, QueueName, QueueSource, Selector, Verdict};

use crate::entry::{Command, Entry, QueueSettled};
use crate::error::{QueueError, WriteError};
use crate::kernel::Kernel;
use crate::state::SourceState;
use crate::stats::QueueStats;
use crate::stream::PartitionId;
use scan::Decoded;
use source::Source;

/// A queue over partitions. Cheap to share; see [`crate::Kernel::queue`].
pub struct Queue {
    kernel: Kernel,
    name: QueueName,
    selector: ArcSwap<Arc<dyn Selector>>,
    /// Held by whoever looks through the log or takes records: one at a time, so that records go out in order.
    gate: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
    /// Something may be ready, or the queue is deleted.
    changed: Notify,
    deleted: AtomicBool,
    dropped: AtomicU64,
    /// Delivered by an earlier life of the queue in this process: everything below the end may have been.
    reopened: bool,
}

#[derive(Default)]
struct Inner {
    sources: BTreeMap<PartitionId, Source>,
    /// Who has what.
    leases: HashMap<DeliveryId, HolderId>,
    holders: HashMap<HolderId, BTreeSet<DeliveryId>>,
    /// How often what is out, or was put back, has been handed out.
    counts: HashMap<DeliveryId, u32>,
    /// The batch that was read last: one with many records is not read again for each.
    decoded: Option<Decoded>,
}

impl Queue {
    pub(crate) fn open(
        kernel: Kernel,
        name: QueueName,
        selector: Arc<dyn Selector>,
        reopened: bool,
    ) -> Queue {
        let queue = Queue {
            kernel,
            name,
            selector: ArcSwap::from_pointee(selector),
            gate: tokio::sync::Mutex::new(()),
            inner: Mutex::default(),
            changed: Notify::new(),
            deleted: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
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

    pub(crate) fn stats(&self) -> QueueStats {
        let dropped = self.dropped.load(Ordering::Relaxed);
        QueueStats {
            name: self.name.clone(),
            ready: self.ready(),
            in_flight: self.in_flight(),
            dropped,
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
        let wanted: BTreeMap<_, _> = sources.into_iter().map(|s| (s.partition, s.from)).collect();
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

    /// Takes up to `max_records` records, of `max_bytes` in keys, values and headers together (at least one), for `holder`,
    /// in commit order over all sources. Empty when nothing is ready.
    ///
    /// Looks first through what was committed before the call, so that a record whose write has been acknowledged is seen.
    pub async fn acquire(
        &self,
        holder: HolderId,
        max_records: usize,
        max_bytes: usize,
    ) -> Vec<Acquired> {
        let _gate = self.gate.lock().await;
        let mut acquired = Vec::new();
        let mut bytes = 0;
        while acquired.len() < max_records && !self.is_deleted() {
            let Some(id) = self.next_ready().await else {
                break;
            };
            let Some((record, stream)) = self.record(id).await else {
                continue;
            };
            bytes += size(&record);
            if bytes > max_bytes && !acquired.is_empty() {
                break;
            }
            let mut inner = self.inner.lock();
            let Some(source) = inner.sources.get_mut(&id.partition) else {
                continue;
            };
            source.take(id.offset);
            let uncertain = id.offset < source.uncertain_below;
            let count = inner
                .counts
                .get(&id)
                .map_or(1, |count| count.saturating_add(1));
            inner.counts.insert(id, count);
            inner.leases.insert(id, holder);
            inner.holders.entry(holder).or_default().insert(id);
            acquired.push(Acquired {
                id,
                record,
                stream,
                redelivered: uncertain || count > 1,
                delivery_count: count,
            });
        }
        acquired
    }

    /// Ends deliveries. `Accept` and `Reject` resolve when durable; `Release` puts the records back to where they were. Ids that
    /// are not in flight are ignored; the number of those that were is returned.
    pub async fn settle(&self, ids: &[DeliveryId], verdict: Verdict) -> Result<usize, QueueError> {
        self.alive()?;
        if verdict == Verdict::Release {
            let released = {
                let mut inner = self.inner.lock();
                ids.iter().filter(|id| inner.release(**id)).count()
            };
            if released > 0 {
                self.changed.notify_waiters();
            }
            return Ok(released);
        }
        let (settled, written) = {
            let mut inner = self.inner.lock();
            let mut by_source: BTreeMap<PartitionId, roaring::RoaringTreemap> = BTreeMap::new();
            let mut settled = 0;
            for id in ids {
                if inner.end_lease(*id) {
                    settled += 1;
                    inner.counts.remove(id);
                    if let Some(source) = inner.sources.get_mut(&id.partition) {
                        source.out.remove(&id.offset);
                        by_source
                            .entry(id.partition)
                            .or_default()
                            .insert(crate::state::offset_u64(id.offset));
                    }
                }
            }
            if by_source.is_empty() {
                return Ok(settled);
            }
            // Handed to the writer before the lock is given back: the low-water marks of two settlements follow each other in the log, so the
            // later may already count on the earlier.
            (settled, self.write_settled(&mut inner, by_source))
        };
        written.await?;
        Ok(settled)
    }

    fn write_settled(
        &self,
        inner: &mut Inner,
        by_source: BTreeMap<PartitionId, roaring::RoaringTreemap>,
    ) -> impl Future<Output = Result<(), WriteError>> + Send + use<> {
        let mut settled = Vec::with_capacity(by_source.len());
        for (partition, mut offsets) in by_source {
            if let Some(source) = inner.sources.get_mut(&partition) {
                let low_water = source.low_water();
                // Below the mark nothing need be said.
                offsets.remove_range(..crate::state::offset_u64(low_water));
                source.persisted = (low_water, source.delivered_to);
                settled.push(QueueSettled {
                    partition,
                    offsets,
                    low_water,
                    delivered_to: source.delivered_to,
                });
            }
        }
        let written = self.kernel.write(Entry::new().with(Command::QueueSettle {
            queue: self.name.clone(),
            settled,
        }));
        async move { written.await.map(|_| ()) }
    }

    /// Puts back everything `holder` has; returns how many.
    pub fn release_holder(&self, holder: HolderId) -> usize {
        let released = {
            let mut inner = self.inner.lock();
            let ids = inner.holders.get(&holder).cloned().unwrap_or_default();
            ids.into_iter().filter(|id| inner.release(*id)).count()
        };
        if released > 0 {
            self.changed.notify_waiters();
        }
        released
    }

    /// Looks through everything committed before the call, so that [`Queue::ready`] is exact.
    pub async fn catch_up(&self) {
        let _gate = self.gate.lock().await;
        self.scan_all().await;
    }

    /// Records that can be acquired, as far as looked through (see [`Queue::catch_up`]).
    pub fn ready(&self) -> u64 {
        self.inner
            .lock()
            .sources
            .values()
            .map(|source| source.ready.len())
            .sum()
    }

    /// Records acquired and not settled.
    pub fn in_flight(&self) -> u64 {
        self.inner.lock().leases.len() as u64
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
            let positions = {
                let _gate = self.gate.lock().await;
                if self.next_ready().await.is_some() {
                    return;
                }
                self.positions()
            };
            tokio::select! {
                () = changed => {}
                _ = self.kernel.wait_stable(&positions) => {}
            }
        }
    }

    /// Settles every ready record durably; what is in flight stays. Returns how many.
    pub async fn purge(&self) -> Result<u64, QueueError> {
        let _gate = self.gate.lock().await;
        self.alive()?;
        self.scan_all().await;
        let (purged, written) = {
            let mut inner = self.inner.lock();
            let mut by_source = BTreeMap::new();
            let mut purged = 0;
            let mut forgotten = Vec::new();
            for (partition, source) in &mut inner.sources {
                purged += source.ready.len();
                forgotten.extend(source.ready.iter().map(|offset| DeliveryId {
                    partition: *partition,
                    offset: offset.cast_signed(),
                }));
                by_source.insert(*partition, std::mem::take(&mut source.ready));
            }
            if purged == 0 {
                return Ok(0);
            }
            if !inner.counts.is_empty() {
                for id in &forgotten {
                    inner.counts.remove(id);
                }
            }
            (purged, self.write_settled(&mut inner, by_source))
        };
        written.await?;
        Ok(purged)
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

    /// Tells the log how far it has handed out and looked through, if that is news.
    pub(crate) async fn persist_progress(&self) -> Result<(), WriteError> {
        if self.is_deleted() {
            return Ok(());
        }
        let written = {
            let mut inner = self.inner.lock();
            let news = inner.sources.iter().filter(|(_, source)| {
                source.persisted != (source.low_water(), source.delivered_to)
            });
            let by_source: BTreeMap<_, _> = news
                .map(|(partition, _)| (*partition, roaring::RoaringTreemap::new()))
                .collect();
            if by_source.is_empty() {
                return Ok(());
            }
            self.write_settled(&mut inner, by_source)
        };
        written.await
    }

    /// Sources whose disk failed are tried again.
    pub(crate) fn retry(&self) {
        let mut any = false;
        for source in self.inner.lock().sources.values_mut() {
            any |= std::mem::take(&mut source.failed);
        }
        if any {
            self.changed.notify_waiters();
        }
    }
}

impl Inner {
    fn end_lease(&mut self, id: DeliveryId) -> bool {
        let Some(holder) = self.leases.remove(&id) else {
            return false;
        };
        if let Some(ids) = self.holders.get_mut(&holder) {
            ids.remove(&id);
            if ids.is_empty() {
                self.holders.remove(&holder);
            }
        }
        true
    }

    fn release(&mut self, id: DeliveryId) -> bool {
        if !self.end_lease(id) {
            return false;
        }
        if let Some(source) = self.sources.get_mut(&id.partition) {
            source.put_back(id.offset);
        }
        true
    }

    fn drop_source(&mut self, partition: PartitionId) {
        self.sources.remove(&partition);
        let ids: Vec<_> = self
            .leases
            .keys()
            .filter(|id| id.partition == partition)
            .copied()
            .collect();
        ids.into_iter().for_each(|id| {
            self.end_lease(id);
        });
        self.counts.retain(|id, _| id.partition != partition);
    }
}

/// Bytes of a record as far as its owner put them there.
fn size(record: &Record) -> usize {
    let headers = record
        .headers
        .iter()
        .map(|h| h.name.len() + h.value.as_ref().map_or(0, bytes::Bytes::len));
    record.key.as_ref().map_or(0, bytes::Bytes::len)
        + record.value.as_ref().map_or(0, bytes::Bytes::len)
        + headers.sum::<usize>()
}

impl Kernel {
    /// Lets every open queue write down how far it is.
    pub(crate) async fn persist_deliveries(&self) {
        for queue in self.open_queues() {
            if let Err(error) = queue.persist_progress().await {
                tracing::warn!(%error, queue = %queue.name, "the progress of a queue was not written; it is found again by looking through the log");
                return;
            }
        }
    }
}
