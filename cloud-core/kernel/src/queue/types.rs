//! The words of a queue.

use std::fmt;
use std::sync::Arc;

use record::Record;

use crate::stream::{PartitionId, Stream};

/// Name of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueName(pub Arc<str>);

impl From<&str> for QueueName {
    fn from(name: &str) -> Self {
        QueueName(name.into())
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says which records of its sources belong to a queue.
///
/// The answer must depend on the arguments alone: after a restart the log is looked through again from the first record that
/// is not settled, and records must be found where they were.
pub trait Selector: Send + Sync {
    /// True if the record is for this queue.
    fn selects(&self, stream: &Stream, partition: PartitionId, record: &Record) -> bool;
}

/// Selects everything.
impl Selector for () {
    fn selects(&self, _: &Stream, _: PartitionId, _: &Record) -> bool {
        true
    }
}

/// A partition a queue draws from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueSource {
    /// Which.
    pub partition: PartitionId,
    /// First offset that can be for the queue.
    pub from: i64,
}

/// Whoever acquires: the front end's own number, unique while it holds or asks for anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HolderId(pub u64);

/// One record out of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId {
    /// The source.
    pub partition: PartitionId,
    /// The record.
    pub offset: i64,
    /// This acquisition: when the record is put back and acquired again, by whomever, it has another id.
    pub epoch: u64,
}

/// What its owner demands of a queue. Not durable: the owner sets it whenever he opens the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueLimits {
    /// A record that has been handed out this often, and is put back, becomes a dead letter. Counted since the queue was opened: a record whose
    /// delivery count was lost in a crash is not condemned for deliveries that may never have been.
    pub max_deliveries: Option<u32>,
    /// Where records go that are rejected or were handed out too often. Without it, or when it does not exist, they are dropped.
    pub dead_letter: Option<PartitionId>,
    /// Time from the answer of [`crate::Queue::acquire`] after which a record that is not settled is put back, milliseconds; [`crate::Kernel::maintain`] looks at the time. `None` = never.
    pub lease_ms: Option<u64>,
}

/// A record on its way to a holder.
#[derive(Debug, Clone)]
pub struct Acquired {
    /// For settling.
    pub id: DeliveryId,
    /// The record.
    pub record: Record,
    /// Where it comes from.
    pub stream: Arc<Stream>,
    /// It may have been handed out before.
    pub redelivered: bool,
    /// How often it has been acquired since the queue was opened, this time included; 1 = the first time. What was handed out before a
    /// restart is `redelivered`, but not counted: how often is not durable.
    pub delivery_count: u32,
}

/// How a delivery ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Done; never delivered again.
    Accept,
    /// Back to its original position.
    Release,
    /// Refused for good: never delivered again. Goes to where dead letters go, if there is such a place ([`QueueLimits::dead_letter`]).
    Reject,
}
