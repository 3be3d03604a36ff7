//! Makes a segment while it is uploaded: batches go in, parts of the upload come out, nothing is copied.

use bytes::Bytes;
use record::{Batch, StreamAddress};
use uuid::Uuid;

use super::footer::{Footer, FooterPart};
use super::frame::{HEADER_BYTES, TRAILER_BYTES, Trailer, encode_header};
use super::{Chunk, SegmentId, SegmentMeta};
use crate::codec::len_u32;
use crate::kernel::AbortedTransaction;
use crate::limits::{CHUNK_BYTES, UPLOAD_PART_BYTES};
use crate::stream::{PartitionId, Stream};

/// Whose batches come next.
#[derive(Debug, Clone)]
pub(crate) struct PartHead {
    pub partition: PartitionId,
    pub uuid: Uuid,
    pub address: StreamAddress,
    /// First offset that the part covers, at or below that of its first batch.
    pub base_offset: i64,
    /// Entry that brought the first batch.
    pub first_index: u64,
}

impl PartHead {
    pub fn new(stream: &Stream, partition: u32, base_offset: i64, first_index: u64) -> PartHead {
        PartHead {
            partition: stream.id.partition(partition),
            uuid: stream.uuid,
            address: stream.address.clone(),
            base_offset,
            first_index,
        }
    }
}

/// A segment that is being made. Parts must come in the order of partitions, then offsets.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    footer: Footer,
    position: u64,
    /// Written since the last upload.
    pending: Vec<Bytes>,
    pending_bytes: usize,
    /// The last part of the footer is not ended.
    open: bool,
    /// The last chunk of the open part takes more batches.
    chunk_open: bool,
}

impl SegmentWriter {
    pub fn new(id: SegmentId, log: Uuid) -> SegmentWriter {
        SegmentWriter {
            footer: Footer {
                id,
                log,
                parts: Vec::new(),
            },
            position: HEADER_BYTES as u64,
            pending: vec![encode_header()],
            pending_bytes: HEADER_BYTES,
            open: false,
            chunk_open: false,
        }
    }

    pub fn begin_part(&mut self, head: PartHead) {
        self.footer.parts.push(FooterPart {
            partition: head.partition,
            uuid: head.uuid,
            address: head.address,
            base_offset: head.base_offset,
            next_offset: head.base_offset,
            max_timestamp: -1,
            first_index: head.first_index,
            aborted: Vec::new(),
            chunks: Vec::new(),
        });
        self.open = true;
        self.chunk_open = false;
    }

    /// Adds a batch with its offset filled in.
    pub fn push(&mut self, batch: &Batch) {
        let Some(part) = self.footer.parts.last_mut().filter(|_| self.open) else {
            return;
        };
        let length = len_u32(batch.len());
        let room = |chunk: &Chunk| chunk.length as usize + batch.len() <= CHUNK_BYTES;
        if !self.chunk_open || !part.chunks.last().is_some_and(room) {
            part.chunks.push(Chunk {
                position: self.position,
                length: 0,
                crc: 0,
                base_offset: batch.base_offset(),
                max_timestamp: -1,
                records: 0,
            });
            self.chunk_open = true;
        }
        if let Some(chunk) = part.chunks.last_mut() {
            chunk.length += length;
            chunk.crc = crc32c::crc32c_append(chunk.crc, batch.bytes());
            chunk.max_timestamp = chunk.max_timestamp.max(batch.max_timestamp());
            chunk.records = chunk.records.saturating_add(batch.record_count());
        }
        part.max_timestamp = part.max_timestamp.max(batch.max_timestamp());
        part.next_offset = batch.next_offset();
        self.position += u64::from(length);
        self.pending_bytes += batch.len();
        self.pending.push(batch.bytes().clone());
    }

    /// Says that the records from an offset to another (inclusive) were damaged and are lost.
    pub fn push_lost(&mut self, first: i64, last: i64) {
        let Some(part) = self.footer.parts.last_mut().filter(|_| self.open) else {
            return;
        };
        part.chunks.push(Chunk {
            position: self.position,
            length: 0,
            crc: 0,
            base_offset: first,
            max_timestamp: -1,
            records: u32::try_from(last - first + 1).unwrap_or(u32::MAX),
        });
        part.next_offset = last + 1;
        self.chunk_open = false;
    }

    /// Ends the part, which covers everything below `next_offset`; one without batches is left out.
    pub fn end_part(&mut self, next_offset: i64, aborted: Vec<AbortedTransaction>) {
        self.end_replacing(next_offset, aborted);
        self.footer.parts.pop_if(|part| part.chunks.is_empty());
    }

    /// Ends a part that stands in the place of others, and says so also when nothing is left of them: a restoration finds what it replaces
    /// in the store as long as that is not deleted.
    pub fn end_replacing(&mut self, next_offset: i64, aborted: Vec<AbortedTransaction>) {
        self.open = false;
        if let Some(part) = self.footer.parts.last_mut() {
            part.next_offset = part.next_offset.max(next_offset);
            part.aborted = aborted;
        }
    }

    /// The next part of the upload, when there is enough for one.
    pub fn take_upload(&mut self) -> Option<Vec<Bytes>> {
        (self.pending_bytes >= UPLOAD_PART_BYTES).then(|| {
            self.pending_bytes = 0;
            std::mem::take(&mut self.pending)
        })
    }

    /// The last part of the upload, and what the log shall remember: nothing of parts of which nothing is left.
    pub fn finish(mut self) -> (Vec<Bytes>, SegmentMeta) {
        let footer = self.footer.encode();
        let trailer = Trailer {
            footer_bytes: len_u32(footer.len()),
            footer_crc: crc32c::crc32c(&footer),
        };
        let meta = SegmentMeta {
            id: self.footer.id,
            bytes: self.position + footer.len() as u64 + TRAILER_BYTES as u64,
            footer_bytes: trailer.footer_bytes,
            footer_crc: trailer.footer_crc,
            parts: {
                let parts = self.footer.parts.iter();
                let there = parts.filter(|part| !part.chunks.is_empty());
                there.map(FooterPart::summary).collect()
            },
        };
        self.pending.push(footer);
        self.pending.push(trailer.encode());
        (self.pending, meta)
    }
}
