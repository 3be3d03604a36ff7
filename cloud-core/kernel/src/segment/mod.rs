//! Segments: what the cold store holds. One object has batches of many partitions, sorted, with a footer that says where they are.
//!
//! ```text
//! header   16 B   "TLSEGMNT" | version u32 | 0 u32
//! data            chunks back to back; a chunk is a run of whole batches of one partition, about 512 KiB (one larger batch is a chunk)
//! footer          id u64 | log uuid | parts, each with its chunks
//! trailer  24 B   footer length u32 | footer CRC-32C u32 | version u32 | 0 u32 | "TLSEGEND"
//! ```
//! Everything is little endian, but for the batches, which stand as they are sent. A segment describes itself: [`Trailer::decode`] and
//! [`Footer::decode`] need nothing else. A reader of the log verifies a chunk by its checksum before it looks into it.

mod chunk;
mod footer;
mod frame;
mod writer;

use std::fmt;

use uuid::Uuid;

use crate::stream::PartitionId;

pub use chunk::{Chunk, batches};
pub use footer::{Footer, FooterPart};
pub use frame::{HEADER_BYTES, TRAILER_BYTES, Trailer, VERSION, check_header};
pub(crate) use writer::{PartHead, SegmentWriter};

/// Name of a segment in its log: the epoch of whoever wrote it (upper 32 bits) and a counter (lower 32 bits), never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(pub u64);

impl SegmentId {
    /// The segment with that number of an epoch.
    pub fn new(epoch: u32, counter: u32) -> SegmentId {
        SegmentId(u64::from(epoch) << 32 | u64::from(counter))
    }

    /// In which epoch it was written.
    pub fn epoch(self) -> u32 {
        u32::try_from(self.0 >> 32).unwrap_or(u32::MAX)
    }

    /// Key of its object.
    pub fn key(self, log: Uuid) -> String {
        format!("{}{self}.segment", prefix(log))
    }

    /// The id of the object with that key; `None` for an object that is no segment of this log.
    pub fn of_key(log: Uuid, key: &str) -> Option<SegmentId> {
        let digits = key.strip_prefix(&prefix(log))?.strip_suffix(".segment")?;
        let plain = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        plain
            .then(|| u64::from_str_radix(digits, 16).ok())
            .flatten()
            .map(SegmentId)
    }
}

/// Prefix of the keys of all segments of a log.
pub(crate) fn prefix(log: Uuid) -> String {
    format!("{log}/segments/")
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What the log remembers of a segment: enough to find and verify its footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentMeta {
    /// Which.
    pub id: SegmentId,
    /// Size of the object in bytes.
    pub bytes: u64,
    /// Length of the footer in bytes; it ends where the trailer begins.
    pub footer_bytes: u32,
    /// CRC-32C of the footer.
    pub footer_crc: u32,
    /// By partition, then offset.
    pub parts: Vec<SegmentPart>,
}

/// The records of one partition in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentPart {
    /// Whose.
    pub partition: PartitionId,
    /// First offset that it covers.
    pub base_offset: i64,
    /// One past the last offset that it covers; both may lie in holes.
    pub next_offset: i64,
    /// Greatest timestamp of its records, milliseconds since the epoch; -1 if none has one.
    pub max_timestamp: i64,
    /// Bytes of its batches.
    pub bytes: u64,
    /// Entry of the log that brought its first batch: its place in the order of commits.
    pub first_index: u64,
    /// What compaction has done with it.
    pub compacted: Compacted,
}

/// How far compaction is with records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compacted {
    /// Never looked at.
    Never,
    /// Nothing older than what is here is left of its keys; deletions are left, which go some time after this moment (milliseconds since the epoch).
    Since(i64),
    /// The same, and no deletions are left.
    Wholly,
}

/// Why bytes are no segment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Not a segment at all, or one that was cut off.
    #[error("it does not {0} like a segment")]
    Foreign(&'static str),
    /// Written by a version that is newer.
    #[error("it has format version {found}, this program reads up to {supported}")]
    NewerVersion {
        /// Version in the object.
        found: u32,
        /// Newest version this program reads.
        supported: u32,
    },
    /// The bytes are damaged.
    #[error("the checksum of {0} does not match")]
    Checksum(&'static str),
    /// The checksum holds, yet this is not what it should be.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

impl From<crate::codec::Malformed> for SegmentError {
    fn from(error: crate::codec::Malformed) -> Self {
        SegmentError::Malformed(error.0)
    }
}

#[cfg(test)]
mod tests;
