//! What can go wrong, for callers that branch on it.

use std::io;

use crate::ports::cold::ColdError;
use crate::stream::PartitionId;

/// Why a kernel did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file, relative to the data directory.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process has the data directory open.
    #[error(
        "the data directory is in use by another process: stop it, or choose another directory"
    )]
    Locked,
    /// Written by a version that is newer than this one.
    #[error(
        "{path} has format version {found}, this program reads up to {supported}: it was written by a newer version; use that version or a newer one"
    )]
    NewerVersion {
        /// The file.
        path: String,
        /// Version in the file.
        found: u32,
        /// Newest version this program reads.
        supported: u32,
    },
    /// Data that had been made durable is damaged; nothing was changed.
    #[error(
        "{path} is corrupt at byte {position} (entry {index}): {reason}; restore it from a copy, nothing was changed"
    )]
    Corrupt {
        /// The file.
        path: String,
        /// Where in the file, in bytes.
        position: u64,
        /// Index of the damaged entry, as far as known.
        index: u64,
        /// What is wrong.
        reason: String,
    },
    /// Not a data directory of this program.
    #[error("{path} is not a file of this program: {reason}")]
    Foreign {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A setting cannot work.
    #[error("setting {name}: {reason}")]
    Config {
        /// Which.
        name: &'static str,
        /// Why.
        reason: String,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// Why a write was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The kernel is shut down.
    #[error("the log is closed")]
    Closed,
    /// The disk failed earlier or now; whether this entry is durable is not known, and no write is accepted any more.
    #[error("the log failed and accepts no more writes until a restart: {0}")]
    Failed(String),
    /// The disk is full or does not answer, or more is waiting to be written than the limits allow. Nothing was written; later it may be.
    #[error(
        "there is no room to write: the disk is full or does not answer, or too much is waiting for it"
    )]
    Full,
    /// The entry, or something in it, is larger than the limit.
    #[error("{what} is {size} bytes, the limit is {limit}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A batch without records, or whose offsets are not consecutive; or a name that is empty.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

/// Why a batch was not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// There is no such partition.
    #[error("partition {0} does not exist")]
    UnknownPartition(PartitionId),
    /// The batch does not continue its producer's sequence.
    #[error("producer {producer_id} sent sequence {found}, expected {expected}")]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// What would have been next.
        expected: i32,
        /// What came.
        found: i32,
    },
    /// A newer epoch of the producer has written.
    #[error("producer {producer_id} epoch {found} is fenced by epoch {current}")]
    FencedEpoch {
        /// The producer.
        producer_id: i64,
        /// The newest epoch seen.
        current: i16,
        /// The epoch of the batch.
        found: i16,
    },
    /// The producer's transaction in the partition does not allow the batch.
    #[error("producer {producer_id}: {reason}")]
    TransactionState {
        /// The producer.
        producer_id: i64,
        /// Why not.
        reason: &'static str,
    },
    /// A newer coordinator has ended a transaction of the producer.
    #[error("producer {producer_id}: coordinator epoch {found} is fenced by epoch {current}")]
    FencedCoordinator {
        /// The producer.
        producer_id: i64,
        /// The newest coordinator epoch seen.
        current: i32,
        /// The epoch of the one that was refused.
        found: i32,
    },
    /// The kernel is shut down.
    #[error("the log is closed")]
    Closed,
    /// See [`WriteError::Failed`].
    #[error("the log failed and accepts no more writes until a restart: {0}")]
    Failed(String),
    /// See [`WriteError::Full`].
    #[error(
        "there is no room to write: the disk is full or does not answer, or too much is waiting for it"
    )]
    Full,
    /// Larger than the limit.
    #[error("the batch is {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The batch has no records, or offset deltas that contradict its record count.
    #[error("the batch is malformed: {0}")]
    Malformed(&'static str),
}

impl From<WriteError> for AppendError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Closed => AppendError::Closed,
            WriteError::Failed(reason) => AppendError::Failed(reason),
            WriteError::Full => AppendError::Full,
            WriteError::Malformed(reason) => AppendError::Malformed(reason),
            WriteError::TooLarge { size, limit, .. } => AppendError::TooLarge { size, limit },
        }
    }
}

/// Why records could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There is no such partition.
    #[error("partition {0} does not exist")]
    UnknownPartition(PartitionId),
    /// The offset is below the log start or above the end.
    #[error("offset {offset} of partition {partition} is outside {log_start}..={end}")]
    OutOfRange {
        /// Where.
        partition: PartitionId,
        /// What was asked.
        offset: i64,
        /// First offset there is.
        log_start: i64,
        /// Next offset to be written.
        end: i64,
    },
    /// The stored bytes are damaged. They are not served.
    #[error("partition {partition} is corrupt on disk from offset {first} to {last}: {reason}")]
    Corrupt {
        /// Where.
        partition: PartitionId,
        /// First damaged offset.
        first: i64,
        /// Last damaged offset.
        last: i64,
        /// What is wrong.
        reason: String,
    },
    /// The records are in the cold store, which does not give them now. Later it may.
    #[error("partition {partition} cannot be read from the cold store: {reason}")]
    Unavailable {
        /// Where.
        partition: PartitionId,
        /// Why.
        reason: String,
    },
    /// The disk failed.
    #[error("cannot read partition {partition}: {reason}")]
    Io {
        /// Where.
        partition: PartitionId,
        /// Why.
        reason: String,
    },
    /// The kernel is shut down.
    #[error("the log is closed")]
    Closed,
}

/// Why nothing was moved to the cold store, or deleted there. Nothing is lost by it; it is tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColdTierError {
    /// A copy of this data directory owns the cold store; from here it is only read any more.
    #[error(
        "a copy of this data directory owns the cold store: nothing is written or deleted there any more from here; stop one of the two"
    )]
    Fenced,
    /// The cold store failed.
    #[error(transparent)]
    Store(#[from] ColdError),
    /// What was to be sealed could not be read.
    #[error("the log cannot be read: {0}")]
    Wal(ReadError),
    /// What was done could not be logged.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why a stream was not created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateStreamError {
    /// One of that name exists.
    #[error("stream {0} exists")]
    Exists(String),
    /// Not a number of partitions.
    #[error("{0} partitions: must be 1 to {max}", max = crate::limits::MAX_PARTITIONS)]
    Partitions(u32),
    /// A configuration value cannot be enforced.
    #[error("configuration {key}: {reason}")]
    Config {
        /// Which key.
        key: String,
        /// Why not.
        reason: String,
    },
    /// The write failed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why a stream was not deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeleteStreamError {
    /// There is none of that name.
    #[error("stream {0} does not exist")]
    Unknown(String),
    /// The write failed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why a stream was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AlterStreamError {
    /// There is none of that name.
    #[error("stream {0} does not exist")]
    Unknown(String),
    /// Partitions can only be added.
    #[error("the stream has {current} partitions; it cannot get {requested} (at most {max}, never fewer)", max = crate::limits::MAX_PARTITIONS)]
    Partitions {
        /// What it has.
        current: u32,
        /// What was asked.
        requested: u32,
    },
    /// A configuration value cannot be enforced.
    #[error("configuration {key}: {reason}")]
    Config {
        /// Which key.
        key: String,
        /// Why not.
        reason: String,
    },
    /// The write failed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why a log was not trimmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrimError {
    /// There is no such partition.
    #[error("partition {0} does not exist")]
    UnknownPartition(PartitionId),
    /// Past the end of the log.
    #[error("offset {offset} is past the end {end}")]
    OutOfRange {
        /// What was asked.
        offset: i64,
        /// The end.
        end: i64,
    },
    /// The write failed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why an operation on a queue failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The queue was deleted.
    #[error("the queue was deleted")]
    Deleted,
    /// The write failed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Of what was rejected some cannot be read now, and so not be sent to where dead letters go: that is in flight as before.
    #[error(
        "rejected records cannot be read from their stream now, so they were not sent to the dead letters; the log has the reason; reject them again later"
    )]
    Unreadable,
}
