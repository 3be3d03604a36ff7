//! The data types of section 1.5, read from and written to bytes. Reading never copies binary data.

use crate::{DecodeError, PacketId, limits};
use bytes::{Buf, BufMut, Bytes, BytesMut};

pub(crate) struct Reader(pub Bytes);

const SHORT: DecodeError = DecodeError::Malformed("the packet ends inside a field");

impl Reader {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.0.try_get_u8().map_err(|_| SHORT)
    }

    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.0.try_get_u16().map_err(|_| SHORT)
    }

    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.0.try_get_u32().map_err(|_| SHORT)
    }

    pub fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16()?)
            .ok_or(DecodeError::Malformed("packet identifier 0 [MQTT-2.2.1-3]"))
    }

    pub fn variable_byte_integer(&mut self) -> Result<usize, DecodeError> {
        match variable_byte_integer(&self.0)? {
            Some((value, used)) => {
                self.0.advance(used);
                Ok(value)
            }
            None => Err(SHORT),
        }
    }

    pub fn take(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        if len > self.0.len() {
            return Err(SHORT);
        }
        Ok(self.0.split_to(len))
    }

    pub fn binary(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// UTF-8 without U+0000 and without surrogates [MQTT-1.5.4-1, 1.5.4-2].
    pub fn string(&mut self) -> Result<String, DecodeError> {
        let bytes = self.binary()?;
        text(&bytes).map(str::to_owned)
    }
}

pub(crate) fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| DecodeError::Malformed("a string is not UTF-8 [MQTT-1.5.4-1]"))?;
    if text.contains('\0') {
        return Err(DecodeError::Malformed(
            "a string contains U+0000 [MQTT-1.5.4-2]",
        ));
    }
    Ok(text)
}

/// Value and the number of bytes it took; `None` = more bytes are needed.
pub(crate) fn variable_byte_integer(bytes: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
    let mut value = 0usize;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            if index > 0 && *byte == 0 {
                return Err(DecodeError::Malformed(
                    "a length is not in its shortest form [MQTT-1.5.5-1]",
                ));
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= 4 {
        return Err(DecodeError::Malformed(
            "a length of more than four bytes (section 1.5.5)",
        ));
    }
    Ok(None)
}

pub(crate) fn variable_byte_integer_len(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

pub(crate) fn put_variable_byte_integer(out: &mut BytesMut, value: usize) {
    let mut rest = value.min(limits::MAX_REMAINING_LENGTH);
    loop {
        let low = (rest & 0x7F) as u8;
        rest >>= 7;
        if rest == 0 {
            out.put_u8(low);
            return;
        }
        out.put_u8(low | 0x80);
    }
}

/// Longer data than the 65,535 bytes the format can say is cut: strings from the wire can not be longer, and
/// what servers make themselves is short.
pub(crate) fn put_binary(out: &mut BytesMut, data: &[u8]) {
    let data = data.get(..usize::from(u16::MAX)).unwrap_or(data);
    out.put_u16(data.len() as u16);
    out.put_slice(data);
}

pub(crate) fn put_string(out: &mut BytesMut, text: &str) {
    let mut end = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    put_binary(out, text.get(..end).unwrap_or_default().as_bytes());
}
