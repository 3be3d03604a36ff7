//! What goes up a lane, `Batch` and `Gap`, and what the core says about it, `Ack` and `Refused`.

use bytes::{BufMut, Bytes, BytesMut};

use super::FrameError;
use super::body::{Body, checked_rest, put_bytes, put_count, put_reason, put_text};
use crate::code::RefuseCode;
use crate::limits;

/// Flags of a [`BatchFrame`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchFlags(u8);

impl BatchFlags {
    /// At least one record of the batch sets or clears a retained message: the core looks inside only when this is set.
    pub const HAS_RETAINED: BatchFlags = BatchFlags(1);
    const KNOWN: u8 = 1;
    /// On the wire only: [`BatchFrame::link`] says it here.
    const LINK_COMPRESSED: u8 = 2;

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

/// How the bytes of a batch were compressed for the link. The core restores the batch; its CRC proves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkCompression {
    /// Id of the dictionary, 0: none.
    pub dictionary: u32,
    /// Length of the batch as it was, in bytes; at most [`limits::MAX_BATCH`].
    pub raw_length: u32,
}

/// One record batch on its way up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchFrame {
    pub lane: u8,
    /// Number of the frame in its lane; strictly increasing, holes allowed. What acknowledgements name.
    pub frame: u64,
    /// Stream (of the edge's namespace) to append to.
    pub stream: String,
    pub flags: BatchFlags,
    /// None: `batch` is the batch. Otherwise `batch` is one zstd frame that holds it.
    pub link: Option<LinkCompression>,
    /// Exactly one RecordBatch v2 as the edge encoded it. Never changed on the way.
    pub batch: Bytes,
}

impl BatchFrame {
    /// What the frame weighs in the window: the batch as the core will hold it, and a little for the frame itself.
    pub fn weight(&self) -> usize {
        let raw = self.link.map_or(0, |link| link.raw_length as usize);
        raw.max(self.batch.len()) + FRAME_WEIGHT
    }

    pub(super) fn put(&self, out: &mut BytesMut) -> Result<Bytes, FrameError> {
        out.put_u8(self.lane);
        out.put_u64(self.frame);
        put_text(out, "stream name", &self.stream, limits::MAX_STREAM_NAME)?;
        match self.link {
            None => out.put_u8(self.flags.bits()),
            Some(link) => {
                check_raw_length(link.raw_length)?;
                out.put_u8(self.flags.bits() | BatchFlags::LINK_COMPRESSED);
                out.put_u32(link.dictionary);
                out.put_u32(link.raw_length);
            }
        }
        checked_rest(&self.batch, limits::MAX_BATCH)
    }

    pub(super) fn take(body: &mut Body) -> Result<BatchFrame, FrameError> {
        let (lane, frame) = (body.u8("lane")?, body.u64("frame number")?);
        let stream = body.text("stream name", limits::MAX_STREAM_NAME)?;
        let bits = body.u8("flags")?;
        let link = if bits & BatchFlags::LINK_COMPRESSED == 0 {
            None
        } else {
            let dictionary = body.u32("dictionary id")?;
            let raw_length = body.u32("raw length")?;
            check_raw_length(raw_length)?;
            Some(LinkCompression {
                dictionary,
                raw_length,
            })
        };
        Ok(BatchFrame {
            lane,
            frame,
            stream,
            flags: BatchFlags::from_bits(bits & !BatchFlags::LINK_COMPRESSED)?,
            link,
            batch: body.rest("batch", limits::MAX_BATCH)?,
        })
    }
}

fn check_raw_length(raw_length: u32) -> Result<(), FrameError> {
    let length = raw_length as usize;
    if length > limits::MAX_BATCH {
        return Err(FrameError::TooLarge {
            length,
            limit: limits::MAX_BATCH,
        });
    }
    Ok(())
}

/// What bookkeeping of one frame weighs in the window, in bytes.
const FRAME_WEIGHT: usize = 64;

/// Entries of a lane that will never come: evicted, damaged, refused or lost. Stands in the lane where they stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapFrame {
    pub lane: u8,
    /// Number of the last entry that is missing.
    pub frame: u64,
    /// JSON object for people and programs: what became of what, and why.
    pub report: Bytes,
    /// Producer id (a base of the hello + lane) and epoch of what comes next in the lane.
    pub producer_id: i64,
    pub epoch: i16,
    /// The next sequence of each stream that has been written to under this producer id and epoch before that place.
    pub next: Vec<(String, i32)>,
}

impl GapFrame {
    /// As [`BatchFrame::weight`].
    pub fn weight(&self) -> usize {
        let streams: usize = self.next.iter().map(|(stream, _)| stream.len() + 8).sum();
        self.report.len() + streams + FRAME_WEIGHT
    }

    pub(super) fn put(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        out.put_u8(self.lane);
        out.put_u64(self.frame);
        put_bytes(out, "gap report", &self.report, limits::MAX_GAP_REPORT)?;
        out.put_i64(self.producer_id);
        out.put_i16(self.epoch);
        put_count(out, "streams", self.next.len(), limits::MAX_GAP_STREAMS)?;
        for (stream, next) in &self.next {
            put_text(out, "stream name", stream, limits::MAX_STREAM_NAME)?;
            out.put_i32(*next);
        }
        Ok(())
    }

    pub(super) fn take(body: &mut Body) -> Result<GapFrame, FrameError> {
        Ok(GapFrame {
            lane: body.u8("lane")?,
            frame: body.u64("frame number")?,
            report: body.field("gap report", limits::MAX_GAP_REPORT)?,
            producer_id: body.i64("producer id")?,
            epoch: body.i16("epoch")?,
            next: {
                let count = body.count("streams", limits::MAX_GAP_STREAMS, 6)?;
                (0..count)
                    .map(|_| {
                        let stream = body.text("stream name", limits::MAX_STREAM_NAME)?;
                        Ok((stream, body.i32("next sequence")?))
                    })
                    .collect::<Result<_, FrameError>>()?
            },
        })
    }
}

/// What may come up a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneFrame {
    Batch(BatchFrame),
    Gap(GapFrame),
}

impl LaneFrame {
    pub fn lane(&self) -> u8 {
        match self {
            LaneFrame::Batch(frame) => frame.lane,
            LaneFrame::Gap(frame) => frame.lane,
        }
    }

    /// Its number in the lane.
    pub fn number(&self) -> u64 {
        match self {
            LaneFrame::Batch(frame) => frame.frame,
            LaneFrame::Gap(frame) => frame.frame,
        }
    }

    /// What it weighs in the window, in bytes.
    pub fn weight(&self) -> usize {
        match self {
            LaneFrame::Batch(frame) => frame.weight(),
            LaneFrame::Gap(frame) => frame.weight(),
        }
    }
}

/// The core did not take a frame of a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub lane: u8,
    pub frame: u64,
    pub code: RefuseCode,
    pub reason: String,
}

impl Refused {
    pub(super) fn put(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        out.put_u8(self.lane);
        out.put_u64(self.frame);
        out.put_u16(self.code.to_wire());
        put_reason(out, &self.reason)
    }

    pub(super) fn take(body: &mut Body) -> Result<Refused, FrameError> {
        Ok(Refused {
            lane: body.u8("lane")?,
            frame: body.u64("frame number")?,
            code: RefuseCode::from_wire(body.u16("code")?),
            reason: body.text("reason", limits::MAX_REASON)?,
        })
    }
}
