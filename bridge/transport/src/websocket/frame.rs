//! Frames (RFC 6455, section 5): taking a client's apart as their bytes come, making a server's.

use std::fmt;

use bytes::{BufMut, BytesMut};

/// The longest header: two bytes, a length of eight, a mask.
const HEADER: usize = 14;
/// Payload of a control frame (section 5.5).
const CONTROL: u64 = 125;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Binary = 2,
    Close = 8,
    Pong = 10,
}

/// A client that does not keep to the rules: the connection is closed with a code that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    Text,
    Unmasked,
    Reserved,
    Opcode(u8),
    Sequence,
    Control,
    Length,
    Close,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Text => {
                f.write_str("a WebSocket text frame: this protocol uses binary frames")
            }
            Violation::Unmasked => f.write_str("a WebSocket frame of a client without a mask"),
            Violation::Reserved => f.write_str("a WebSocket frame with reserved bits"),
            Violation::Opcode(opcode) => {
                write!(f, "a WebSocket frame with the unknown opcode {opcode}")
            }
            Violation::Sequence => f.write_str(
                "a WebSocket message that begins within another, or goes on without a beginning",
            ),
            Violation::Control => {
                f.write_str("a WebSocket control frame that is split or too long")
            }
            Violation::Length => f.write_str("a WebSocket frame with an impossible length"),
            Violation::Close => f.write_str("a malformed WebSocket close frame"),
        }
    }
}

impl Violation {
    /// Section 7.4.1: 1003 for a kind of data that is not taken, else a protocol error.
    pub fn close_code(self) -> u16 {
        match self {
            Violation::Text => 1003,
            _ => 1002,
        }
    }
}

/// What the first bytes are.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes of payload; the mask has been taken off them.
    Payload(usize),
    /// So many bytes that hold none.
    Passed(usize),
    /// The end of a ping: bytes of it, and its whole payload.
    Ping(usize, Vec<u8>),
    /// The client closes; nothing of it counts after this.
    Close(Option<u16>),
}

/// Takes the frames of one connection apart.
#[derive(Debug, Default)]
pub struct Decoder {
    header: [u8; HEADER],
    /// Bytes of the header that are there.
    have: usize,
    frame: Option<Frame>,
    /// A message has begun and its last frame has not come.
    in_message: bool,
    /// Of a control frame whose payload is not there in full.
    control: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    kind: Kind,
    mask: [u8; 4],
    missing: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Ping,
    Pong,
    Close,
}

impl Decoder {
    /// Looks at the first bytes of `raw`, at least one. Afterwards it is to be called with what comes behind those it has named.
    pub fn step(&mut self, raw: &mut [u8]) -> Result<Step, Violation> {
        match self.frame {
            Some(frame) => self.payload(frame, raw),
            None => self.header(raw),
        }
    }

    fn header(&mut self, raw: &[u8]) -> Result<Step, Violation> {
        let mut used = 0;
        for byte in raw {
            if let Some(place) = self.header.get_mut(self.have) {
                *place = *byte;
            }
            self.have += 1;
            used += 1;
            if self.have == 2 {
                // Judged before the rest is waited for.
                self.judge()?;
            }
            if self.have >= 2 && self.have == self.header_length() {
                let frame = self.frame()?;
                self.have = 0;
                if frame.missing == 0 {
                    return match frame.kind {
                        Kind::Data => Ok(Step::Passed(used)),
                        kind => self.end(kind, used),
                    };
                }
                self.frame = Some(frame);
                break;
            }
        }
        Ok(Step::Passed(used))
    }

    fn header_length(&self) -> usize {
        let [_, second, ..] = self.header;
        // Two bytes, the long forms of the length, the mask.
        6 + match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    /// Whether the first two bytes may begin a frame here.
    fn judge(&mut self) -> Result<(), Violation> {
        let [first, second, ..] = self.header;
        let (last, opcode) = (first & 0x80 != 0, first & 0x0f);
        if first & 0x70 != 0 {
            return Err(Violation::Reserved);
        }
        match opcode {
            0 if !self.in_message => return Err(Violation::Sequence),
            0 => self.in_message = !last,
            1 => return Err(Violation::Text),
            2 if self.in_message => return Err(Violation::Sequence),
            2 => self.in_message = !last,
            8..=10 if !last || u64::from(second & 0x7f) > CONTROL => {
                return Err(Violation::Control);
            }
            8..=10 => {}
            opcode => return Err(Violation::Opcode(opcode)),
        }
        if second & 0x80 == 0 {
            return Err(Violation::Unmasked);
        }
        Ok(())
    }

    /// The frame whose header is there.
    fn frame(&self) -> Result<Frame, Violation> {
        let [first, second, a, b, c, d, e, f, g, h, i, j, k, l] = self.header;
        let (missing, mask) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes([a, b])), [c, d, e, f]),
            127 => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), [i, j, k, l]),
            short => (u64::from(short), [a, b, c, d]),
        };
        if missing >> 63 != 0 {
            return Err(Violation::Length);
        }
        let kind = match first & 0x0f {
            8 => Kind::Close,
            9 => Kind::Ping,
            10 => Kind::Pong,
            _ => Kind::Data,
        };
        Ok(Frame {
            kind,
            mask,
            missing,
        })
    }

    fn payload(&mut self, mut frame: Frame, raw: &mut [u8]) -> Result<Step, Violation> {
        let here = usize::try_from(frame.missing).unwrap_or(usize::MAX);
        let length = here.min(raw.len());
        let part = raw.get_mut(..length).unwrap_or_default();
        unmask(part, frame.mask);
        frame.mask.rotate_left(length % 4);
        frame.missing -= length as u64;
        if matches!(frame.kind, Kind::Ping | Kind::Close) {
            self.control.extend_from_slice(part);
        }
        if frame.missing > 0 {
            self.frame = Some(frame);
            return Ok(match frame.kind {
                Kind::Data => Step::Payload(length),
                _ => Step::Passed(length),
            });
        }
        self.frame = None;
        self.end(frame.kind, length)
    }

    /// A frame is there in full; the last `length` bytes of it have just come.
    fn end(&mut self, kind: Kind, length: usize) -> Result<Step, Violation> {
        match kind {
            Kind::Data => Ok(Step::Payload(length)),
            Kind::Pong => Ok(Step::Passed(length)),
            Kind::Ping => Ok(Step::Ping(length, std::mem::take(&mut self.control))),
            Kind::Close => match *std::mem::take(&mut self.control) {
                [] => Ok(Step::Close(None)),
                [high, low, ..] => match u16::from_be_bytes([high, low]) {
                    // Section 7.4: reserved, or never on the wire.
                    0..1000 | 1004..=1006 | 1015..3000 | 5000.. => Err(Violation::Close),
                    code => Ok(Step::Close(Some(code))),
                },
                _ => Err(Violation::Close),
            },
        }
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// A frame of a server: whole and without a mask.
pub(super) fn put_frame(out: &mut BytesMut, opcode: Opcode, payload: &[u8]) {
    put_head(out, opcode, payload.len());
    out.put_slice(payload);
}

/// The head of one, and room for the `length` bytes of its payload.
pub(super) fn put_head(out: &mut BytesMut, opcode: Opcode, length: usize) {
    out.reserve(10 + length);
    out.put_u8(0x80 | opcode as u8);
    match length {
        short @ 0..126 => out.put_u8(short as u8),
        middle @ 126..=0xffff => {
            out.put_u8(126);
            out.put_u16(middle as u16);
        }
        long => {
            out.put_u8(127);
            out.put_u64(long as u64);
        }
    }
}
