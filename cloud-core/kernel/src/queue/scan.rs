//! Looking through the log for a queue's records, and fetching them. Everything here runs with the queue's gate held.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use record::{Batch, Record};
use roaring::RoaringTreemap;

use super::dead_letter::Lost;
use super::heads::{Head, Heads};
use super::leases::Inner;
use super::{DeliveryId, Queue};
use crate::error::ReadError;
use crate::limits::QUEUE_SCAN_BYTES;
use crate::state::offset_u64;
use crate::stream::{PartitionId, Stream};

/// The records of one batch.
pub(super) struct Decoded {
    partition: PartitionId,
    /// By offset.
    records: Vec<Record>,
}

/// Why there is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is not there any more, or damaged.
    Gone,
    /// Its source does not answer now.
    Later,
}

impl Queue {
    /// The first record that is ready, in commit order over all sources; looks further only as far as needed.
    pub(super) async fn next_ready(&self, heads: &mut Heads) -> Option<DeliveryId> {
        loop {
            match self.first_head(heads)? {
                (partition, Head::Ready(offset)) => {
                    let acquisitions = &self.kernel.core.acquisitions;
                    return Some(DeliveryId {
                        partition,
                        offset,
                        epoch: acquisitions.fetch_add(1, Ordering::Relaxed),
                    });
                }
                (partition, Head::Unseen) => self.look(partition).await,
            }
        }
    }

    /// Looks through everything there is now.
    pub(super) async fn scan_all(&self) {
        self.follow_trims();
        let ends: Vec<_> = self
            .inner
            .lock()
            .sources
            .keys()
            .filter_map(|p| Some((*p, self.kernel.watermarks(*p)?.last_stable)))
            .collect();
        for (partition, end) in ends {
            while self
                .inner
                .lock()
                .sources
                .get(&partition)
                .is_some_and(|s| !s.failed && s.scanned < end)
            {
                self.look(partition).await;
            }
        }
    }

    /// Retention wins over a queue: what it removed is gone from here, too.
    pub(super) fn follow_trims(&self) {
        let mut inner = self.inner.lock();
        let partitions: Vec<_> = inner.sources.keys().copied().collect();
        for partition in partitions {
            self.follow_trim(&mut inner, partition);
        }
        let gone = std::mem::take(&mut inner.gone);
        self.counts.dropped.fetch_add(gone, Ordering::Relaxed);
    }

    /// The same for one source; true if there was anything to follow.
    pub(super) fn follow_trim(&self, inner: &mut Inner, partition: PartitionId) -> bool {
        let Some(source) = inner.sources.get_mut(&partition) else {
            return false;
        };
        let Some(watermarks) = self.kernel.watermarks(partition) else {
            let dropped = source.ready.len();
            self.counts.dropped.fetch_add(dropped, Ordering::Relaxed);
            inner.drop_source(partition);
            return true;
        };
        if !source.begins_before(watermarks.log_start) {
            return false;
        }
        if let Some(trimmed) = source.trimmed(watermarks.log_start) {
            let dropped = trimmed.records;
            self.counts.dropped.fetch_add(dropped, Ordering::Relaxed);
            tracing::warn!(queue = %self.name, %partition, ?trimmed, "the log was trimmed past records that the queue had not settled");
            inner.lost.push(Lost {
                partition,
                first: trimmed.first,
                records: trimmed.records,
            });
        }
        inner.stirred.insert(partition);
        true
    }

    /// Looks at the next batches of a source.
    async fn look(&self, partition: PartitionId) {
        let Some(from) = self
            .inner
            .lock()
            .sources
            .get(&partition)
            .map(|source| source.scanned)
        else {
            return;
        };
        let read = match self
            .kernel
            .read_committed(partition, from, QUEUE_SCAN_BYTES)
            .await
        {
            Ok(read) => read,
            Err(error) => {
                self.cannot_read(partition, &error);
                return;
            }
        };
        let Some(stream) = self.kernel.stream_by_id(partition.stream) else {
            return;
        };
        let selector = self.selector.load_full();
        let mut found = RoaringTreemap::new();
        for batch in &read.batches {
            for record in decode(batch) {
                if record.offset >= from && selector.selects(&stream, partition, &record) {
                    found.insert(offset_u64(record.offset));
                }
            }
        }
        let mut inner = self.inner.lock();
        let Some(source) = inner.source_mut(partition) else {
            return;
        };
        let new = source.looked(read.next_offset, found);
        drop(inner);
        if new > 0 {
            self.changed.notify_waiters();
        }
    }

    /// A record that is not settled, with its stream.
    pub(super) async fn record(&self, id: DeliveryId) -> Result<(Record, Arc<Stream>), Unread> {
        let stream = self.kernel.stream_by_id(id.partition.stream);
        let Some(stream) = stream else {
            self.follow_trim(&mut self.inner.lock(), id.partition);
            return Err(Unread::Gone);
        };
        if let Some(decoded) = &self.inner.lock().decoded
            && let Some(record) = decoded.find(id)
        {
            return Ok((record, stream));
        }
        let decoded = match self.kernel.read(id.partition, id.offset, 1).await {
            Ok(read) => Decoded {
                partition: id.partition,
                records: read.batches.first().map(decode).unwrap_or_default(),
            },
            Err(error) => return Err(self.cannot_read(id.partition, &error)),
        };
        let record = decoded.find(id);
        let mut inner = self.inner.lock();
        inner.decoded = (decoded.records.len() > 1).then_some(decoded);
        if record.is_none()
            && let Some(source) = inner.source_mut(id.partition)
        {
            let passed = source.pass_over(id.offset, id.offset);
            self.counts.dropped.fetch_add(passed, Ordering::Relaxed);
        }
        drop(inner);
        let record = record.ok_or(Unread::Gone)?;
        Ok((record, stream))
    }

    fn cannot_read(&self, partition: PartitionId, error: &ReadError) -> Unread {
        match error {
            ReadError::OutOfRange { .. } | ReadError::UnknownPartition(_) => {
                self.follow_trim(&mut self.inner.lock(), partition);
                Unread::Gone
            }
            ReadError::Corrupt { first, last, .. } => {
                tracing::error!(%error, queue = %self.name, "records are lost to the queue");
                if let Some(source) = self.inner.lock().source_mut(partition) {
                    let passed = source.pass_over(*first, *last);
                    self.counts.dropped.fetch_add(passed, Ordering::Relaxed);
                }
                Unread::Gone
            }
            ReadError::Unavailable { .. } | ReadError::Io { .. } | ReadError::Closed => {
                tracing::error!(%error, queue = %self.name, "a source cannot be read; it is tried again later");
                if let Some(source) = self.inner.lock().source_mut(partition) {
                    source.failed = true;
                }
                Unread::Later
            }
        }
    }
}

impl Decoded {
    fn find(&self, id: DeliveryId) -> Option<Record> {
        if self.partition != id.partition {
            return None;
        }
        let position = self
            .records
            .binary_search_by_key(&id.offset, |record| record.offset)
            .ok()?;
        self.records.get(position).cloned()
    }
}

/// The records of a batch; those behind a malformed one cannot be told apart and are left out.
fn decode(batch: &Batch) -> Vec<Record> {
    let records = batch
        .records()
        .map(|records| records.map_while(Result::ok).collect::<Vec<_>>());
    let records = records.unwrap_or_default();
    if records.len() != batch.record_count() as usize {
        tracing::error!(
            base_offset = batch.base_offset(),
            "a batch holds malformed records; a queue passes them over"
        );
    }
    records
}
