//! The downlink: `Down`, `DownAck`, `Dictionary`.

use bytes::{BufMut, Bytes, BytesMut};

use super::FrameError;
use super::body::{Body, checked_rest, put_text};
use crate::limits;

/// Where a downlink batch stood in the core, and so what is acknowledged and what tells a repeated one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DownPosition {
    /// Identity of the core's command stream; a stream deleted and made again has another one.
    pub stream: u64,
    pub partition: u32,
    /// Offset after the last record. Within one (stream, partition) a batch whose `next` is not above the highest stored one is a repetition.
    pub next: i64,
}

impl DownPosition {
    pub(super) fn put(&self, out: &mut BytesMut) {
        out.put_u64(self.stream);
        out.put_u32(self.partition);
        out.put_i64(self.next);
    }

    pub(super) fn take(body: &mut Body) -> Result<DownPosition, FrameError> {
        Ok(DownPosition {
            stream: body.u64("stream id")?,
            partition: body.u32("partition")?,
            next: body.i64("offset")?,
        })
    }
}

/// Commands and configuration on their way down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownFrame {
    pub position: DownPosition,
    /// One RecordBatch v2; the key of each record is its MQTT topic (below `cmd/<edge>/`).
    pub batch: Bytes,
}

impl DownFrame {
    pub(super) fn put(&self, out: &mut BytesMut) -> Result<Bytes, FrameError> {
        self.position.put(out);
        checked_rest(&self.batch, limits::MAX_BATCH)
    }

    pub(super) fn take(body: &mut Body) -> Result<DownFrame, FrameError> {
        Ok(DownFrame {
            position: DownPosition::take(body)?,
            batch: body.rest("batch", limits::MAX_BATCH)?,
        })
    }
}

/// A zstd dictionary for the batches of one stream. The newest one of a stream is the one to compress with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DictionaryFrame {
    pub stream: String,
    /// Never 0, and never used again for other bytes.
    pub id: u32,
    /// As zstd's trainer made it.
    pub dictionary: Bytes,
}

impl DictionaryFrame {
    pub(super) fn put(&self, out: &mut BytesMut) -> Result<Bytes, FrameError> {
        put_text(out, "stream name", &self.stream, limits::MAX_STREAM_NAME)?;
        out.put_u32(self.id);
        checked_rest(&self.dictionary, limits::MAX_DICTIONARY)
    }

    pub(super) fn take(body: &mut Body) -> Result<DictionaryFrame, FrameError> {
        Ok(DictionaryFrame {
            stream: body.text("stream name", limits::MAX_STREAM_NAME)?,
            id: body.u32("dictionary id")?,
            dictionary: body.rest("dictionary", limits::MAX_DICTIONARY)?,
        })
    }
}
