//! Frames on QUIC streams, and what the two sides share of QUIC's settings.

use std::sync::Arc;

use quinn::{IdleTimeout, TransportConfig, VarInt};
use sync::{Frame, FrameError, FrameReader};

use crate::Timing;

/// Most bytes taken from QUIC at once.
const CHUNK: usize = 64 * 1024;
/// Unread bytes that one stream may hold at the receiver. Above the default so that long links fill.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
/// Unread bytes that one connection may hold at the receiver.
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// Bytes handed to QUIC and not yet acknowledged by the peer's QUIC.
const SEND_WINDOW: u64 = 8 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadFrameError {
    #[error(transparent)]
    Connection(quinn::ConnectionError),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("stream ended inside a frame")]
    HalfFrame,
    #[error("stream was reset")]
    Reset,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteFrameError {
    #[error(transparent)]
    Connection(quinn::ConnectionError),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("the peer stopped reading")]
    Stopped,
}

/// The next frame, or `None` at the stream's end. Cancel-safe: half a frame stays in `reader`.
pub(crate) async fn read_frame(
    stream: &mut quinn::RecvStream,
    reader: &mut FrameReader,
) -> Result<Option<Frame>, ReadFrameError> {
    loop {
        if let Some(frame) = reader.next_frame()? {
            return Ok(Some(frame));
        }
        match stream.read_chunk(CHUNK, true).await {
            Ok(Some(chunk)) => reader.push(&chunk.bytes),
            Ok(None) if reader.is_at_boundary() => return Ok(None),
            Ok(None) => return Err(ReadFrameError::HalfFrame),
            Err(quinn::ReadError::ConnectionLost(lost)) => {
                return Err(ReadFrameError::Connection(lost));
            }
            Err(_) => return Err(ReadFrameError::Reset),
        }
    }
}

/// Not cancel-safe: half a frame may have been written.
pub(crate) async fn write_frame(
    stream: &mut quinn::SendStream,
    frame: &Frame,
) -> Result<(), WriteFrameError> {
    let (head, batch) = frame.encode()?;
    let mut pieces = [head, batch];
    stream
        .write_all_chunks(&mut pieces)
        .await
        .map_err(|error| match error {
            quinn::WriteError::ConnectionLost(lost) => WriteFrameError::Connection(lost),
            _ => WriteFrameError::Stopped,
        })
}

/// Settings of both sides. `bidi` and `uni`: streams that the peer may have open.
pub(crate) fn transport(timing: &Timing, bidi: u32, uni: u32) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    let idle = IdleTimeout::try_from(timing.idle_timeout)
        .unwrap_or_else(|_| IdleTimeout::from(VarInt::MAX));
    config
        .max_concurrent_bidi_streams(bidi.into())
        .max_concurrent_uni_streams(uni.into())
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(timing.keep_alive))
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None);
    Arc::new(config)
}
