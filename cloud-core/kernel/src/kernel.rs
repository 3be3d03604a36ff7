//! The door: everything a front end calls.

use std::sync::Arc;

use bytes::Bytes;
use record::{Batch, Namespace, StreamAddress};

use crate::config::KernelConfig;
use crate::entry::{Appended, CursorName, CursorPosition, Entry, Outcome, SequenceRule};
use crate::error::*;
use crate::ports::Ports;
use crate::queue::{Queue, QueueName, Selector};
use crate::stats::KernelStats;
use crate::stream::{PartitionId, Stream, StreamId, StreamSpec};

/// The kernel. A clone is another handle to the same one.
#[derive(Clone)]
pub struct Kernel {
    _private: (),
}

/// What a read found.
#[derive(Debug, Clone)]
pub struct Read {
    /// Whole batches in offset order, with offset and leader epoch filled in; the first may begin below the offset asked.
    pub batches: Vec<Batch>,
    /// The watermarks when it was read.
    pub watermarks: Watermarks,
    /// First offset after the batches; the offset asked when there are none.
    pub next_offset: i64,
}

/// Positions of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watermarks {
    /// First offset that can be read.
    pub log_start: i64,
    /// Everything below is safe on all replicas that count. On one node: `end`.
    pub high_watermark: i64,
    /// Everything below is decided: no open transaction. Without transactions: `high_watermark`.
    pub last_stable: i64,
    /// Next offset to be written.
    pub end: i64,
}

#[allow(clippy::todo, unused_variables)]
impl Kernel {
    /// Opens and recovers. Blocks: call it outside of async code, or on a blocking thread.
    pub fn open(ports: Ports, config: KernelConfig) -> Result<Kernel, OpenError> {
        todo!()
    }
    /// Writes what is queued, makes a checkpoint and stops. Later writes get `Closed`.
    pub async fn shutdown(&self) {
        todo!()
    }
    /// Writes an entry; resolves when it is durable and applied, with one outcome for each command.
    ///
    /// The entry takes its place in the order of calls, when this function is called, not when the future is first polled; dropping the
    /// future does not take it back. When the queue is full the future stays unresolved until there was room: wait for it.
    pub fn write(&self, entry: Entry) -> impl Future<Output = Result<Vec<Outcome>, WriteError>> + Send + 'static {
        async { todo!() }
    }
    /// Appends one batch; like [`Kernel::write`].
    pub fn append(
        &self, partition: PartitionId, batch: Batch, rule: SequenceRule,
    ) -> impl Future<Output = Result<Appended, AppendError>> + Send + 'static {
        async { todo!() }
    }

    /// Creates a stream.
    pub async fn create_stream(&self, address: &StreamAddress, spec: StreamSpec) -> Result<Arc<Stream>, CreateStreamError> {
        todo!()
    }
    /// The stream of that name; made with the defaults if it is missing.
    pub async fn ensure_stream(&self, address: &StreamAddress) -> Result<Arc<Stream>, CreateStreamError> {
        todo!()
    }
    /// Deletes a stream and its records.
    pub async fn delete_stream(&self, address: &StreamAddress) -> Result<(), DeleteStreamError> {
        todo!()
    }
    /// Raises the number of partitions to `total`.
    pub async fn add_partitions(&self, address: &StreamAddress, total: u32) -> Result<Arc<Stream>, AlterStreamError> {
        todo!()
    }
    /// Replaces the configuration of a stream.
    pub async fn alter_stream_config(
        &self, address: &StreamAddress, config: std::collections::BTreeMap<String, String>,
    ) -> Result<Arc<Stream>, AlterStreamError> {
        todo!()
    }
    /// The stream of that name.
    pub fn stream(&self, address: &StreamAddress) -> Option<Arc<Stream>> {
        todo!()
    }
    /// The stream of that number.
    pub fn stream_by_id(&self, id: StreamId) -> Option<Arc<Stream>> {
        todo!()
    }
    /// All streams of a namespace, by name.
    pub fn streams(&self, namespace: &Namespace) -> Vec<Arc<Stream>> {
        todo!()
    }
    /// A generation that moves when a stream is created, deleted or altered.
    pub fn watch_streams(&self) -> tokio::sync::watch::Receiver<u64> {
        todo!()
    }

    /// Whole batches from the one that contains `offset`, at most `max_bytes` (but at least one batch, even a larger one).
    /// At the end of the log the result is empty: see [`Kernel::wait_past`].
    pub async fn read(&self, partition: PartitionId, offset: i64, max_bytes: usize) -> Result<Read, ReadError> {
        todo!()
    }
    /// The positions of a partition; `None` when there is none.
    pub fn watermarks(&self, partition: PartitionId) -> Option<Watermarks> {
        todo!()
    }
    /// Returns when any of the partitions has an end past its offset, or is gone. Pushed by commits.
    pub async fn wait_past(&self, positions: &[(PartitionId, i64)]) {
        todo!()
    }
    /// First batch that has a record with that timestamp (ms) or a later one: offset and timestamp. `None` when there is none.
    pub async fn offset_for_timestamp(&self, partition: PartitionId, timestamp: i64) -> Result<Option<(i64, i64)>, ReadError> {
        todo!()
    }
    /// Moves the log start forward, durably; returns the log start that holds then.
    pub async fn trim(&self, partition: PartitionId, log_start: i64) -> Result<i64, TrimError> {
        todo!()
    }

    /// Sets positions of a group, durably: partition, next offset, the owner's note.
    pub async fn cursor_commit(&self, group: &CursorName, positions: Vec<(PartitionId, i64, Bytes)>) -> Result<(), WriteError> {
        todo!()
    }
    /// Positions of a group, by partition; empty when there is none.
    pub fn cursor(&self, group: &CursorName) -> Vec<CursorPosition> {
        todo!()
    }
    /// All groups that have positions.
    pub fn cursors(&self) -> Vec<CursorName> {
        todo!()
    }
    /// Deletes a group; false when there was none.
    pub async fn cursor_delete(&self, group: &CursorName) -> Result<bool, WriteError> {
        todo!()
    }

    /// A value of a table.
    pub fn table_get(&self, table: &str, key: &[u8]) -> Option<Bytes> {
        todo!()
    }
    /// Keys that begin with `prefix`, with their values, by key.
    pub fn table_scan(&self, table: &str, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        todo!()
    }

    /// Opens a queue with the state that survived; without state it is empty until [`Queue::set_sources`]. A queue that
    /// is open already is returned, and uses the new selector for what it has not looked through yet.
    pub fn queue(&self, name: &QueueName, selector: Arc<dyn Selector>) -> Arc<Queue> {
        todo!()
    }
    /// Names of all queues that have durable state.
    pub fn queues(&self) -> Vec<QueueName> {
        todo!()
    }
    /// A producer id that nobody has had before.
    pub async fn allocate_producer_id(&self) -> Result<i64, WriteError> {
        todo!()
    }
    /// Figures for metrics.
    pub fn stats(&self) -> KernelStats {
        todo!()
    }
    /// Retention, checkpoint, deletion of WAL files. To be called by a timer, about once a second.
    pub async fn maintain(&self) {
        todo!()
    }
}
