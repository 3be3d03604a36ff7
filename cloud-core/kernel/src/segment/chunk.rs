//! A chunk: a run of whole batches of one partition. It is read, verified and kept as a whole.

use bytes::Bytes;
use record::Batch;

use super::SegmentError;

/// Where a chunk is, and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Where in the object it begins.
    pub position: u64,
    /// Its bytes. 0 = its records were damaged before they could be sealed: they are lost, from the base offset to the next chunk's.
    pub length: u32,
    /// CRC-32C of its bytes.
    pub crc: u32,
    /// First offset of its first batch.
    pub base_offset: i64,
    /// Greatest timestamp of its records, milliseconds since the epoch; -1 if none has one.
    pub max_timestamp: i64,
    /// Records in it, as its batches announce.
    pub records: u32,
}

impl Chunk {
    /// Where it is in the object, as a range of bytes.
    pub fn range(&self) -> std::ops::Range<u64> {
        self.position..self.position.saturating_add(u64::from(self.length))
    }

    /// Whether its records were lost before they could be sealed.
    pub fn is_lost(&self) -> bool {
        self.length == 0
    }

    /// Whether these are its bytes.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), SegmentError> {
        if bytes.len() != self.length as usize {
            return Err(SegmentError::Malformed("a chunk has another length"));
        }
        if crc32c::crc32c(bytes) != self.crc {
            return Err(SegmentError::Checksum("a chunk"));
        }
        Ok(())
    }
}

/// The batches of a chunk that was verified; they share its memory.
pub fn batches(chunk: &Bytes) -> Result<Vec<Batch>, SegmentError> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut at = 0;
    while at < chunk.len() {
        let length = chunk
            .get(at + 8..at + 12)
            .and_then(|field| field.try_into().ok())
            .map(i32::from_be_bytes)
            .and_then(|length| usize::try_from(length).ok())
            .ok_or(SegmentError::Malformed("a batch ends early"))?;
        let end = at.saturating_add(12).saturating_add(length);
        if end > chunk.len() {
            return Err(SegmentError::Malformed("a batch ends early"));
        }
        let batch = Batch::from_trusted(chunk.slice(at..end))
            .map_err(|_| SegmentError::Malformed("a batch"))?;
        if batches
            .last()
            .is_some_and(|before| before.next_offset() > batch.base_offset())
        {
            return Err(SegmentError::Malformed("batches are out of order"));
        }
        batches.push(batch);
        at = end;
    }
    Ok(batches)
}
