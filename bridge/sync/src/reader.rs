//! Cuts a stream of bytes into frames.

use bytes::{Buf, Bytes, BytesMut};

use crate::frame::{Frame, FrameError};

/// Collects the bytes of one QUIC stream and gives whole frames.
///
/// Memory grows with what has arrived, never with what a length field claims: a claim above the limit is an error as soon as the
/// four bytes are there, and one below it reserves nothing.
pub struct FrameReader {
    buffer: BytesMut,
    limit: usize,
}

impl FrameReader {
    /// `limit`: the largest frame (type and body) that this stream may carry, in bytes.
    pub fn new(limit: usize) -> FrameReader {
        FrameReader {
            buffer: BytesMut::new(),
            limit,
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` when more bytes are needed. After an error the stream is of no further use.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        match self.next_body()? {
            Some(body) => Frame::decode(body).map(Some),
            None => Ok(None),
        }
    }

    /// True when the stream may end here: no half frame is left.
    pub fn is_at_boundary(&self) -> bool {
        self.buffer.is_empty()
    }

    fn next_body(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > self.limit {
            return Err(FrameError::TooLarge {
                length,
                limit: self.limit,
            });
        }
        if self.buffer.len() - 4 < length {
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}
