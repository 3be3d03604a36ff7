//! Frames: `length u32 | type u8 | body`, all integers big-endian; `length` counts type and body.

mod body;
mod down;
mod enrol;
mod hello;
mod lane;
mod query;

use bytes::{BufMut, Bytes, BytesMut};

pub use down::{DictionaryFrame, DownFrame, DownPosition};
pub use enrol::{EnrolGrant, EnrolRequest};
pub use hello::{Hello, HelloRefused, LaneInfo, Pace, Retry, Welcome};
pub use lane::{BatchFlags, BatchFrame, GapFrame, LaneFrame, LinkCompression, Refused};
pub use query::{AnswerFrame, QueryFrame};

use crate::code::EnrolRefusal;
use crate::limits;
use body::{Body, put_reason};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Control stream, edge to core, first.
    Hello(Hello),
    /// Control stream, core to edge, first.
    Welcome(Welcome),
    /// Control stream, core to edge, instead of a welcome.
    HelloRefused(HelloRefused),
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
    /// Lane stream, edge to core.
    Gap(GapFrame),
    /// Downlink stream, core to edge.
    Dictionary(DictionaryFrame),
    /// Control stream, core to edge.
    Query(QueryFrame),
    /// Edge to core, on a stream of its own.
    Answer(AnswerFrame),
    /// Control stream, core to edge.
    Pace(Pace),
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
const GAP: u8 = 12;
const DICTIONARY: u8 = 13;
const QUERY: u8 = 14;
const ANSWER: u8 = 15;
const PACE: u8 = 16;

impl Frame {
    /// The frame as up to two pieces to be written one after the other: what stands before the part that runs to the frame's end
    /// (a batch, a dictionary), and that part itself (empty for frames without one), which is not copied.
    pub fn encode(&self) -> Result<(Bytes, Bytes), FrameError> {
        let mut out = BytesMut::with_capacity(128);
        out.put_u32(0); // the length, patched below
        out.put_u8(self.wire_type());
        let mut rest = Bytes::new();
        match self {
            Frame::Hello(hello) => hello.put(&mut out)?,
            Frame::Welcome(welcome) => welcome.put(&mut out)?,
            Frame::HelloRefused(refused) => refused.put(&mut out)?,
            Frame::Batch(batch) => rest = batch.put(&mut out)?,
            Frame::Ack { lane, frame } => {
                out.put_u8(*lane);
                out.put_u64(*frame);
            }
            Frame::Refused(refused) => refused.put(&mut out)?,
            Frame::Down(down) => rest = down.put(&mut out)?,
            Frame::DownAck(position) => position.put(&mut out),
            Frame::EnrolRequest(request) => request.put(&mut out)?,
            Frame::EnrolGrant(grant) => grant.put(&mut out)?,
            Frame::EnrolRefused { code, reason } => {
                out.put_u16(code.to_wire());
                put_reason(&mut out, reason)?;
            }
            Frame::Gap(gap) => gap.put(&mut out)?,
            Frame::Dictionary(dictionary) => rest = dictionary.put(&mut out)?,
            Frame::Query(query) => rest = query.put(&mut out)?,
            Frame::Answer(answer) => rest = answer.put(&mut out)?,
            Frame::Pace(pace) => pace.put(&mut out),
        }
        let length = out.len() - 4 + rest.len();
        let length = u32::try_from(length).map_err(|_| FrameError::TooLarge {
            length,
            limit: limits::MAX_LANE_FRAME,
        })?;
        out[..4].copy_from_slice(&length.to_be_bytes());
        Ok((out.freeze(), rest))
    }

    fn wire_type(&self) -> u8 {
        match self {
            Frame::Hello(_) => HELLO,
            Frame::Welcome(_) => WELCOME,
            Frame::HelloRefused(_) => HELLO_REFUSED,
            Frame::Batch(_) => BATCH,
            Frame::Ack { .. } => ACK,
            Frame::Refused(_) => REFUSED,
            Frame::Down(_) => DOWN,
            Frame::DownAck(_) => DOWN_ACK,
            Frame::EnrolRequest(_) => ENROL_REQUEST,
            Frame::EnrolGrant(_) => ENROL_GRANT,
            Frame::EnrolRefused { .. } => ENROL_REFUSED,
            Frame::Gap(_) => GAP,
            Frame::Dictionary(_) => DICTIONARY,
            Frame::Query(_) => QUERY,
            Frame::Answer(_) => ANSWER,
            Frame::Pace(_) => PACE,
        }
    }

    /// A frame of its type and body, without the length. The batch of the result shares `bytes`.
    pub fn decode(bytes: Bytes) -> Result<Frame, FrameError> {
        let mut body = Body(bytes);
        if body.0.is_empty() {
            return Err(FrameError::Empty);
        }
        let frame = match body.u8("type")? {
            HELLO => Frame::Hello(Hello::take(&mut body)?),
            WELCOME => Frame::Welcome(Welcome::take(&mut body)?),
            HELLO_REFUSED => Frame::HelloRefused(HelloRefused::take(&mut body)?),
            BATCH => Frame::Batch(BatchFrame::take(&mut body)?),
            ACK => Frame::Ack {
                lane: body.u8("lane")?,
                frame: body.u64("frame number")?,
            },
            REFUSED => Frame::Refused(Refused::take(&mut body)?),
            DOWN => Frame::Down(DownFrame::take(&mut body)?),
            DOWN_ACK => Frame::DownAck(DownPosition::take(&mut body)?),
            ENROL_REQUEST => Frame::EnrolRequest(EnrolRequest::take(&mut body)?),
            ENROL_GRANT => Frame::EnrolGrant(EnrolGrant::take(&mut body)?),
            ENROL_REFUSED => Frame::EnrolRefused {
                code: EnrolRefusal::from_wire(body.u16("code")?),
                reason: body.text("reason", limits::MAX_REASON)?,
            },
            GAP => Frame::Gap(GapFrame::take(&mut body)?),
            DICTIONARY => Frame::Dictionary(DictionaryFrame::take(&mut body)?),
            QUERY => Frame::Query(QueryFrame::take(&mut body)?),
            ANSWER => Frame::Answer(AnswerFrame::take(&mut body)?),
            PACE => Frame::Pace(Pace::take(&mut body)?),
            other => return Err(FrameError::UnknownType(other)),
        };
        match body.0.len() {
            0 => Ok(frame),
            left => Err(FrameError::LeftOver(left)),
        }
    }
}
