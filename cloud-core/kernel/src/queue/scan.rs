//! Looking through the log for a queue's records, and fetching them. Everything here runs with the queue's gate held.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use record::{Batch, Record};
use roaring::RoaringTreemap;

use super::dead_letter::Lost;
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

/// A place in the order of commits: entry, and place in the entry.
type Order = (u64, u32);

/// What comes next in the order of commits.
enum Next {
    /// This record.
    Ready(DeliveryId),
    /// Something nobody has looked at.
    Unseen(PartitionId),
    Nothing,
}

impl Queue {
    /// The first record that is ready, in commit order over all sources; looks further only as far as needed.
    pub(super) async fn next_ready(&self) -> Option<DeliveryId> {
        self.follow_trims();
        loop {
            match self.next() {
                Next::Ready(id) => return Some(id),
                Next::Unseen(partition) => self.look(partition).await,
                Next::Nothing => return None,
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

    /// Where to wait for more.
    pub(super) fn positions(&self) -> Vec<(PartitionId, i64)> {
        self.inner
            .lock()
            .sources
            .iter()
            .filter(|(_, source)| !source.failed)
            .map(|(p, source)| (*p, source.scanned))
            .collect()
    }

    /// Retention wins over a queue: what it removed is gone from here, too.
    fn follow_trims(&self) {
        let mut inner = self.inner.lock();
        let mut dropped = 0;
        let mut gone = Vec::new();
        let mut lost = Vec::new();
        for (partition, source) in &mut inner.sources {
            let Some(watermarks) = self.kernel.watermarks(*partition) else {
                dropped += source.ready.len();
                gone.push(*partition);
                continue;
            };
            let Some(trimmed) = source.trimmed(watermarks.log_start) else {
                continue;
            };
            dropped += trimmed.records;
            tracing::warn!(queue = %self.name, %partition, ?trimmed, "the log was trimmed past records that the queue had not settled");
            lost.push(Lost {
                partition: *partition,
                first: trimmed.first,
                records: trimmed.records,
            });
        }
        inner.lost.extend(lost);
        dropped += std::mem::take(&mut inner.gone);
        gone.into_iter()
            .for_each(|partition| inner.drop_source(partition));
        self.counts.dropped.fetch_add(dropped, Ordering::Relaxed);
    }

    fn next(&self) -> Next {
        let inner = self.inner.lock();
        let mut ready: Option<(Order, (PartitionId, i64))> = None;
        let mut unseen: Option<(Order, PartitionId)> = None;
        for (partition, source) in inner.sources.iter().filter(|(_, source)| !source.failed) {
            if let Some(offset) = source.first_ready() {
                // Without a batch it was trimmed this moment: reading it will tell.
                let order = self.order_of(*partition, offset).unwrap_or((0, 0));
                if ready.as_ref().is_none_or(|(first, _)| order < *first) {
                    ready = Some((order, (*partition, offset)));
                }
            }
            if let Some(order) = self.order_of(*partition, source.scanned)
                && unseen.as_ref().is_none_or(|(first, _)| order < *first)
            {
                unseen = Some((order, *partition));
            }
        }
        match (ready, unseen) {
            (Some((order, _)), Some((earlier, partition))) if earlier < order => {
                Next::Unseen(partition)
            }
            (Some((_, (partition, offset))), _) => Next::Ready(DeliveryId {
                partition,
                offset,
                epoch: self
                    .kernel
                    .core
                    .acquisitions
                    .fetch_add(1, Ordering::Relaxed),
            }),
            (None, Some((_, partition))) => Next::Unseen(partition),
            (None, None) => Next::Nothing,
        }
    }

    /// When the batch with an offset was committed; `None` past the end.
    fn order_of(&self, partition: PartitionId, offset: i64) -> Option<Order> {
        let partition = self.kernel.core.state.partition(partition)?;
        let log = partition.log.lock();
        if offset >= log.watermarks().last_stable {
            return None;
        }
        log.order_at(offset)
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
            Err(error) => return self.cannot_read(partition, &error),
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
        let Some(source) = inner.sources.get_mut(&partition) else {
            return;
        };
        let new = source.looked(read.next_offset, found);
        drop(inner);
        if new > 0 {
            self.changed.notify_waiters();
        }
    }

    /// A ready record, with its stream; `None` when it is not there any more.
    pub(super) async fn record(&self, id: DeliveryId) -> Option<(Record, Arc<Stream>)> {
        let stream = self.kernel.stream_by_id(id.partition.stream);
        let Some(stream) = stream else {
            self.follow_trims();
            return None;
        };
        if let Some(decoded) = &self.inner.lock().decoded
            && let Some(record) = decoded.find(id)
        {
            return Some((record, stream));
        }
        let decoded = match self.kernel.read(id.partition, id.offset, 1).await {
            Ok(read) => Decoded {
                partition: id.partition,
                records: read.batches.first().map(decode).unwrap_or_default(),
            },
            Err(error) => {
                self.cannot_read(id.partition, &error);
                return None;
            }
        };
        let record = decoded.find(id);
        let mut inner = self.inner.lock();
        inner.decoded = (decoded.records.len() > 1).then_some(decoded);
        if record.is_none()
            && let Some(source) = inner.sources.get_mut(&id.partition)
        {
            let passed = source.pass_over(id.offset, id.offset);
            self.counts.dropped.fetch_add(passed, Ordering::Relaxed);
        }
        drop(inner);
        record.map(|record| (record, stream))
    }

    fn cannot_read(&self, partition: PartitionId, error: &ReadError) {
        match error {
            ReadError::OutOfRange { .. } | ReadError::UnknownPartition(_) => self.follow_trims(),
            ReadError::Corrupt { first, last, .. } => {
                tracing::error!(%error, queue = %self.name, "records are lost to the queue");
                if let Some(source) = self.inner.lock().sources.get_mut(&partition) {
                    let passed = source.pass_over(*first, *last);
                    self.counts.dropped.fetch_add(passed, Ordering::Relaxed);
                }
            }
            ReadError::Unavailable { .. } | ReadError::Io { .. } | ReadError::Closed => {
                tracing::error!(%error, queue = %self.name, "a source cannot be read; it is tried again later");
                if let Some(source) = self.inner.lock().sources.get_mut(&partition) {
                    source.failed = true;
                }
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
