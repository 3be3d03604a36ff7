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

impl PartitionId {
    /// The leader epoch that its batches carry. The number of a stream only grows and is never used again, so the partitions of a stream that
    /// is deleted and made again have a higher epoch than before, which is what lets old readers notice.
    pub fn leader_epoch(self) -> i32 {
        // 31 bits: epochs are not negative.
        (self.stream.0 & 0x7fff_ffff) as i32
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
}

/// What a new stream shall be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StreamSpec {
    /// Number of partitions; 0 = [`crate::KernelConfig::default_partitions`].
    pub partitions: u32,
    /// Configuration. The kernel checks and enforces [`crate::STREAM_SETTINGS`], and keeps every other key for its owner: which keys exist
    /// is for the front end to say.
    pub config: BTreeMap<String, String>,
}
