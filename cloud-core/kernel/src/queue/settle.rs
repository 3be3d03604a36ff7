//! Settling: records leave a queue when that is durable, not before.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use roaring::RoaringTreemap;

use super::Queue;
use super::dead_letter::DeadReason;
use super::leases::Inner;
use super::types::{DeliveryId, Verdict};
use crate::entry::{Command, Entry, Outcome, QueueSettled};
use crate::error::{QueueError, WriteError};
use crate::state::offset_u64;
use crate::stream::PartitionId;

/// An entry on its way.
pub(super) struct Written {
    /// True when it was applied.
    done: Pin<Box<dyn Future<Output = Result<bool, WriteError>> + Send>>,
    /// What it says of sources: low water and `delivered_to`. Durable with it, not before.
    marks: Vec<(PartitionId, (i64, i64))>,
}

/// A write whose caller has left before it ended.
pub(super) type Orphan = (Leaving, Written);

/// Offsets by source.
pub(super) type BySource = BTreeMap<PartitionId, RoaringTreemap>;

/// Records whose end is being written.
pub(super) enum Leaving {
    /// Out of leases.
    Leased(Vec<DeliveryId>),
    /// What was ready.
    Purged(BySource),
    /// To where dead letters go.
    Dead {
        ids: Vec<DeliveryId>,
        reason: DeadReason,
    },
    /// Nothing: how far the queue is.
    Progress,
}

impl Queue {
    /// Ends deliveries. `Accept` and `Reject` resolve when durable; `Release` puts the records back to where they were. Ids that
    /// are not in flight (any more: the lease may have expired, and somebody else may have the record) are ignored; the number of those that
    /// were is returned. After an error that is not `Failed` or `Closed` the records that are not settled are in flight as before.
    pub async fn settle(&self, ids: &[DeliveryId], verdict: Verdict) -> Result<usize, QueueError> {
        self.alive()?;
        match verdict {
            Verdict::Release => {
                let released = {
                    let mut inner = self.inner.lock();
                    ids.iter().filter(|id| inner.release(**id)).count()
                };
                if released > 0 {
                    self.changed.notify_waiters();
                }
                self.tend().await;
                Ok(released)
            }
            Verdict::Reject if self.limits().dead_letter.is_some() => {
                let ids = self.begin_end(ids);
                let count = ids.len();
                self.bury(ids, DeadReason::Rejected).await?;
                Ok(count)
            }
            Verdict::Accept | Verdict::Reject => {
                let ids = self.begin_end(ids);
                let count = ids.len();
                if count > 0 {
                    self.end(ids).await?;
                }
                Ok(count)
            }
        }
    }

    pub(super) fn begin_end(&self, ids: &[DeliveryId]) -> Vec<DeliveryId> {
        let mut inner = self.inner.lock();
        let held = ids.iter().copied().filter(|id| inner.begin_end(*id));
        held.collect()
    }

    /// Settles records whose leases are ending.
    pub(super) async fn end(&self, ids: Vec<DeliveryId>) -> Result<(), WriteError> {
        let written = {
            let mut inner = self.inner.lock();
            self.write_settled(&mut inner, by_source(&ids), Entry::new())
        };
        self.follow(Leaving::Leased(ids), written).await.map(drop)
    }

    /// Settles, durably, every record committed before the call that is for the queue, not settled and with no holder; what is in flight stays
    /// so, also what is put back while this is written. Returns how many that were: exactly those, each counted once. A source that cannot be read
    /// now keeps what was not found yet. After an error that is not `Failed` or `Closed` nothing was settled.
    pub async fn purge(&self) -> Result<u64, QueueError> {
        let _gate = self.gate.lock().await;
        self.alive()?;
        self.scan_all().await;
        let (purged, leaving, written) = {
            let mut inner = self.inner.lock();
            let sources = inner.sources.iter_mut().map(|(p, s)| (*p, s.purge()));
            let leaving: BySource = sources.filter(|(_, o)| !o.is_empty()).collect();
            inner.stirred.extend(leaving.keys());
            let purged = leaving.values().map(RoaringTreemap::len).sum();
            if purged == 0 {
                return Ok(0);
            }
            let written = self.write_settled(&mut inner, leaving.clone(), Entry::new());
            (purged, leaving, written)
        };
        self.follow(Leaving::Purged(leaving), written).await?;
        Ok(purged)
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
            let by_source: BySource = news.map(|(p, _)| (*p, RoaringTreemap::new())).collect();
            if by_source.is_empty() {
                return Ok(());
            }
            self.write_settled(&mut inner, by_source, Entry::new())
        };
        self.follow(Leaving::Progress, written).await.map(drop)
    }

    /// Adds to an entry that records are settled, and writes it. The low-water marks in it count on nothing that is not durable yet, so it does not
    /// matter in which order several of them reach the log, and which of them do.
    pub(super) fn write_settled(
        &self,
        inner: &mut Inner,
        by_source: BySource,
        mut entry: Entry,
    ) -> Written {
        let mut settled = Vec::with_capacity(by_source.len());
        let mut marks = Vec::with_capacity(by_source.len());
        for (partition, mut offsets) in by_source {
            if let Some(source) = inner.sources.get(&partition) {
                let low_water = source.low_water_without(&offsets);
                // Below the mark nothing need be said.
                offsets.remove_range(..offset_u64(low_water));
                marks.push((partition, (low_water, source.delivered_to)));
                settled.push(QueueSettled {
                    partition,
                    offsets,
                    low_water,
                    delivered_to: source.delivered_to,
                });
            }
        }
        entry.push(Command::QueueSettle {
            queue: self.name.clone(),
            settled,
        });
        let written = self.kernel.write(entry);
        let done = Box::pin(async move {
            let outcomes = written.await?;
            let refused = |o: &Outcome| matches!(o, Outcome::Refused(_) | Outcome::NotApplied);
            Ok(!outcomes.iter().any(refused))
        });
        Written { done, marks }
    }

    /// Waits for a write and does what follows from it; also when the caller does not wait to the end.
    pub(super) async fn follow(
        &self,
        leaving: Leaving,
        written: Written,
    ) -> Result<bool, WriteError> {
        let mut following = Following {
            queue: self,
            parts: Some((leaving, written)),
        };
        let Some((_, written)) = &mut following.parts else {
            return Ok(false);
        };
        let result = written.done.as_mut().await;
        if let Some((leaving, written)) = following.parts.take() {
            self.left(leaving, &written.marks, matches!(result, Ok(true)));
        }
        result
    }

    /// A write has ended.
    fn left(&self, leaving: Leaving, marks: &[(PartitionId, (i64, i64))], durable: bool) {
        let mut inner = self.inner.lock();
        for (partition, (low_water, delivered_to)) in marks.iter().filter(|_| durable) {
            if let Some(source) = inner.sources.get_mut(partition) {
                // Several may be on their way; the log keeps the highest of each.
                let (known_low_water, known_delivered_to) = source.persisted;
                source.persisted = (
                    known_low_water.max(*low_water),
                    known_delivered_to.max(*delivered_to),
                );
            }
        }
        match leaving {
            Leaving::Leased(ids) => ids.into_iter().for_each(|id| inner.settled(id, durable)),
            Leaving::Purged(by_source) => {
                for (partition, offsets) in by_source {
                    if let Some(source) = inner.source_mut(partition) {
                        source.purge_ended(offsets, durable);
                    }
                }
            }
            Leaving::Dead { ids, reason } => {
                if durable {
                    self.counts
                        .dead_lettered
                        .fetch_add(ids.len() as u64, Ordering::Relaxed);
                }
                if durable || reason == DeadReason::Rejected {
                    ids.into_iter().for_each(|id| inner.settled(id, durable));
                } else {
                    inner.dying.extend(ids);
                }
            }
            Leaving::Progress => {}
        }
        drop(inner);
        if !durable {
            self.changed.notify_waiters();
        }
    }

    /// Follows up the writes whose callers have left.
    pub(super) fn adopt(&self) {
        let orphans = std::mem::take(&mut self.inner.lock().orphans);
        let mut waiting = Vec::new();
        for (leaving, mut written) in orphans {
            let poll = written
                .done
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
            match poll {
                Poll::Ready(result) => {
                    self.left(leaving, &written.marks, matches!(result, Ok(true)));
                }
                Poll::Pending => waiting.push((leaving, written)),
            }
        }
        self.inner.lock().orphans.extend(waiting);
    }
}

impl Inner {
    fn settled(&mut self, id: DeliveryId, durable: bool) {
        if durable {
            self.ended(id);
        } else {
            self.end_failed(id);
        }
    }
}

pub(super) fn by_source(ids: &[DeliveryId]) -> BySource {
    let mut by_source = BySource::new();
    for id in ids {
        let offsets = by_source.entry(id.partition).or_default();
        offsets.insert(offset_u64(id.offset));
    }
    by_source
}

struct Following<'a> {
    queue: &'a Queue,
    parts: Option<Orphan>,
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        if let Some(orphan) = self.parts.take() {
            self.queue.inner.lock().orphans.push(orphan);
        }
    }
}
