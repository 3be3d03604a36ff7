//! The fields of a frame as bytes: how each is written, and how it is taken off what came in.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::FrameError;
use crate::limits;

/// A reason may come from anywhere; it is cut at a character's edge rather than refused.
pub(super) fn put_reason(out: &mut BytesMut, reason: &str) -> Result<(), FrameError> {
    let mut end = reason.len().min(limits::MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    put_text(out, "reason", &reason[..end], limits::MAX_REASON)
}

pub(super) fn put_text(
    out: &mut BytesMut,
    what: &'static str,
    text: &str,
    limit: usize,
) -> Result<(), FrameError> {
    put_bytes(out, what, text.as_bytes(), limit)
}

pub(super) fn put_bytes(
    out: &mut BytesMut,
    what: &'static str,
    bytes: &[u8],
    limit: usize,
) -> Result<(), FrameError> {
    match u16::try_from(bytes.len()) {
        Ok(length) if bytes.len() <= limit => {
            out.put_u16(length);
            out.put_slice(bytes);
            Ok(())
        }
        _ => Err(FrameError::FieldTooLong(what)),
    }
}

/// How many entries of a list follow.
pub(super) fn put_count(
    out: &mut BytesMut,
    what: &'static str,
    count: usize,
    limit: usize,
) -> Result<(), FrameError> {
    match u16::try_from(count) {
        Ok(wire) if count <= limit => {
            out.put_u16(wire);
            Ok(())
        }
        _ => Err(FrameError::FieldTooLong(what)),
    }
}

/// What runs to the frame's end; handed on as it is, never copied.
pub(super) fn checked_rest(bytes: &Bytes, limit: usize) -> Result<Bytes, FrameError> {
    if bytes.len() > limit {
        return Err(FrameError::TooLarge {
            length: bytes.len(),
            limit,
        });
    }
    Ok(bytes.clone())
}

/// What is left of a frame that is being taken apart.
pub(super) struct Body(pub(super) Bytes);

impl Body {
    fn need(&self, what: &'static str, count: usize) -> Result<(), FrameError> {
        if self.0.len() < count {
            Err(FrameError::Truncated(what))
        } else {
            Ok(())
        }
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, FrameError> {
        self.need(what, 1)?;
        Ok(self.0.get_u8())
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, FrameError> {
        self.need(what, 2)?;
        Ok(self.0.get_u16())
    }

    pub(super) fn i16(&mut self, what: &'static str) -> Result<i16, FrameError> {
        self.need(what, 2)?;
        Ok(self.0.get_i16())
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, FrameError> {
        self.need(what, 4)?;
        Ok(self.0.get_u32())
    }

    pub(super) fn i32(&mut self, what: &'static str) -> Result<i32, FrameError> {
        self.need(what, 4)?;
        Ok(self.0.get_i32())
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, FrameError> {
        self.need(what, 8)?;
        Ok(self.0.get_u64())
    }

    pub(super) fn i64(&mut self, what: &'static str) -> Result<i64, FrameError> {
        self.need(what, 8)?;
        Ok(self.0.get_i64())
    }

    /// A count above the limit, or one that what is left could not hold, is an error before anything is kept for it.
    pub(super) fn count(
        &mut self,
        what: &'static str,
        limit: usize,
        least_bytes: usize,
    ) -> Result<usize, FrameError> {
        let count = usize::from(self.u16(what)?);
        if count > limit {
            return Err(FrameError::FieldTooLong(what));
        }
        self.need(what, count * least_bytes)?;
        Ok(count)
    }

    pub(super) fn field(&mut self, what: &'static str, limit: usize) -> Result<Bytes, FrameError> {
        let length = usize::from(self.u16(what)?);
        if length > limit {
            return Err(FrameError::FieldTooLong(what));
        }
        self.need(what, length)?;
        Ok(self.0.split_to(length))
    }

    pub(super) fn text(&mut self, what: &'static str, limit: usize) -> Result<String, FrameError> {
        let field = self.field(what, limit)?;
        String::from_utf8(field.to_vec()).map_err(|_| FrameError::NotText(what))
    }

    pub(super) fn rest(&mut self, what: &'static str, limit: usize) -> Result<Bytes, FrameError> {
        if self.0.len() > limit {
            return Err(FrameError::FieldTooLong(what));
        }
        Ok(self.0.split_off(0))
    }
}
