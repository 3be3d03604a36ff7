//! Numbers and strings to bytes and back: little endian, lengths in front as u32, everything checked when read.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes that are not what they should be, though their checksum holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed: {0}")]
pub(crate) struct Malformed(pub &'static str);

/// Reads from the front of `Bytes`; byte strings come out as slices of the same memory.
#[derive(Debug)]
pub(crate) struct Decoder {
    bytes: Bytes,
    at: usize,
}

impl Decoder {
    pub fn new(bytes: Bytes) -> Decoder {
        Decoder { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    pub fn is_done(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let end = self.at.checked_add(N).ok_or(Malformed("position"))?;
        let part = self
            .bytes
            .get(self.at..end)
            .ok_or(Malformed("ends early"))?;
        self.at = end;
        part.try_into().map_err(|_| Malformed("ends early"))
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[b]| b)
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_le_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_le_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_le_bytes)
    }

    pub fn array16(&mut self) -> Result<[u8; 16], Malformed> {
        self.array()
    }

    /// A count of things that take at least `each` bytes, so that nothing is allocated that cannot be there.
    pub fn count(&mut self, each: usize) -> Result<usize, Malformed> {
        let count = self.u32()? as usize;
        if count.saturating_mul(each.max(1)) > self.remaining() {
            Err(Malformed("count"))
        } else {
            Ok(count)
        }
    }

    pub fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let len = self.count(1)?;
        let part = self.bytes.slice(self.at..self.at + len);
        self.at += len;
        Ok(part)
    }

    pub fn string(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| Malformed("not UTF-8"))
    }
}

/// Appends to a buffer. Lengths fit u32: the limits are far below.
pub(crate) trait Encode: BufMut {
    fn bytes_with_len(&mut self, bytes: &[u8]) {
        self.put_u32_le(len_u32(bytes.len()));
        self.put_slice(bytes);
    }
}

impl Encode for BytesMut {}

/// A length as u32; what is larger than u32 cannot be encoded and is caught by the limits before.
pub(crate) fn len_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
