//! Frames on the streams of a carrier.

use sync::{CloseCode, Frame, FrameError, FrameReader};

use crate::carrier::{Carrier, Closed, PipeError, RecvPipe, SendPipe};

/// How long a refusal may take to arrive before the connection is closed over it.
const LINGER: std::time::Duration = std::time::Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadFrameError {
    #[error("{0}")]
    Connection(Closed),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("stream ended inside a frame")]
    HalfFrame,
    #[error("stream was reset")]
    Reset,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteFrameError {
    #[error("{0}")]
    Connection(Closed),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("the peer stopped reading")]
    Stopped,
}

/// The next frame, or `None` at the stream's end. Cancel-safe: half a frame stays in `reader`.
pub(crate) async fn read_frame(
    pipe: &mut RecvPipe,
    reader: &mut FrameReader,
) -> Result<Option<Frame>, ReadFrameError> {
    loop {
        if let Some(frame) = reader.next_frame()? {
            return Ok(Some(frame));
        }
        match pipe.read().await {
            Ok(Some(bytes)) => reader.push(&bytes),
            Ok(None) if reader.is_at_boundary() => return Ok(None),
            Ok(None) => return Err(ReadFrameError::HalfFrame),
            Err(PipeError::Closed(closed)) => return Err(ReadFrameError::Connection(closed)),
            Err(PipeError::Reset) => return Err(ReadFrameError::Reset),
        }
    }
}

/// Not cancel-safe: half a frame may have been written.
pub(crate) async fn write_frame(pipe: &mut SendPipe, frame: &Frame) -> Result<(), WriteFrameError> {
    let (head, batch) = frame.encode()?;
    pipe.write(&mut [head, batch])
        .await
        .map_err(|error| match error {
            PipeError::Closed(closed) => WriteFrameError::Connection(closed),
            PipeError::Reset => WriteFrameError::Stopped,
        })
}

/// A close discards what is not delivered yet, so it waits until the peer has the last frame, within reason.
pub(crate) async fn say_and_close(carrier: &Carrier, pipe: &mut SendPipe, frame: Frame) {
    if write_frame(pipe, &frame).await.is_ok() {
        let _ = tokio::time::timeout(LINGER, pipe.finish()).await;
    }
    carrier.close(CloseCode::Refused, "");
}
