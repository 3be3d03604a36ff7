//! Frames: `length u32 | type u8 | body`, all integers big-endian; `length` counts type and body.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::code::{EnrolRefusal, HelloRefusal, RefuseCode};
use crate::limits;

/// What an edge says first on its control stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// [`crate::VERSION`].
    pub version: u16,
    /// Name of the edge as it was enrolled; the core compares it with the certificate.
    pub edge: String,
    /// Producer id that all batches of this connection carry.
    pub producer_id: i64,
    /// Producer epoch that all batches of this connection carry.
    pub epoch: i16,
    /// The software's version, for people.
    pub software: String,
}

/// The core's answer to an accepted hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    pub version: u16,
    /// The core's clock, milliseconds since 1970: what an edge without a clock learns the time from.
    pub time_ms: i64,
    /// Largest batch that the core takes, in bytes.
    pub max_batch: u32,
}

/// Flags of a [`BatchFrame`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchFlags(u8);

impl BatchFlags {
    /// At least one record of the batch sets or clears a retained message: the core looks inside only when this is set.
    pub const HAS_RETAINED: BatchFlags = BatchFlags(1);
    const KNOWN: u8 = 1;

    pub fn empty() -> BatchFlags {
        BatchFlags(0)
    }

    pub fn has_retained(self) -> bool {
        self.0 & Self::HAS_RETAINED.0 != 0
    }

    pub fn bits(self) -> u8 {
        self.0
    }

    /// Unknown bits are an error, not a shrug: a flag that is not understood is not kept.
    pub fn from_bits(bits: u8) -> Result<BatchFlags, FrameError> {
        if bits & !Self::KNOWN == 0 {
            Ok(BatchFlags(bits))
        } else {
            Err(FrameError::UnknownFlags(bits))
        }
    }
}

/// One record batch on its way up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchFrame {
    pub lane: u8,
    /// Number of the frame in its lane; strictly increasing, gaps allowed. What acknowledgements name.
    pub frame: u64,
    /// Stream (of the edge's namespace) to append to.
    pub stream: String,
    pub flags: BatchFlags,
    /// Exactly one RecordBatch v2 as the edge encoded it. Never changed on the way.
    pub batch: Bytes,
}

impl BatchFrame {
    /// What the frame weighs in the window: the batch and a little for the frame itself.
    pub fn weight(&self) -> usize {
        self.batch.len() + 64
    }
}

/// Where a downlink batch stood in the core, and so what is acknowledged and what tells a repeated one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DownPosition {
    /// Identity of the core's command stream; a stream deleted and made again has another one.
    pub stream: u64,
    pub partition: u32,
    /// Offset after the last record. Within one (stream, partition) a batch whose `next` is not above the highest stored one is a repetition.
    pub next: i64,
}

/// Commands and configuration on their way down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownFrame {
    pub position: DownPosition,
    /// One RecordBatch v2; the key of each record is its MQTT topic (below `cmd/<edge>/`).
    pub batch: Bytes,
}

/// The core did not take a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub lane: u8,
    pub frame: u64,
    pub code: RefuseCode,
    pub reason: String,
}

/// What an edge sends to be enrolled, once it knows that it talks to the core of its token.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolRequest {
    pub version: u16,
    pub token_id: String,
    pub secret: String,
    /// The name that the edge asks for.
    pub name: String,
    /// PKCS#10 certificate request, DER. The private key never leaves the edge.
    pub request: Bytes,
}

impl std::fmt::Debug for EnrolRequest {
    /// Without the secret: this type ends up in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrolRequest")
            .field("token_id", &self.token_id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The certificate that the core made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolGrant {
    pub name: String,
    /// The edge's certificate, DER.
    pub certificate: Bytes,
    /// The core's certificate authority, DER.
    pub ca: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Control stream, edge to core, first.
    Hello(Hello),
    /// Control stream, core to edge, first.
    Welcome(Welcome),
    /// Control stream, core to edge, instead of a welcome.
    HelloRefused {
        code: HelloRefusal,
        reason: String,
    },
    /// Lane stream, edge to core.
    Batch(BatchFrame),
    /// Control stream, core to edge: all frames of the lane up to this one are committed or were refused before this.
    Ack {
        lane: u8,
        frame: u64,
    },
    /// Control stream, core to edge.
    Refused(Refused),
    /// Downlink stream, core to edge.
    Down(DownFrame),
    /// Control stream, edge to core: stored durably, up to and with this position in its partition.
    DownAck(DownPosition),
    EnrolRequest(EnrolRequest),
    EnrolGrant(EnrolGrant),
    EnrolRefused {
        code: EnrolRefusal,
        reason: String,
    },
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame of {length} bytes where at most {limit} are allowed")]
    TooLarge { length: usize, limit: usize },
    #[error("frame type {0} is not known")]
    UnknownType(u8),
    #[error("frame ends inside {0}")]
    Truncated(&'static str),
    #[error("{0} is longer than its limit")]
    FieldTooLong(&'static str),
    #[error("{0} is not UTF-8")]
    NotText(&'static str),
    #[error("{0} bytes left over after the last field")]
    LeftOver(usize),
    #[error("unknown flag bits {0:#x}")]
    UnknownFlags(u8),
    #[error("frame of no bytes")]
    Empty,
}

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const HELLO_REFUSED: u8 = 3;
const BATCH: u8 = 4;
const ACK: u8 = 5;
const REFUSED: u8 = 6;
const DOWN: u8 = 7;
const DOWN_ACK: u8 = 8;
const ENROL_REQUEST: u8 = 9;
const ENROL_GRANT: u8 = 10;
const ENROL_REFUSED: u8 = 11;

impl Frame {
    /// The frame as up to two pieces to be written one after the other: what stands before the batch, and the batch itself
    /// (empty for frames without one), which is not copied.
    pub fn encode(&self) -> Result<(Bytes, Bytes), FrameError> {
        let mut out = BytesMut::with_capacity(96);
        out.put_u32(0); // the length, patched below
        let mut tail = Bytes::new();
        match self {
            Frame::Hello(hello) => {
                out.put_u8(HELLO);
                out.put_u16(hello.version);
                put_text(&mut out, "edge name", &hello.edge, limits::MAX_EDGE_NAME)?;
                out.put_i64(hello.producer_id);
                out.put_i16(hello.epoch);
                put_text(&mut out, "software", &hello.software, limits::MAX_REASON)?;
            }
            Frame::Welcome(welcome) => {
                out.put_u8(WELCOME);
                out.put_u16(welcome.version);
                out.put_i64(welcome.time_ms);
                out.put_u32(welcome.max_batch);
            }
            Frame::HelloRefused { code, reason } => {
                out.put_u8(HELLO_REFUSED);
                out.put_u16(code.to_wire());
                put_text(&mut out, "reason", cut(reason), limits::MAX_REASON)?;
            }
            Frame::Batch(batch) => {
                out.put_u8(BATCH);
                out.put_u8(batch.lane);
                out.put_u64(batch.frame);
                put_text(
                    &mut out,
                    "stream name",
                    &batch.stream,
                    limits::MAX_STREAM_NAME,
                )?;
                out.put_u8(batch.flags.bits());
                tail = checked_batch(&batch.batch)?;
            }
            Frame::Ack { lane, frame } => {
                out.put_u8(ACK);
                out.put_u8(*lane);
                out.put_u64(*frame);
            }
            Frame::Refused(refused) => {
                out.put_u8(REFUSED);
                out.put_u8(refused.lane);
                out.put_u64(refused.frame);
                out.put_u16(refused.code.to_wire());
                put_text(&mut out, "reason", cut(&refused.reason), limits::MAX_REASON)?;
            }
            Frame::Down(down) => {
                out.put_u8(DOWN);
                put_position(&mut out, &down.position);
                tail = checked_batch(&down.batch)?;
            }
            Frame::DownAck(position) => {
                out.put_u8(DOWN_ACK);
                put_position(&mut out, position);
            }
            Frame::EnrolRequest(request) => {
                out.put_u8(ENROL_REQUEST);
                out.put_u16(request.version);
                put_text(
                    &mut out,
                    "token id",
                    &request.token_id,
                    limits::MAX_TOKEN_PART,
                )?;
                put_text(
                    &mut out,
                    "token secret",
                    &request.secret,
                    limits::MAX_TOKEN_PART,
                )?;
                put_text(&mut out, "edge name", &request.name, limits::MAX_EDGE_NAME)?;
                put_bytes(
                    &mut out,
                    "certificate request",
                    &request.request,
                    limits::MAX_CERTIFICATE,
                )?;
            }
            Frame::EnrolGrant(grant) => {
                out.put_u8(ENROL_GRANT);
                put_text(&mut out, "edge name", &grant.name, limits::MAX_EDGE_NAME)?;
                put_bytes(
                    &mut out,
                    "certificate",
                    &grant.certificate,
                    limits::MAX_CERTIFICATE,
                )?;
                put_bytes(
                    &mut out,
                    "ca certificate",
                    &grant.ca,
                    limits::MAX_CERTIFICATE,
                )?;
            }
            Frame::EnrolRefused { code, reason } => {
                out.put_u8(ENROL_REFUSED);
                out.put_u16(code.to_wire());
                put_text(&mut out, "reason", cut(reason), limits::MAX_REASON)?;
            }
        }
        let length = out.len() - 4 + tail.len();
        let length = u32::try_from(length).map_err(|_| FrameError::TooLarge {
            length,
            limit: limits::MAX_BATCH_FRAME,
        })?;
        out[..4].copy_from_slice(&length.to_be_bytes());
        Ok((out.freeze(), tail))
    }

    /// A frame of its type and body, without the length. The batch of the result shares `bytes`.
    pub fn decode(bytes: Bytes) -> Result<Frame, FrameError> {
        let mut body = Body(bytes);
        if body.0.is_empty() {
            return Err(FrameError::Empty);
        }
        let frame = match body.u8("type")? {
            HELLO => Frame::Hello(Hello {
                version: body.u16("version")?,
                edge: body.text("edge name", limits::MAX_EDGE_NAME)?,
                producer_id: body.u64("producer id")? as i64,
                epoch: body.u16("epoch")? as i16,
                software: body.text("software", limits::MAX_REASON)?,
            }),
            WELCOME => Frame::Welcome(Welcome {
                version: body.u16("version")?,
                time_ms: body.u64("time")? as i64,
                max_batch: body.u32("largest batch")?,
            }),
            HELLO_REFUSED => Frame::HelloRefused {
                code: HelloRefusal::from_wire(body.u16("code")?),
                reason: body.text("reason", limits::MAX_REASON)?,
            },
            BATCH => Frame::Batch(BatchFrame {
                lane: body.u8("lane")?,
                frame: body.u64("frame number")?,
                stream: body.text("stream name", limits::MAX_STREAM_NAME)?,
                flags: BatchFlags::from_bits(body.u8("flags")?)?,
                batch: body.rest("batch", limits::MAX_BATCH)?,
            }),
            ACK => Frame::Ack {
                lane: body.u8("lane")?,
                frame: body.u64("frame number")?,
            },
            REFUSED => Frame::Refused(Refused {
                lane: body.u8("lane")?,
                frame: body.u64("frame number")?,
                code: RefuseCode::from_wire(body.u16("code")?),
                reason: body.text("reason", limits::MAX_REASON)?,
            }),
            DOWN => Frame::Down(DownFrame {
                position: body.position()?,
                batch: body.rest("batch", limits::MAX_BATCH)?,
            }),
            DOWN_ACK => Frame::DownAck(body.position()?),
            ENROL_REQUEST => Frame::EnrolRequest(EnrolRequest {
                version: body.u16("version")?,
                token_id: body.text("token id", limits::MAX_TOKEN_PART)?,
                secret: body.text("token secret", limits::MAX_TOKEN_PART)?,
                name: body.text("edge name", limits::MAX_EDGE_NAME)?,
                request: body.field("certificate request", limits::MAX_CERTIFICATE)?,
            }),
            ENROL_GRANT => Frame::EnrolGrant(EnrolGrant {
                name: body.text("edge name", limits::MAX_EDGE_NAME)?,
                certificate: body.field("certificate", limits::MAX_CERTIFICATE)?,
                ca: body.field("ca certificate", limits::MAX_CERTIFICATE)?,
            }),
            ENROL_REFUSED => Frame::EnrolRefused {
                code: EnrolRefusal::from_wire(body.u16("code")?),
                reason: body.text("reason", limits::MAX_REASON)?,
            },
            other => return Err(FrameError::UnknownType(other)),
        };
        match body.0.len() {
            0 => Ok(frame),
            left => Err(FrameError::LeftOver(left)),
        }
    }
}

/// A reason may come from anywhere; it is cut at a character's edge rather than refused.
fn cut(reason: &str) -> &str {
    let mut end = reason.len().min(limits::MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

fn checked_batch(batch: &Bytes) -> Result<Bytes, FrameError> {
    if batch.len() > limits::MAX_BATCH {
        return Err(FrameError::TooLarge {
            length: batch.len(),
            limit: limits::MAX_BATCH,
        });
    }
    Ok(batch.clone())
}

fn put_position(out: &mut BytesMut, position: &DownPosition) {
    out.put_u64(position.stream);
    out.put_u32(position.partition);
    out.put_i64(position.next);
}

fn put_text(
    out: &mut BytesMut,
    what: &'static str,
    text: &str,
    limit: usize,
) -> Result<(), FrameError> {
    put_bytes(out, what, text.as_bytes(), limit)
}

fn put_bytes(
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

struct Body(Bytes);

impl Body {
    fn need(&self, what: &'static str, count: usize) -> Result<(), FrameError> {
        if self.0.len() < count {
            Err(FrameError::Truncated(what))
        } else {
            Ok(())
        }
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, FrameError> {
        self.need(what, 1)?;
        Ok(self.0.get_u8())
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, FrameError> {
        self.need(what, 2)?;
        Ok(self.0.get_u16())
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, FrameError> {
        self.need(what, 4)?;
        Ok(self.0.get_u32())
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, FrameError> {
        self.need(what, 8)?;
        Ok(self.0.get_u64())
    }

    fn field(&mut self, what: &'static str, limit: usize) -> Result<Bytes, FrameError> {
        let length = usize::from(self.u16(what)?);
        if length > limit {
            return Err(FrameError::FieldTooLong(what));
        }
        self.need(what, length)?;
        Ok(self.0.split_to(length))
    }

    fn text(&mut self, what: &'static str, limit: usize) -> Result<String, FrameError> {
        let field = self.field(what, limit)?;
        String::from_utf8(field.to_vec()).map_err(|_| FrameError::NotText(what))
    }

    fn rest(&mut self, what: &'static str, limit: usize) -> Result<Bytes, FrameError> {
        if self.0.len() > limit {
            return Err(FrameError::FieldTooLong(what));
        }
        Ok(self.0.split_off(0))
    }

    fn position(&mut self) -> Result<DownPosition, FrameError> {
        Ok(DownPosition {
            stream: self.u64("stream id")?,
            partition: self.u32("partition")?,
            next: self.u64("offset")? as i64,
        })
    }
}
