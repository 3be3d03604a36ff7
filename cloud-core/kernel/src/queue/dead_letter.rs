//! Where records go that nobody could do anything with: appended to the target and settled in one entry, so that each is there exactly once.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use record::{Batch, BatchBuilder, Header, NewRecord};

use super::Queue;
use super::acquire::size;
use super::scan::Unread;
use super::settle::{Leaving, by_source};
use super::types::DeliveryId;
use crate::entry::{Entry, SequenceRule};
use crate::error::{QueueError, WriteError};
use crate::limits::{QUEUE_DEAD_LETTER_BYTES, QUEUE_DEAD_LETTER_RECORDS};
use crate::stream::{PartitionId, Stream};

/// Header of a dead letter: why it is one; see [`DeadReason::as_str`].
pub const DEAD_REASON: &str = "_tl.dead-reason";
/// Header of a dead letter: name of the queue.
pub const DEAD_QUEUE: &str = "_tl.dead-queue";
/// Header of a dead letter: name of the stream it was in.
pub const DEAD_STREAM: &str = "_tl.dead-stream";
/// Header of a dead letter: partition and offset it had, `partition/offset`; for `retention` the first offset that is gone.
pub const DEAD_POSITION: &str = "_tl.dead-position";
/// Header of a dead letter: how often it was handed out; for `retention`, how many records are known to be lost.
pub const DEAD_COUNT: &str = "_tl.dead-count";

const DEAD_PREFIX: &[u8] = b"_tl.dead-";

/// Why a record is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadReason {
    /// Refused for good.
    Rejected,
    /// Handed out as often as the limit allows, and never accepted.
    DeliveryLimit,
    /// Retention removed records before they were settled. The record says so; it is none of those.
    Retention,
}

impl DeadReason {
    /// As it stands in the header.
    pub fn as_str(self) -> &'static str {
        match self {
            DeadReason::Rejected => "rejected",
            DeadReason::DeliveryLimit => "delivery-limit",
            DeadReason::Retention => "retention",
        }
    }
}

/// What retention took from a queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lost {
    pub partition: PartitionId,
    pub first: i64,
    pub records: u64,
}

/// What becomes of some records that are to be dead letters.
#[derive(Default)]
struct Letters {
    batch: Option<Batch>,
    /// Those in the batch, and those of which nothing is left.
    ids: Vec<DeliveryId>,
    /// Those of a source that does not answer now.
    later: Vec<DeliveryId>,
}

/// Takes care of records whose end has begun: if it does not come to be written, they are as they were.
struct Burial<'a> {
    queue: &'a Queue,
    ids: Vec<DeliveryId>,
    /// Those of a source that does not answer now.
    later: Vec<DeliveryId>,
    reason: DeadReason,
}

impl Drop for Burial<'_> {
    fn drop(&mut self) {
        let mut ids = std::mem::take(&mut self.ids);
        ids.append(&mut self.later);
        if ids.is_empty() {
            return;
        }
        let mut inner = self.queue.inner.lock();
        match self.reason {
            DeadReason::DeliveryLimit => inner.dying.extend(ids),
            DeadReason::Rejected | DeadReason::Retention => {
                ids.into_iter().for_each(|id| inner.end_failed(id));
            }
        }
    }
}

impl Queue {
    /// What is due besides handing out: follows up writes whose callers left, buries what was handed out too often, reports what was lost.
    pub(super) async fn tend(&self) {
        let dying = {
            let mut inner = self.inner.lock();
            if inner.orphans.is_empty() && inner.dying.is_empty() && inner.lost.is_empty() {
                return;
            }
            std::mem::take(&mut inner.dying)
        };
        let burial = Burial {
            queue: self,
            ids: dying,
            later: Vec::new(),
            reason: DeadReason::DeliveryLimit,
        };
        self.adopt();
        let lost = self.report().await.map_err(QueueError::from);
        let buried = self.bury_all(burial).await;
        if let Err(error) = lost.and(buried) {
            tracing::warn!(%error, queue = %self.name, "dead letters could not be written; it is tried again");
        }
    }

    /// Sends records whose leases are ending to where dead letters go.
    pub(super) async fn bury(
        &self,
        ids: Vec<DeliveryId>,
        reason: DeadReason,
    ) -> Result<(), QueueError> {
        self.bury_all(Burial {
            queue: self,
            ids,
            later: Vec::new(),
            reason,
        })
        .await
    }

    async fn bury_all(&self, mut burial: Burial<'_>) -> Result<(), QueueError> {
        let reason = burial.reason;
        while !burial.ids.is_empty() {
            let target = self.limits().dead_letter;
            let target = target.filter(|target| self.kernel.watermarks(*target).is_some());
            let (batch, ids) = match target {
                Some(_) => {
                    let letters = self.dead_letters(&burial.ids, reason).await;
                    let looked_at = letters.ids.len() + letters.later.len();
                    burial.ids.drain(..looked_at.min(burial.ids.len()));
                    burial.later.extend(letters.later);
                    (letters.batch, letters.ids)
                }
                None => (None, std::mem::take(&mut burial.ids)),
            };
            if ids.is_empty() {
                continue;
            }
            let (Some(target), Some(batch)) = (target, batch) else {
                // Nowhere to go, or nothing there to be sent.
                let dropped = ids.len() as u64;
                self.end(ids).await?;
                self.counts.dropped.fetch_add(dropped, Ordering::Relaxed);
                tracing::warn!(queue = %self.name, reason = reason.as_str(), dropped, "dead letters were dropped: there is no stream for them, or they could not be read");
                continue;
            };
            let written = {
                let mut inner = self.inner.lock();
                let entry = Entry::new().append(target, batch, SequenceRule::None);
                self.write_settled(&mut inner, by_source(&ids), entry)
            };
            let again = ids.clone();
            if !self.follow(Leaving::Dead { ids, reason }, written).await?
                && reason == DeadReason::Rejected
            {
                // Not applied: the target went this moment. (What was handed out too often waits among the dying.)
                burial.ids.extend(self.begin_end(&again));
            }
        }
        if burial.later.is_empty() {
            Ok(())
        } else {
            Err(QueueError::Unreadable)
        }
    }

    /// The first of some records as a batch. Records that are gone or damaged are left out, but not alone: they are settled with the others.
    async fn dead_letters(&self, ids: &[DeliveryId], reason: DeadReason) -> Letters {
        let mut builder = BatchBuilder::new();
        let mut letters = Letters::default();
        for id in ids.iter().take(QUEUE_DEAD_LETTER_RECORDS) {
            if self.is_failed(id.partition) {
                letters.later.push(*id);
                continue;
            }
            let (record, stream) = match self.record(*id).await {
                Ok(found) => found,
                Err(Unread::Gone) => {
                    letters.ids.push(*id);
                    continue;
                }
                Err(Unread::Later) => {
                    letters.later.push(*id);
                    continue;
                }
            };
            // With room for the headers added, and lengths.
            let size = size(&record) + 4096;
            if builder.len() + size > QUEUE_DEAD_LETTER_BYTES && !builder.is_empty() {
                break;
            }
            letters.ids.push(*id);
            if size > self.kernel.core.config.max_batch_bytes {
                tracing::error!(queue = %self.name, offset = id.offset, "a record is too large for a dead letter and is dropped");
                continue;
            }
            let deliveries = {
                let inner = self.inner.lock();
                let source = inner.sources.get(&id.partition);
                source.map(|source| source.deliveries(id.offset))
            };
            let Some(deliveries) = deliveries else {
                // While it was read the queue lost its source, and with it the record.
                continue;
            };
            let mut record = NewRecord::from(record);
            record
                .headers
                .retain(|header| !header.name.starts_with(DEAD_PREFIX));
            record.headers.extend(self.headers(
                reason,
                &stream,
                (id.partition, id.offset),
                u64::from(deliveries),
            ));
            if let Err(error) = builder.push(&record) {
                tracing::error!(%error, queue = %self.name, offset = id.offset, "a dead letter does not fit into a batch and is dropped");
            }
        }
        letters.batch = builder.build().ok();
        letters
    }

    /// Whether the source did not answer, and was not told to try again since.
    fn is_failed(&self, partition: PartitionId) -> bool {
        let inner = self.inner.lock();
        let source = inner.sources.get(&partition);
        source.is_some_and(|source| source.failed)
    }

    fn headers(
        &self,
        reason: DeadReason,
        stream: &Stream,
        (partition, offset): (PartitionId, i64),
        count: u64,
    ) -> Vec<Header> {
        let text = |name: &'static str, value: String| Header::new(name, value.into_bytes());
        vec![
            text(DEAD_REASON, reason.as_str().to_owned()),
            text(DEAD_QUEUE, self.name.to_string()),
            text(DEAD_STREAM, stream.address.name.to_string()),
            text(DEAD_POSITION, format!("{}/{offset}", partition.partition)),
            text(DEAD_COUNT, count.to_string()),
        ]
    }

    /// Writes what retention took to where dead letters go, with the low-water mark behind it, so that it is said once.
    async fn report(&self) -> Result<(), WriteError> {
        loop {
            let (lost, target) = {
                let mut inner = self.inner.lock();
                (inner.lost.pop(), inner.limits.dead_letter)
            };
            let Some(lost) = lost else { return Ok(()) };
            let Some(target) = target else { continue };
            let Some(stream) = self.kernel.stream_by_id(lost.partition.stream) else {
                continue;
            };
            let mut builder = BatchBuilder::new();
            let record = NewRecord {
                timestamp: self.kernel.core.ports.clock.now_ms(),
                key: None,
                value: Some(Bytes::new()),
                headers: self.headers(
                    DeadReason::Retention,
                    &stream,
                    (lost.partition, lost.first),
                    lost.records,
                ),
            };
            let batch = builder.push(&record).and_then(|()| builder.build());
            let Ok(batch) = batch else { continue };
            let written = {
                let mut inner = self.inner.lock();
                let here = [(lost.partition, roaring::RoaringTreemap::new())].into();
                let entry = Entry::new().append(target, batch, SequenceRule::None);
                self.write_settled(&mut inner, here, entry)
            };
            if let Err(error) = self.follow(Leaving::Progress, written).await {
                self.inner.lock().lost.push(lost);
                return Err(error);
            }
        }
    }
}
