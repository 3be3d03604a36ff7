//! Publishing: messages of many connections become few batches.
//!
//! Each stream that is being written to has a queue and one task. While its write is in flight the next messages collect
//! in the queue, and go out together as one kernel entry: one multi-record batch a partition, with the retained messages
//! and QoS 2 packet ids of the group in the same entry. A message takes its place in the queue when it is published,
//! before anything is awaited: that keeps the order of a connection, even while its stream is still being created.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use frontend::{Context, StreamForWriteError};
use kernel::{
    AppendError, Command, CreateStreamError, Entry, Outcome, PartitionId, SequenceRule, Stream,
    WriteError,
};
use mqtt_broker::backend::PublishError;
use parking_lot::Mutex;
use record::{
    Batch, BatchBuilder, BuildError, NewRecord, StreamAddress, StreamName, partition_for_key,
};
use tokio::sync::oneshot;

use crate::limits;
use crate::metrics::Metrics;

type Verdict = Result<(), PublishError>;

/// Messages of one connection on their way.
struct Pending {
    records: Vec<NewRecord>,
    /// To be applied with the records or not at all: retained message, QoS 2 packet id.
    with_it: Vec<Command>,
    size: usize,
    done: oneshot::Sender<Verdict>,
}

/// The queues of all streams that are being written to. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

struct Shared {
    ctx: Context,
    metrics: Metrics,
    namespace: record::Namespace,
    /// An entry exists as long as the stream's task runs.
    queues: Mutex<HashMap<StreamName, VecDeque<Pending>>>,
    pending_bytes: AtomicUsize,
}

impl Publisher {
    pub fn new(ctx: Context, namespace: record::Namespace, metrics: Metrics) -> Publisher {
        let shared = Shared {
            ctx,
            metrics,
            namespace,
            queues: Mutex::default(),
            pending_bytes: AtomicUsize::new(0),
        };
        Publisher {
            shared: Arc::new(shared),
        }
    }

    /// Its bytes, if there are not too many.
    pub fn check_size(&self, record: &NewRecord) -> Result<usize, PublishError> {
        let body = record_size(record);
        let limit = self.shared.ctx.limits.message_bytes;
        if body > limit {
            return Err(PublishError::QuotaExceeded(format!(
                "the message is {body} bytes, the limit is {limit}"
            )));
        }
        Ok(body)
    }

    /// Queues records at once, of which [`Publisher::check_size`] gave `bytes`; the receiver resolves when they are durable together with the
    /// commands in `with_it`.
    pub fn publish(
        &self,
        stream: StreamName,
        records: Vec<NewRecord>,
        bytes: usize,
        with_it: Vec<Command>,
    ) -> Result<oneshot::Receiver<Verdict>, PublishError> {
        let shared = &self.shared;
        let size = bytes + records.len() * limits::PENDING_OVERHEAD;
        if shared.pending_bytes.fetch_add(size, Ordering::Relaxed) + size > limits::PENDING_BYTES {
            shared.pending_bytes.fetch_sub(size, Ordering::Relaxed);
            let limit = limits::PENDING_BYTES;
            return Err(PublishError::Full(format!(
                "{limit} bytes are waiting to be written already"
            )));
        }
        let (done, verdict) = oneshot::channel();
        let pending = Pending {
            records,
            with_it,
            size,
            done,
        };
        let mut queues = shared.queues.lock();
        if let Some(queue) = queues.get_mut(&stream) {
            queue.push_back(pending);
        } else {
            queues.insert(stream.clone(), VecDeque::from([pending]));
            tokio::spawn(Arc::clone(shared).write_queue(stream));
        }
        Ok(verdict)
    }
}

impl Shared {
    /// Writes group after group until the queue of the stream is empty.
    async fn write_queue(self: Arc<Self>, name: StreamName) {
        let address = StreamAddress::new(self.namespace.clone(), name.clone());
        while let Some(group) = self.next_group(&name) {
            let size: usize = group.iter().map(|pending| pending.size).sum();
            self.write_group(&address, group).await;
            self.pending_bytes.fetch_sub(size, Ordering::Relaxed);
        }
    }

    /// `None` when the queue is empty; it is removed then, and the next publish starts another task.
    fn next_group(&self, name: &StreamName) -> Option<Vec<Pending>> {
        let mut queues = self.queues.lock();
        let queue = queues.get_mut(name)?;
        let mut group = Vec::new();
        let (mut bytes, mut messages) = (0, 0);
        while let Some(next) = queue.front()
            && (group.is_empty()
                || bytes + next.size <= limits::GROUP_BYTES
                    && messages + next.records.len() <= limits::GROUP_MESSAGES)
        {
            bytes += next.size;
            messages += next.records.len();
            group.extend(queue.pop_front());
        }
        if group.is_empty() {
            queues.remove(name);
            return None;
        }
        Some(group)
    }

    async fn write_group(&self, address: &StreamAddress, mut group: Vec<Pending>) {
        let verdict = match self.ctx.stream_for_write(address).await {
            Ok(stream) => match entry(&stream, &mut group) {
                Ok(entry) => {
                    self.metrics.writes.inc();
                    verdict(self.ctx.kernel.write(entry).await)
                }
                Err(error) => Err(PublishError::QuotaExceeded(error.to_string())),
            },
            Err(error) => Err(refusal(error)),
        };
        for pending in group {
            // Nobody waits any more when the connection is gone: the message is stored all the same.
            let _ = pending.done.send(verdict.clone());
        }
    }
}

/// Records of one partition, and what they take in a batch.
#[derive(Default)]
struct Part<'a> {
    records: Vec<&'a NewRecord>,
    bytes: usize,
}

/// One batch a partition (more where one gets too large), in the order of publishing, and what goes with the messages.
fn entry(stream: &Stream, group: &mut [Pending]) -> Result<Entry, BuildError> {
    let mut parts: HashMap<u32, Part> = HashMap::new();
    for record in group.iter().flat_map(|pending| &pending.records) {
        let partition = partition_for_key(record.key.as_deref(), stream.partitions);
        let part = parts.entry(partition).or_default();
        part.bytes += record.max_encoded_len();
        part.records.push(record);
    }
    let mut entry = Entry::new();
    for (partition, part) in parts {
        let mut builder = BatchBuilder::with_room(part.bytes);
        for record in part.records {
            match builder.push(record) {
                Ok(()) => {}
                Err(_) if !builder.is_empty() => {
                    push(
                        &mut entry,
                        stream,
                        partition,
                        mem::take(&mut builder).build()?,
                    );
                    builder.push(record)?;
                }
                Err(error) => return Err(error),
            }
        }
        push(&mut entry, stream, partition, builder.build()?);
    }
    for pending in group {
        // They are in the batches. The buffers in which they came need not wait for the disk.
        pending.records = Vec::new();
        entry.commands.append(&mut pending.with_it);
    }
    Ok(entry)
}

fn push(entry: &mut Entry, stream: &Stream, partition: u32, batch: Batch) {
    let partition: PartitionId = stream.id.partition(partition);
    entry.push(Command::Append {
        partition,
        batch,
        rule: SequenceRule::None,
    });
}

fn verdict(outcomes: Result<Vec<Outcome>, WriteError>) -> Verdict {
    let outcomes = outcomes.map_err(write_refusal)?;
    let refused = outcomes.into_iter().find_map(|outcome| match outcome {
        Outcome::Refused(error) => Some(error),
        _ => None,
    });
    match refused {
        None => Ok(()),
        Some(error @ AppendError::TooLarge { .. }) => {
            Err(PublishError::QuotaExceeded(error.to_string()))
        }
        Some(error) => Err(PublishError::Unavailable(error.to_string())),
    }
}

fn refusal(error: StreamForWriteError) -> PublishError {
    match error {
        StreamForWriteError::Unknown(_) => PublishError::TopicNameInvalid(error.to_string()),
        StreamForWriteError::Create(CreateStreamError::Write(error)) => write_refusal(error),
        StreamForWriteError::Create(error) => PublishError::TopicNameInvalid(error.to_string()),
    }
}

pub fn write_refusal(error: WriteError) -> PublishError {
    match error {
        WriteError::Closed | WriteError::Failed(_) | WriteError::Malformed(_) => {
            PublishError::Unavailable(error.to_string())
        }
        WriteError::Full => PublishError::Full(error.to_string()),
        WriteError::TooLarge { .. } => PublishError::QuotaExceeded(error.to_string()),
    }
}

fn record_size(record: &NewRecord) -> usize {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers = record
        .headers
        .iter()
        .map(|header| header.name.len() + length(&header.value))
        .sum::<usize>();
    length(&record.key) + length(&record.value) + headers
}
