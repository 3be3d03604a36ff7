//! Feeds are partitions: where a filter's messages can be, reading them, waiting for more.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use kernel::{Kernel, PartitionId, ReadError as KernelReadError, Stream, StreamId};
use mqtt_broker::backend::{FeedId, FeedRead, Position, ReadError, StorageError, Wanted};
use mqtt_broker::convert;
use mqtt_codec::TopicFilter;
use record::{Batch, Namespace, StreamAddress, StreamName, stream_for_topic, topic_for_record};
use tokio::sync::watch;

use crate::metrics::Metrics;

pub struct Feeds {
    kernel: Kernel,
    namespace: Namespace,
    generation: watch::Receiver<u64>,
    metrics: Metrics,
}

pub(crate) fn feed(partition: PartitionId) -> FeedId {
    FeedId {
        stream: partition.stream.0,
        partition: partition.partition,
    }
}

pub(crate) fn partition(feed: FeedId) -> PartitionId {
    PartitionId {
        stream: StreamId(feed.stream),
        partition: feed.partition,
    }
}

/// The streams in which messages that match can be.
pub(crate) fn streams_for(
    kernel: &Kernel,
    namespace: &Namespace,
    filter: &TopicFilter,
) -> Vec<Arc<Stream>> {
    match filter.levels().next() {
        Some("+" | "#") | None => kernel.streams(namespace),
        Some(level) => {
            let address = StreamAddress::new(namespace.clone(), stream_for_topic(level));
            kernel.stream(&address).into_iter().collect()
        }
    }
}

/// Offsets are not negative.
pub(crate) fn position(offset: i64) -> Position {
    Position(u64::try_from(offset).unwrap_or(0))
}

pub(crate) fn offset(position: Position) -> i64 {
    i64::try_from(position.0).unwrap_or(i64::MAX)
}

fn storage(error: impl ToString) -> ReadError {
    ReadError::Storage(StorageError(error.to_string()))
}

impl Feeds {
    pub fn new(kernel: Kernel, namespace: Namespace, metrics: Metrics) -> Feeds {
        let generation = kernel.watch_streams();
        Feeds {
            kernel,
            namespace,
            generation,
            metrics,
        }
    }

    pub fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    /// The first level of a topic names its stream; a filter that begins with a wildcard looks at all of them. (Topics
    /// that begin with `$` are kept from such filters when messages are matched.)
    pub fn for_filter(&self, filter: &TopicFilter) -> Vec<(FeedId, Position)> {
        let streams = streams_for(&self.kernel, &self.namespace, filter);
        let partitions = streams.iter().flat_map(|stream| stream.partition_ids());
        let ends = partitions.filter_map(|partition| {
            let watermarks = self.kernel.watermarks(partition)?;
            Some((feed(partition), position(watermarks.end)))
        });
        ends.collect()
    }

    pub async fn read(
        &self,
        feed: FeedId,
        from: Position,
        max_bytes: usize,
        wanted: Wanted<'_>,
    ) -> Result<FeedRead, ReadError> {
        let partition = partition(feed);
        let stream = self
            .kernel
            .stream_by_id(partition.stream)
            .ok_or(ReadError::Gone)?;
        let asked = offset(from);
        let mut start = asked;
        let mut lost = 0;
        let read = loop {
            match self
                .kernel
                .read_committed(partition, start, max_bytes)
                .await
            {
                Ok(read) => break read,
                Err(KernelReadError::OutOfRange { log_start, .. }) if start < log_start => {
                    lost += log_start.abs_diff(start);
                    start = log_start;
                }
                Err(KernelReadError::UnknownPartition(_)) => return Err(ReadError::Gone),
                Err(error @ KernelReadError::Corrupt { last, .. }) if last >= start => {
                    // Never served. Without stepping over it, every session would stop here for ever.
                    self.metrics.unreadable.inc();
                    tracing::error!(stream = %stream.address, %error, "records are left out for MQTT readers");
                    lost += last.abs_diff(start) + 1;
                    start = last.saturating_add(1);
                }
                Err(error) => return Err(storage(error)),
            }
        };
        let mut messages = Vec::new();
        for batch in &read.batches {
            let wanted = |at: i64, topic: &str| at >= start && wanted(position(at), topic);
            self.unpack(batch, &stream.address.name, &wanted, &mut messages);
        }
        Ok(FeedRead {
            messages,
            next: position(read.next_offset),
            lost,
        })
    }

    fn unpack(
        &self,
        batch: &Batch,
        stream: &StreamName,
        wanted: &dyn Fn(i64, &str) -> bool,
        messages: &mut Vec<(Position, mqtt_broker::backend::Message)>,
    ) {
        let mut records = match batch.records() {
            Ok(records) => records,
            Err(error) => return self.unreadable(stream, batch, &error),
        };
        let wanted = |at: i64, key: Option<&[u8]>| wanted(at, &topic_for_record(stream, key));
        while let Some(record) = records.next_if(wanted) {
            match record {
                Ok(None) => {}
                Ok(Some(record)) => {
                    let message = convert::message(stream, &record);
                    messages.extend(message.map(|message| (position(record.offset), message)));
                }
                Err(error) => return self.unreadable(stream, batch, &error),
            }
        }
    }

    /// The checksum holds, so these are the bytes a producer sent: they are left to readers that can make sense of them.
    fn unreadable(&self, stream: &StreamName, batch: &Batch, error: &record::BatchError) {
        self.metrics.unreadable.inc();
        let offset = batch.base_offset();
        tracing::warn!(%stream, offset, %error, "a batch cannot be unpacked and is left out for MQTT readers");
    }

    /// Until there are other streams.
    pub fn changed(&self, generation: u64) -> BoxFuture<'static, ()> {
        let mut streams = self.generation.clone();
        Box::pin(async move {
            // An error means that the kernel is gone; the connection ends with the process.
            let _ = streams.wait_for(|now| *now != generation).await;
        })
    }

    pub async fn wait(&self, positions: &[(FeedId, Position)], generation: u64) -> Vec<FeedId> {
        let positions: Vec<_> = positions
            .iter()
            .map(|(feed, position)| (partition(*feed), offset(*position)))
            .collect();
        let changed = self.changed(generation);
        if positions.is_empty() {
            changed.await;
            return Vec::new();
        }
        tokio::select! {
            moved = self.kernel.wait_stable(&positions) => moved.into_iter().map(feed).collect(),
            () = changed => Vec::new(),
        }
    }
}
