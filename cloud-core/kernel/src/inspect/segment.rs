//! A segment, taken apart: what its footer says, and whether the chunks are what they should be.

use bytes::Bytes;
use record::Batch;

use super::InspectError;
use crate::segment::{
    Chunk, Footer, FooterPart, HEADER_BYTES, SegmentError, TRAILER_BYTES, Trailer, batches,
    check_header,
};

/// The bytes of one segment. Its footer is sound; its chunks are verified one by one.
#[derive(Debug)]
pub struct SegmentFile {
    bytes: Bytes,
    footer: Footer,
    footer_at: u64,
    header: Result<(), SegmentError>,
}

impl SegmentFile {
    /// Finds the footer and verifies it. A damaged header is no error here, since nothing is read by it: see [`SegmentFile::header`].
    pub fn open(bytes: Bytes) -> Result<SegmentFile, InspectError> {
        let size = bytes.len() as u64;
        let ends = bytes.len().checked_sub(TRAILER_BYTES);
        let (data, trailer) = ends
            .and_then(|at| Some((bytes.slice(..at), bytes.get(at..)?)))
            .ok_or(InspectError::Foreign("a segment"))?;
        let trailer = Trailer::decode(trailer, size)?;
        let footer_at = trailer.footer_at(size)?;
        let at = usize::try_from(footer_at).unwrap_or(usize::MAX);
        let footer = data.slice(at.min(data.len())..);
        Ok(SegmentFile {
            footer: Footer::decode(footer, trailer.footer_crc, footer_at)?,
            header: check_header(bytes.get(..HEADER_BYTES).unwrap_or_default()),
            footer_at,
            bytes,
        })
    }

    /// Whether the header is sound.
    pub fn header(&self) -> Result<(), SegmentError> {
        self.header.clone()
    }

    /// What the footer says.
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// Where the footer begins.
    pub fn footer_at(&self) -> u64 {
        self.footer_at
    }

    /// The batches of a chunk of a part, when every checksum holds, theirs included.
    pub fn chunk(&self, part: &FooterPart, chunk: &Chunk) -> Result<Vec<Batch>, SegmentError> {
        let range = chunk.range();
        let bounds = usize::try_from(range.start)
            .ok()
            .zip(usize::try_from(range.end).ok())
            .filter(|(_, end)| *end <= self.bytes.len());
        let Some((start, end)) = bounds else {
            return Err(SegmentError::Malformed("a chunk is past the end"));
        };
        verify_chunk(part, chunk, &self.bytes.slice(start..end))
    }
}

/// Verifies the bytes of a chunk: its own checksum, the order of its batches, their checksums, and that they are within the part.
pub(crate) fn verify_chunk(
    part: &FooterPart,
    chunk: &Chunk,
    bytes: &Bytes,
) -> Result<Vec<Batch>, SegmentError> {
    chunk.verify(bytes)?;
    let batches = batches(bytes)?;
    for batch in &batches {
        batch
            .check_crc()
            .map_err(|_| SegmentError::Checksum("a batch"))?;
        if batch.base_offset() < part.base_offset || batch.next_offset() > part.next_offset {
            return Err(SegmentError::Malformed("a batch is outside its part"));
        }
    }
    Ok(batches)
}

impl From<SegmentError> for InspectError {
    fn from(error: SegmentError) -> InspectError {
        match error {
            SegmentError::NewerVersion { found, supported } => {
                InspectError::NewerVersion { found, supported }
            }
            SegmentError::Foreign(_) => InspectError::Foreign("a segment"),
            error => InspectError::Segment(error),
        }
    }
}
