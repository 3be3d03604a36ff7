//! What is written: an [`Entry`] of [`Command`]s, and what became of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use record::{Batch, BuildError, ControlRecord, StreamAddress};
use roaring::RoaringTreemap;
use uuid::Uuid;

use crate::error::AppendError;
use crate::queue::QueueName;
use crate::segment::{SegmentId, SegmentMeta};
use crate::stream::{PartitionId, StreamId};

/// Commands that are made durable together and applied together, or not at all: one frame in the WAL.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// In the order in which they are applied.
    pub commands: Vec<Command>,
}

impl Entry {
    /// An entry without commands.
    pub fn new() -> Entry {
        Entry::default()
    }

    /// Adds a command.
    pub fn push(&mut self, command: Command) {
        self.commands.push(command);
    }

    /// Adds a command, for chains.
    pub fn with(mut self, command: Command) -> Entry {
        self.commands.push(command);
        self
    }

    /// Adds an append.
    pub fn append(self, partition: PartitionId, batch: Batch, rule: SequenceRule) -> Entry {
        self.with(Command::Append {
            partition,
            batch,
            rule,
        })
    }

    /// Adds a table write.
    pub fn put(self, table: &str, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Entry {
        self.with(Command::TablePut {
            table: table.into(),
            key: key.into(),
            value: value.into(),
        })
    }

    /// Adds a table delete.
    pub fn delete(self, table: &str, key: impl Into<Bytes>) -> Entry {
        self.with(Command::TableDelete {
            table: table.into(),
            key: key.into(),
        })
    }
}

impl FromIterator<Command> for Entry {
    fn from_iter<I: IntoIterator<Item = Command>>(commands: I) -> Entry {
        Entry {
            commands: commands.into_iter().collect(),
        }
    }
}

/// One change of the state.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Command {
    /// Appends a batch; its offset is assigned when the entry is applied.
    Append {
        /// Where to.
        partition: PartitionId,
        /// What; the base offset and leader epoch in it are ignored.
        batch: Batch,
        /// How its producer sequence is checked.
        rule: SequenceRule,
    },
    /// Ends the transaction of a producer: a control batch is appended to each partition. Partitions that are gone are passed over. As
    /// with [`Command::Append`], one refusal refuses the entry: an older epoch of the producer, or of its coordinator, than a partition knows.
    /// Made by [`Command::end_transaction`].
    EndTransaction {
        /// Where. A partition in which nothing of the producer is open gets its control batch all the same, and knows the epoch then.
        partitions: Vec<PartitionId>,
        /// The control batch: it says whose transaction, which epoch, and how it ends. One copy of it is in the log for all partitions.
        marker: Batch,
    },
    /// Sets a value of a table; the table begins to exist with its first value.
    TablePut {
        /// Name of the table.
        table: Arc<str>,
        /// Key.
        key: Bytes,
        /// Value.
        value: Bytes,
    },
    /// Removes a value of a table, if it is there.
    TableDelete {
        /// Name of the table.
        table: Arc<str>,
        /// Key.
        key: Bytes,
    },
    /// Removes a value of a table, if it is this one: what was put there since it was read stays.
    TableDeleteIf {
        /// Name of the table.
        table: Arc<str>,
        /// Key.
        key: Bytes,
        /// The value that goes.
        value: Bytes,
    },
    /// Sets positions of a group; positions of other partitions stay.
    CursorCommit {
        /// The group.
        group: CursorName,
        /// The positions.
        positions: Vec<CursorPosition>,
    },
    /// Removes positions of a group.
    CursorDelete {
        /// The group.
        group: CursorName,
        /// Whose positions; `None` = all, and the group with them.
        partitions: Option<Vec<PartitionId>>,
    },
    /// Creates a stream.
    CreateStream {
        /// Namespace and name.
        address: StreamAddress,
        /// Chosen by the leader, at random.
        uuid: Uuid,
        /// At least 1.
        partitions: u32,
        /// See [`crate::StreamSpec::config`].
        config: BTreeMap<String, String>,
    },
    /// Deletes a stream with its records, positions and queue sources.
    DeleteStream {
        /// Which.
        stream: StreamId,
    },
    /// Raises the number of partitions.
    AddPartitions {
        /// Which.
        stream: StreamId,
        /// New total.
        partitions: u32,
    },
    /// Replaces the configuration of a stream.
    AlterStream {
        /// Which.
        stream: StreamId,
        /// The whole new configuration.
        config: BTreeMap<String, String>,
    },
    /// Moves the log start of a partition forward; batches wholly below it are gone.
    Trim {
        /// Which.
        partition: PartitionId,
        /// New log start; never moves back, never past the end.
        log_start: i64,
    },
    /// Says that batches which are not logged (durability `memory`) may have the offsets of a partition below `end`: what is logged after
    /// this begins there.
    Reserve {
        /// Which.
        partition: PartitionId,
        /// One past the last offset of such batches.
        end: i64,
    },
    /// Says that what a producer of [`SequenceRule::Strict`] would have written before `next` will never come: its next batch in the
    /// partition begins there. Never moves back, and an older epoch than the partition knows changes nothing, so a repetition has no effect.
    /// A newer epoch begins at `next` instead of 0. In a stream that is only in memory, only a producer that is known moves.
    AdvanceSequence {
        /// Where.
        partition: PartitionId,
        /// Who.
        producer_id: i64,
        /// The epoch of what comes next.
        epoch: i16,
        /// First sequence of what comes next.
        next: i32,
    },
    /// Reserves producer ids.
    AllocateProducerIds {
        /// How many.
        count: u32,
    },
    /// Forgets producers of [`SequenceRule::Window`] that wrote nothing since, and have no open transaction.
    ExpireProducers {
        /// Milliseconds since the epoch.
        idle_since: i64,
    },
    /// Sets the sources of a queue; known sources keep their state, sources not named are dropped with theirs.
    QueueSources {
        /// The queue, which begins to exist by this.
        queue: QueueName,
        /// Partition and first offset.
        sources: Vec<(PartitionId, i64)>,
    },
    /// Settles records of a queue for ever.
    QueueSettle {
        /// The queue.
        queue: QueueName,
        /// What was settled, by source.
        settled: Vec<QueueSettled>,
    },
    /// Deletes a queue and its state.
    QueueDelete {
        /// The queue.
        queue: QueueName,
    },
    /// Takes an epoch of the cold store for this data directory; the kernel's own.
    ColdClaim {
        /// The log's name in the cold store; the first one stays for ever.
        log: Uuid,
        /// Must be greater than all before.
        epoch: u32,
        /// What is written there, to tell this data directory from a copy of it.
        nonce: Uuid,
    },
    /// Records are in a segment from now on, no more in the WAL; the kernel's own. Offsets stay.
    SegmentSealed {
        /// The segment, which is in the cold store already.
        segment: SegmentMeta,
    },
    /// Ranges of partitions are replaced by others; the kernel's own. In a partition where the new ones do not fit any more nothing changes.
    RangesReplaced {
        /// Parts that leave: every range of the partition in the segment.
        removed: Vec<(SegmentId, PartitionId)>,
        /// Segments whose parts come, which are in the cold store already.
        added: Vec<SegmentMeta>,
    },
}

impl Command {
    /// The batch in it: of an append, or the control batch of the end of a transaction.
    pub(crate) fn batch(&self) -> Option<&Batch> {
        match self {
            Command::Append { batch, .. } => Some(batch),
            Command::EndTransaction { marker, .. } => Some(marker),
            _ => None,
        }
    }

    /// Ends the transaction of a producer in partitions: everything it wrote there since it began is committed, or is as if it had
    /// never been written. `timestamp`: the caller's clock, milliseconds since the epoch.
    pub fn end_transaction(
        producer_id: i64,
        epoch: i16,
        partitions: Vec<PartitionId>,
        commit: bool,
        coordinator_epoch: i32,
        timestamp: i64,
    ) -> Result<Command, BuildError> {
        let marker = if commit {
            ControlRecord::Commit { coordinator_epoch }
        } else {
            ControlRecord::Abort { coordinator_epoch }
        };
        Ok(Command::EndTransaction {
            partitions,
            marker: marker.into_batch(producer_id, epoch, timestamp)?,
        })
    }
}

/// Settled records of one source of a queue.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueSettled {
    /// The source.
    pub partition: PartitionId,
    /// Offsets settled by this command.
    pub offsets: RoaringTreemap,
    /// Below it everything is settled or was not for this queue.
    pub low_water: i64,
    /// Everything at or above it has never been handed to anyone.
    pub delivered_to: i64,
}

/// How the producer sequence of a batch is checked. Batches without a producer id are never checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SequenceRule {
    /// Not at all.
    None,
    /// The last five batches of a producer and partition: one of them again is a duplicate, the next sequence is appended, anything else is
    /// out of order. A newer epoch starts at 0, an older one is fenced. An unknown producer may start anywhere.
    Window,
    /// The next sequence is appended, any sequence at or below the last is a duplicate, a gap is out of order; a newer epoch starts at 0,
    /// an older one is fenced. Kept for ever.
    Strict,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The batch is in the log.
    Appended(Appended),
    /// This append was refused: nothing of the entry was applied.
    Refused(AppendError),
    /// Another append of the entry was refused: nothing of the entry was applied. Or a command before it in the entry deleted its stream.
    NotApplied,
    /// Applied.
    Done,
    /// The command had no effect: what it names does not exist (or, for a creation, exists), or it stands beside appends that
    /// are all duplicates, and was applied with them the first time.
    NoEffect,
    /// The stream was created, with this id.
    StreamCreated(StreamId),
    /// First of the reserved producer ids.
    ProducerIds(i64),
    /// The transaction has ended; where its control batches are, in the order of the command's partitions that exist.
    TransactionEnded(Vec<(PartitionId, Appended)>),
}

/// Where a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: i64,
    /// Offset of its last record.
    pub last_offset: i64,
    /// The leader's clock when the entry was written, milliseconds since the epoch.
    pub timestamp: i64,
    /// Log start of the partition.
    pub log_start: i64,
    /// The batch had been appended before; the offsets are those of then (-1 if they are no longer known).
    pub duplicate: bool,
}

/// Name of a group that commits positions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CursorName(pub Arc<str>);

impl From<&str> for CursorName {
    fn from(name: &str) -> Self {
        CursorName(name.into())
    }
}

impl fmt::Display for CursorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A committed position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorPosition {
    /// Where.
    pub partition: PartitionId,
    /// Next offset to read.
    pub offset: i64,
    /// The owner's own note.
    pub metadata: Bytes,
    /// The leader's clock at the commit, milliseconds since the epoch. Set when applied: ignored in a command.
    pub committed_at: i64,
}
