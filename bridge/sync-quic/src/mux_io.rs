//! The three tasks of a TLS connection: one writes, one reads, one watches the time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use sync::CloseCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use crate::carrier::Closed;
use crate::mux::{CHUNK, MAX_CHUNK, Shared};

const HEADER: usize = 4;
/// How long the last words may take, and how long the peer may take to hear them.
const LAST_WORDS: Duration = Duration::from_secs(2);

fn link(error: &io::Error) -> Closed {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        // In TLS 1.3 a client learns after its handshake that its certificate was not accepted.
        Some(error @ rustls::Error::AlertReceived(_)) => Closed::Untrusted(error.to_string()),
        _ => Closed::Link(error.to_string()),
    }
}

pub(crate) async fn write(shared: Arc<Shared>, mut stream: impl AsyncWrite + Unpin) {
    let mut buffer = BytesMut::with_capacity(HEADER + CHUNK);
    loop {
        let ended = shared.ended();
        let Some((channel, bytes)) = shared.next_chunk(ended.is_some()) else {
            if ended.is_some() {
                break;
            }
            shared.write.notified().await;
            continue;
        };
        if ended.is_some_and(|ended| ended != Closed::ByUs) {
            return;
        }
        buffer.clear();
        buffer.put_u16(channel);
        // Not above `CHUNK` or a close's reason, both far below 64 KiB.
        buffer.put_u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX));
        buffer.put_slice(&bytes);
        let (_, patience) = shared.quiet();
        let written = async {
            stream.write_all(&buffer).await?;
            // Nothing stays in TLS's own buffer, where nothing can overtake it.
            stream.flush().await
        };
        tokio::select! {
            written = tokio::time::timeout(patience, written) => match written {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return shared.end(link(&error)),
                Err(_) => return shared.end(Closed::Link(format!("nothing could be sent for {patience:?}"))),
            },
            () = long_over(&shared) => return,
        }
    }
    // The peer may be gone: nothing is owed to it then.
    let _ = tokio::time::timeout(LAST_WORDS, stream.shutdown()).await;
}

async fn long_over(shared: &Shared) {
    shared.closed().await;
    tokio::time::sleep(LAST_WORDS).await;
}

pub(crate) async fn read(shared: Arc<Shared>, mut stream: impl AsyncRead + Unpin) {
    let mut buffer = BytesMut::with_capacity(HEADER + MAX_CHUNK);
    loop {
        let read = tokio::select! {
            read = stream.read_buf(&mut buffer) => read,
            // Reading goes on a while, so that what the peer has sent does not turn our last words into a reset.
            () = long_over(&shared) => return,
        };
        match read {
            Ok(0) => return shared.end(Closed::Link("the connection was cut".to_owned())),
            Ok(_) => shared.note_heard(),
            Err(error) => return shared.end(link(&error)),
        }
        loop {
            match take_chunk(&shared, &mut buffer) {
                Ok(Some(channel)) => {
                    while shared.is_full(channel) && shared.ended().is_none() {
                        shared.read.notified().await;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(remote = %shared.remote(), %error, "a peer broke the rules of the channels");
                    return shared.close(CloseCode::Protocol, &error.to_string());
                }
            }
        }
    }
}

/// Takes the first chunk of the buffer. `None` = more bytes are needed.
fn take_chunk(shared: &Shared, buffer: &mut BytesMut) -> Result<Option<u16>, crate::mux::MuxError> {
    let Some(&[a, b, c, d]) = buffer.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let (channel, length) = (
        u16::from_be_bytes([a, b]),
        usize::from(u16::from_be_bytes([c, d])),
    );
    if length > MAX_CHUNK {
        return Err(crate::mux::MuxError::ChunkTooLarge(length));
    }
    if buffer.len() < HEADER + length {
        buffer.reserve(HEADER + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(HEADER);
    let bytes = buffer.split_to(length).freeze();
    shared.handle_chunk(channel, bytes)?;
    Ok(Some(channel))
}

/// Asks for a sign of life where this side does that, and ends a connection on which none comes.
pub(crate) async fn keep(
    shared: Arc<Shared>,
    keep_alive: Option<Duration>,
    mut stop: Option<watch::Receiver<bool>>,
) {
    let stopped = async {
        match &mut stop {
            // An error = the listener is gone without having been closed.
            Some(stop) => drop(stop.wait_for(|stop| *stop).await.map(|_| ())),
            None => std::future::pending().await,
        }
    };
    let watched = async {
        loop {
            let (quiet, limit) = shared.quiet();
            if quiet >= limit {
                return shared.end(Closed::Link(format!("nothing was heard for {limit:?}")));
            }
            let mut wait = limit - quiet;
            if let Some(keep_alive) = keep_alive {
                if quiet >= keep_alive {
                    shared.ping();
                    wait = wait.min(keep_alive);
                } else {
                    wait = wait.min(keep_alive - quiet);
                }
            }
            tokio::time::sleep(wait).await;
        }
    };
    tokio::select! {
        () = watched => {}
        () = stopped => shared.close(CloseCode::ShuttingDown, ""),
        _ = shared.closed() => {}
    }
}
