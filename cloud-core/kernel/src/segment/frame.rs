//! The two ends of a segment.

use bytes::{BufMut, Bytes, BytesMut};

use super::SegmentError;
use crate::codec::Decoder;
use crate::limits::MAX_FOOTER_BYTES;

/// Version of the format.
pub const VERSION: u32 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 16;
/// Bytes of the trailer.
pub const TRAILER_BYTES: usize = 24;
const BEGIN: &[u8; 8] = b"TLSEGMNT";
const END: &[u8; 8] = b"TLSEGEND";

pub(super) fn encode_header() -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_BYTES);
    out.put_slice(BEGIN);
    out.put_u32_le(VERSION);
    out.put_u32_le(0);
    out.freeze()
}

/// Checks the first [`HEADER_BYTES`] of a segment.
pub fn check_header(bytes: &[u8]) -> Result<(), SegmentError> {
    let foreign = SegmentError::Foreign("begin");
    if bytes.get(..8) != Some(BEGIN) {
        return Err(foreign);
    }
    let version = bytes.get(8..12).and_then(|v| v.try_into().ok());
    check_version(u32::from_le_bytes(version.ok_or(foreign)?))
}

fn check_version(found: u32) -> Result<(), SegmentError> {
    match found {
        0 => Err(SegmentError::Malformed("version 0")),
        1..=VERSION => Ok(()),
        _ => Err(SegmentError::NewerVersion {
            found,
            supported: VERSION,
        }),
    }
}

/// The last [`TRAILER_BYTES`] of a segment: where its footer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Length of the footer, which ends where the trailer begins.
    pub footer_bytes: u32,
    /// CRC-32C of the footer.
    pub footer_crc: u32,
}

impl Trailer {
    pub(crate) fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(TRAILER_BYTES);
        out.put_u32_le(self.footer_bytes);
        out.put_u32_le(self.footer_crc);
        out.put_u32_le(VERSION);
        out.put_u32_le(0);
        out.put_slice(END);
        out.freeze()
    }

    /// Reads the trailer of a segment of `size` bytes from its last [`TRAILER_BYTES`].
    pub fn decode(bytes: &[u8], size: u64) -> Result<Trailer, SegmentError> {
        if bytes.len() != TRAILER_BYTES || bytes.get(16..) != Some(END) {
            return Err(SegmentError::Foreign("end"));
        }
        let mut from = Decoder::new(Bytes::copy_from_slice(bytes));
        let trailer = Trailer {
            footer_bytes: from.u32()?,
            footer_crc: from.u32()?,
        };
        check_version(from.u32()?)?;
        trailer.footer_at(size)?;
        Ok(trailer)
    }

    /// Where the footer of a segment of `size` bytes begins.
    pub fn footer_at(self, size: u64) -> Result<u64, SegmentError> {
        let ends = HEADER_BYTES as u64 + TRAILER_BYTES as u64;
        if self.footer_bytes as usize > MAX_FOOTER_BYTES {
            return Err(SegmentError::Malformed("the footer is too large"));
        }
        size.checked_sub(ends + u64::from(self.footer_bytes))
            .map(|data| HEADER_BYTES as u64 + data)
            .ok_or(SegmentError::Malformed(
                "the footer is larger than the segment",
            ))
    }
}
