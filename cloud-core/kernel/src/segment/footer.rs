//! The footer: which partitions are in a segment, and where.

use bytes::{BufMut, Bytes, BytesMut};
use record::StreamAddress;
use uuid::Uuid;

use super::frame::HEADER_BYTES;
use super::{Chunk, Compacted, SegmentError, SegmentId, SegmentPart};
use crate::codec::{Decoder, len_u32};
use crate::entry_codec::{
    ABORTED, get_aborted, get_address, get_partition, put_aborted, put_address, put_partition,
};
use crate::kernel::AbortedTransaction;
use crate::limits::{CHUNK_BYTES, MAX_BATCH_BYTES};
use crate::stream::PartitionId;

/// What a footer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// The segment.
    pub id: SegmentId,
    /// The log it belongs to.
    pub log: Uuid,
    /// By partition, then offset.
    pub parts: Vec<FooterPart>,
}

/// The records of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FooterPart {
    /// Whose.
    pub partition: PartitionId,
    /// Identity of the stream.
    pub uuid: Uuid,
    /// Namespace and name of the stream when the segment was written.
    pub address: StreamAddress,
    /// First offset that it covers.
    pub base_offset: i64,
    /// One past the last offset that it covers.
    pub next_offset: i64,
    /// Greatest timestamp, milliseconds since the epoch; -1 if no record has one.
    pub max_timestamp: i64,
    /// Entry of the log that brought its first batch.
    pub first_index: u64,
    /// Transactions that ended aborted and have records here.
    pub aborted: Vec<AbortedTransaction>,
    /// By offset. None: nothing is left of what the part stands in the place of.
    pub chunks: Vec<Chunk>,
}

/// Bytes of an encoded chunk, and of a part without chunks and aborted transactions.
const CHUNK: usize = 36;
const PART: usize = 76;

impl Footer {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u64_le(self.id.0);
        out.put_slice(self.log.as_bytes());
        out.put_u32_le(len_u32(self.parts.len()));
        for part in &self.parts {
            put_partition(&mut out, part.partition);
            out.put_slice(part.uuid.as_bytes());
            put_address(&mut out, &part.address);
            out.put_i64_le(part.base_offset);
            out.put_i64_le(part.next_offset);
            out.put_i64_le(part.max_timestamp);
            out.put_u64_le(part.first_index);
            out.put_u32_le(len_u32(part.aborted.len()));
            for aborted in &part.aborted {
                put_aborted(&mut out, aborted);
            }
            out.put_u32_le(len_u32(part.chunks.len()));
            for chunk in &part.chunks {
                out.put_u64_le(chunk.position);
                out.put_u32_le(chunk.length);
                out.put_u32_le(chunk.crc);
                out.put_i64_le(chunk.base_offset);
                out.put_i64_le(chunk.max_timestamp);
                out.put_u32_le(chunk.records);
            }
        }
        out.freeze()
    }

    /// Reads a footer whose checksum is `crc` and that begins at `footer_at` in its object. Nothing in it is believed that the rest
    /// contradicts: what is returned is in order, and within the object.
    pub fn decode(bytes: Bytes, crc: u32, footer_at: u64) -> Result<Footer, SegmentError> {
        if crc32c::crc32c(&bytes) != crc {
            return Err(SegmentError::Checksum("the footer"));
        }
        let mut from = Decoder::new(bytes);
        let id = SegmentId(from.u64()?);
        let log = Uuid::from_bytes(from.array16()?);
        let count = from.count(PART)?;
        let mut parts = Vec::with_capacity(count);
        let mut position = HEADER_BYTES as u64;
        for _ in 0..count {
            let part = decode_part(&mut from, &mut position)?;
            if parts.last().is_some_and(|before| !follows(before, &part)) {
                return Err(SegmentError::Malformed("parts are out of order"));
            }
            parts.push(part);
        }
        if !from.is_done() {
            return Err(SegmentError::Malformed("bytes after the last part"));
        }
        if position != footer_at {
            return Err(SegmentError::Malformed(
                "the chunks do not fill the segment",
            ));
        }
        Ok(Footer { id, log, parts })
    }

    /// Place of the part that covers an offset of a partition.
    pub fn part_with(&self, partition: PartitionId, offset: i64) -> Option<&FooterPart> {
        let after = self
            .parts
            .partition_point(|p| (p.partition, p.next_offset) <= (partition, offset));
        self.parts
            .get(after)
            .filter(|p| p.partition == partition && p.base_offset <= offset)
    }
}

fn follows(before: &FooterPart, part: &FooterPart) -> bool {
    before.partition < part.partition
        || before.partition == part.partition && before.next_offset <= part.base_offset
}

fn decode_part(from: &mut Decoder, position: &mut u64) -> Result<FooterPart, SegmentError> {
    let mut part = FooterPart {
        partition: get_partition(from)?,
        uuid: Uuid::from_bytes(from.array16()?),
        address: get_address(from)?,
        base_offset: from.i64()?,
        next_offset: from.i64()?,
        max_timestamp: from.i64()?,
        first_index: from.u64()?,
        aborted: Vec::new(),
        chunks: Vec::new(),
    };
    if part.base_offset < 0 || part.next_offset <= part.base_offset {
        return Err(SegmentError::Malformed("a part covers no offsets"));
    }
    let count = from.count(ABORTED)?;
    part.aborted.reserve_exact(count);
    for _ in 0..count {
        part.aborted.push(get_aborted(from)?);
    }
    let count = from.count(CHUNK)?;
    part.chunks.reserve_exact(count);
    let mut least = part.base_offset;
    for _ in 0..count {
        let chunk = Chunk {
            position: from.u64()?,
            length: from.u32()?,
            crc: from.u32()?,
            base_offset: from.i64()?,
            max_timestamp: from.i64()?,
            records: from.u32()?,
        };
        if chunk.position != *position || chunk.length as usize > CHUNK_BYTES.max(MAX_BATCH_BYTES) {
            return Err(SegmentError::Malformed("a chunk is not where it should be"));
        }
        if chunk.base_offset < least || chunk.base_offset >= part.next_offset {
            return Err(SegmentError::Malformed("a chunk is out of order"));
        }
        least = chunk.base_offset + 1;
        *position = chunk.range().end;
        part.chunks.push(chunk);
    }
    Ok(part)
}

impl FooterPart {
    /// Bytes of its batches.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|c| u64::from(c.length)).sum()
    }

    /// What the log remembers of it.
    pub fn summary(&self) -> SegmentPart {
        SegmentPart {
            partition: self.partition,
            base_offset: self.base_offset,
            next_offset: self.next_offset,
            max_timestamp: self.max_timestamp,
            bytes: self.bytes(),
            first_index: self.first_index,
            compacted: Compacted::Never,
        }
    }

    /// Place of the first chunk that may have the offset or a later one.
    pub fn chunk_with(&self, offset: i64) -> usize {
        self.chunks
            .partition_point(|c| c.base_offset <= offset)
            .saturating_sub(1)
    }

    /// One past the last offset that the chunk at a place may have.
    pub fn chunk_end(&self, place: usize) -> i64 {
        self.chunks
            .get(place + 1)
            .map_or(self.next_offset, |next| next.base_offset)
    }
}
