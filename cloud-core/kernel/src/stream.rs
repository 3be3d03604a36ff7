//! Streams and the names of their partitions.

use std::collections::BTreeMap;
use std::fmt;

use record::StreamAddress;
use uuid::Uuid;

/// Number of a stream, never used again after the stream is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// One partition of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    /// The stream.
    pub stream: StreamId,
    /// Number of the partition, from 0.
    pub partition: u32,
}

impl StreamId {
    /// The partition of this stream with that number.
    pub fn partition(self, partition: u32) -> PartitionId {
        PartitionId {
            stream: self,
            partition,
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.partition)
    }
}

/// A named log with partitions, as it was at one moment; a change makes a new value (see [`crate::Kernel::watch_streams`]).
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    /// Its number.
    pub id: StreamId,
    /// Its identity towards clients; differs after deletion and re-creation under the same name.
    pub uuid: Uuid,
    /// Namespace and name.
    pub address: StreamAddress,
    /// How many partitions it has; never shrinks.
    pub partitions: u32,
    /// Configuration as set; only keys that were set are here.
    pub config: BTreeMap<String, String>,
    /// When it was created, milliseconds since the epoch.
    pub created_at: i64,
}

impl Stream {
    /// Its partition ids, in order.
    pub fn partition_ids(&self) -> impl Iterator<Item = PartitionId> + use<> {
        let id = self.id;
        (0..self.partitions).map(move |partition| PartitionId {
            stream: id,
            partition,
        })
    }

    /// `retention.ms`: age in milliseconds past which batches go; `None` = never.
    pub fn retention_ms(&self) -> Option<i64> {
        self.config
            .get(RETENTION_MS)
            .and_then(|v| v.parse().ok())
            .filter(|v: &i64| *v >= 0)
    }

    /// `retention.bytes`: bytes kept in each partition; `None` = no bound.
    pub fn retention_bytes(&self) -> Option<u64> {
        self.config
            .get(RETENTION_BYTES)
            .and_then(|v| v.parse::<i64>().ok())
            .and_then(|v| u64::try_from(v).ok())
    }
}

/// Configuration key: age in milliseconds past which batches are deleted; -1 = never (the default).
pub const RETENTION_MS: &str = "retention.ms";
/// Configuration key: bytes kept in each partition; -1 = no bound (the default).
pub const RETENTION_BYTES: &str = "retention.bytes";

/// What a new stream shall be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StreamSpec {
    /// Number of partitions; 0 = [`crate::KernelConfig::default_partitions`].
    pub partitions: u32,
    /// Configuration. The kernel enforces [`RETENTION_MS`] and [`RETENTION_BYTES`] (a value that is not a number is refused)
    /// and keeps every other key for its owner: which keys exist is for the front end to say.
    pub config: BTreeMap<String, String>,
}
