//! Reading one request: every length is checked against the bytes at hand before it is believed.

use bytes::{Buf, Bytes};
use uuid::Uuid;

use crate::limits;

/// Why bytes are not the message they claim to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("the message ends inside a field")]
    Truncated,
    #[error("a negative or too large length ({0})")]
    BadLength(i64),
    #[error("a string is not UTF-8")]
    NotUtf8,
    #[error("null where this version has no null")]
    UnexpectedNull,
    #[error("more array elements than one request may have")]
    TooManyElements,
    #[error("API key {0} is not served")]
    UnknownApi(i16),
    #[error("version {version} of API key {key} is not served")]
    UnknownVersion { key: i16, version: i16 },
}

/// A cursor over one request.
pub struct Reader {
    bytes: Bytes,
    flexible: bool,
    elements_left: usize,
}

impl Reader {
    /// `flexible`: whether the message uses compact lengths and tagged fields.
    pub fn new(bytes: Bytes, flexible: bool) -> Self {
        Self {
            bytes,
            flexible,
            elements_left: limits::MAX_REQUEST_ELEMENTS,
        }
    }

    /// Switches between the two encodings: header and body of a request may differ.
    pub fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// How many bytes have not been read.
    #[cfg(test)]
    pub fn left(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn i8(&mut self) -> Result<i8, WireError> {
        self.bytes.try_get_i8().map_err(|_| WireError::Truncated)
    }

    pub(super) fn i16(&mut self) -> Result<i16, WireError> {
        self.bytes.try_get_i16().map_err(|_| WireError::Truncated)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.bytes.try_get_u16().map_err(|_| WireError::Truncated)
    }

    pub(super) fn i32(&mut self) -> Result<i32, WireError> {
        self.bytes.try_get_i32().map_err(|_| WireError::Truncated)
    }

    pub(super) fn i64(&mut self) -> Result<i64, WireError> {
        self.bytes.try_get_i64().map_err(|_| WireError::Truncated)
    }

    pub(super) fn uuid(&mut self) -> Result<Uuid, WireError> {
        self.bytes
            .try_get_u128()
            .map(Uuid::from_u128)
            .map_err(|_| WireError::Truncated)
    }

    fn unsigned_varint(&mut self) -> Result<u32, WireError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.bytes.try_get_u8().map_err(|_| WireError::Truncated)?;
            let part = u32::from(byte & 0x7f);
            if shift == 28 && byte > 0x0f {
                return Err(WireError::BadLength(i64::from(part) << shift));
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::BadLength(i64::from(value)))
    }

    /// A length in the compact (length + 1) or the old encoding; `None` is null.
    fn length(
        &mut self,
        old: impl FnOnce(&mut Self) -> Result<i32, WireError>,
    ) -> Result<Option<usize>, WireError> {
        if self.flexible {
            return Ok((self.unsigned_varint()? as usize).checked_sub(1));
        }
        match old(self)? {
            -1 => Ok(None),
            length => usize::try_from(length)
                .map(Some)
                .map_err(|_| WireError::BadLength(i64::from(length))),
        }
    }

    fn take(&mut self, length: usize) -> Result<Bytes, WireError> {
        if length > self.bytes.len() {
            return Err(WireError::Truncated);
        }
        Ok(self.bytes.split_to(length))
    }

    pub(super) fn string(&mut self) -> Result<Option<String>, WireError> {
        let Some(length) = self.length(|reader| reader.i16().map(i32::from))? else {
            return Ok(None);
        };
        if length > limits::MAX_STRING {
            return Err(WireError::BadLength(length as i64));
        }
        let bytes = self.take(length)?;
        std::str::from_utf8(&bytes)
            .map(|text| Some(text.to_owned()))
            .map_err(|_| WireError::NotUtf8)
    }

    /// The old 16-bit string whatever the encoding: the client id of a request header.
    pub(super) fn old_string(&mut self) -> Result<Option<String>, WireError> {
        let flexible = std::mem::replace(&mut self.flexible, false);
        let text = self.string();
        self.flexible = flexible;
        text
    }

    /// A slice of the request, not a copy.
    pub(super) fn byte_string(&mut self) -> Result<Option<Bytes>, WireError> {
        match self.length(Self::i32)? {
            None => Ok(None),
            Some(length) => self.take(length).map(Some),
        }
    }

    /// The number of elements of an array. Each takes at least one byte, so no more can follow than there are bytes.
    pub(super) fn array_length(&mut self) -> Result<Option<usize>, WireError> {
        let Some(length) = self.length(Self::i32)? else {
            return Ok(None);
        };
        if length > self.bytes.len() {
            return Err(WireError::Truncated);
        }
        self.elements_left = self
            .elements_left
            .checked_sub(length)
            .ok_or(WireError::TooManyElements)?;
        Ok(Some(length))
    }

    /// Skips tagged fields: none of those that exist changes what we answer.
    pub(super) fn tagged_fields(&mut self) -> Result<(), WireError> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.unsigned_varint()? {
            self.unsigned_varint()?;
            let length = self.unsigned_varint()? as usize;
            self.take(length)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &'static [u8], flexible: bool) -> Reader {
        Reader::new(Bytes::from_static(bytes), flexible)
    }

    #[test]
    fn lengths_that_cannot_be_filled_are_refused_before_anything_is_allocated() {
        let cases: [(&'static [u8], bool, WireError); 6] = [
            (&[0x7f, 0xff, 0xff, 0xff], false, WireError::Truncated),
            (&[0xff, 0xff, 0xff, 0xfe], false, WireError::BadLength(-2)),
            (&[0xff, 0xff, 0xff, 0xff, 0x0f], true, WireError::Truncated),
            (
                &[0xff, 0xff, 0xff, 0xff, 0x1f],
                true,
                WireError::BadLength(0x1f << 28),
            ),
            (&[0xff, 0xff], true, WireError::Truncated),
            (&[], false, WireError::Truncated),
        ];
        for (bytes, flexible, expected) in cases {
            assert_eq!(
                reader(bytes, flexible).array_length(),
                Err(expected),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn the_elements_of_one_request_are_bounded_over_all_its_arrays() {
        let count = limits::MAX_REQUEST_ELEMENTS as i32;
        let mut bytes = count.to_be_bytes().to_vec();
        bytes.extend([0; 8]);
        bytes.resize(bytes.len() + limits::MAX_REQUEST_ELEMENTS, 0);
        bytes[7] = 1;
        let mut reader = Reader::new(bytes.into(), false);
        assert_eq!(
            reader.array_length(),
            Ok(Some(limits::MAX_REQUEST_ELEMENTS))
        );
        assert_eq!(reader.array_length(), Err(WireError::TooManyElements));
    }
}
