//! Writing one message as a list of chunks: record bytes stay where they are.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::limits;

/// Record batches on their way out, each in the memory it was read into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records(pub Vec<Bytes>);

impl Records {
    /// Bytes of all chunks.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }
}

/// Collects one message.
pub struct Writer {
    current: BytesMut,
    chunks: Vec<Bytes>,
    length: usize,
    flexible: bool,
}

impl Writer {
    /// `flexible`: whether the message uses compact lengths and tagged fields.
    pub fn new(flexible: bool) -> Self {
        Self {
            current: BytesMut::with_capacity(256),
            chunks: Vec::new(),
            length: 0,
            flexible,
        }
    }

    /// Switches between the two encodings: header and body may differ.
    pub fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// The frame: its length, then everything written, ready for a vectored write.
    pub fn into_frame(mut self) -> Vec<Bytes> {
        self.end_chunk();
        let mut frame = Vec::with_capacity(self.chunks.len() + 1);
        frame.push(Bytes::copy_from_slice(&(self.length as u32).to_be_bytes()));
        frame.append(&mut self.chunks);
        frame
    }

    fn end_chunk(&mut self) {
        if !self.current.is_empty() {
            self.length += self.current.len();
            self.chunks.push(self.current.split().freeze());
        }
    }

    pub(super) fn i8(&mut self, value: i8) {
        self.current.put_i8(value);
    }

    pub(super) fn i16(&mut self, value: i16) {
        self.current.put_i16(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.current.put_u16(value);
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.current.put_i32(value);
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.current.put_i64(value);
    }

    pub(super) fn uuid(&mut self, value: Uuid) {
        self.current.put_u128(value.as_u128());
    }

    fn unsigned_varint(&mut self, mut value: u32) {
        while value > 0x7f {
            self.current.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.current.put_u8(value as u8);
    }

    /// `None` is null. What we answer fits 32 bits: a frame is bounded far below.
    pub(super) fn length(&mut self, length: Option<usize>) {
        if self.flexible {
            self.unsigned_varint(length.map_or(0, |length| length as u32 + 1));
        } else {
            self.i32(length.map_or(-1, |length| length as i32));
        }
    }

    pub(super) fn string(&mut self, text: Option<&str>) {
        let text = text.map(|text| shorten(text, limits::MAX_STRING));
        if self.flexible {
            self.length(text.map(str::len));
        } else {
            self.i16(text.map_or(-1, |text| text.len() as i16));
        }
        self.current.put_slice(text.unwrap_or_default().as_bytes());
    }

    /// The old 16-bit string whatever the encoding: the client id of a request header, which only a client writes.
    #[cfg(test)]
    pub(super) fn old_string(&mut self, text: Option<&str>) {
        let flexible = std::mem::replace(&mut self.flexible, false);
        self.string(text);
        self.flexible = flexible;
    }

    pub(super) fn byte_string(&mut self, bytes: Option<&[u8]>) {
        self.length(bytes.map(<[u8]>::len));
        self.current.put_slice(bytes.unwrap_or_default());
    }

    pub(super) fn records(&mut self, records: &Records) {
        self.length(Some(records.len()));
        for chunk in &records.0 {
            self.end_chunk();
            self.length += chunk.len();
            self.chunks.push(chunk.clone());
        }
    }

    /// We send no tagged fields.
    pub(super) fn tagged_fields(&mut self) {
        if self.flexible {
            self.current.put_u8(0);
        }
    }
}

/// The longest part of `text` that is no longer than `limit` bytes and ends between characters.
fn shorten(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let end = (0..=limit)
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or(0);
    text.get(..end).unwrap_or_default()
}
