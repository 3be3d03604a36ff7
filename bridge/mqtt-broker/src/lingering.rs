//! The last of a connection that is closed here. What a client has sent and nobody reads makes of the close a reset, which can take back what it was told.

use crate::input::poll_discard;
use crate::limits;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use tokio::io::{AsyncRead, ReadHalf};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// After our side was closed: reads, for nobody, until the client has closed its own, for so long and for so many bytes as it may take. A program that stops
/// waits for this, and so only for a client that is still sending.
pub(crate) async fn linger<S: AsyncRead>(
    reader: &mut ReadHalf<S>,
    until: Instant,
    shutdown: &CancellationToken,
) {
    let discarding = async {
        let mut left = limits::LAST_INPUT;
        loop {
            let read = match shutdown.run_until_cancelled(discard(reader)).await {
                Some(read) => Ok(read),
                None => timeout(limits::LAST_PAUSE, discard(reader)).await,
            };
            match read {
                Ok(Ok(n)) if n > 0 && n < left => left -= n,
                _ => return,
            }
        }
    };
    let _ = timeout_at(until, discarding).await;
}

async fn discard<S: AsyncRead>(reader: &mut ReadHalf<S>) -> io::Result<usize> {
    poll_fn(|cx| poll_discard(Pin::new(&mut *reader), cx)).await
}
