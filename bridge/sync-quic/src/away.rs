//! Tells clients over TLS that the core has no time for them. Over QUIC a word of its own says that (CONNECTION_REFUSED); here it is an alert before
//! any cryptography, since a connection that is just closed may as well be a network that does not let it through.

use std::sync::Arc;
use std::time::Duration;

use rustls::AlertDescription;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// "Canceling the handshake for some reason unrelated to a protocol failure" (RFC 8446, 6.1). No TLS library sends it by itself as an error.
pub(crate) const ALERT: AlertDescription = AlertDescription::UserCanceled;
/// A record of it: an alert (21), the version that all have, its length, fatal, and which.
const RECORD: [u8; 7] = [21, 3, 3, 0, 2, 2, 90];
/// Connections that are being told; others are closed.
const TOLD_AT_ONCE: usize = 256;
/// How long a client may take to hear it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes read at a time of what a client said, which nobody wants to know.
const PIECE: usize = 512;

#[derive(Clone)]
pub(crate) struct Away(Arc<Semaphore>);

impl Default for Away {
    fn default() -> Away {
        Away(Arc::new(Semaphore::new(TOLD_AT_ONCE)))
    }
}

impl Away {
    /// Sends it away. Costs nothing but an open file for a while.
    pub(crate) fn send(&self, stream: TcpStream) {
        let Ok(place) = self.0.clone().try_acquire_owned() else {
            return;
        };
        tokio::spawn(async move {
            // Whatever fails: it has gone, or gets to know by the end of its connection.
            let _ = tokio::time::timeout(PATIENCE, tell(stream)).await;
            drop(place);
        });
    }
}

async fn tell(mut stream: TcpStream) -> std::io::Result<()> {
    let mut said = [0; PIECE];
    // Its hello first: a connection that is closed with something unread is reset, and the reset may be there before the words.
    if stream.read(&mut said).await? == 0 {
        return Ok(());
    }
    stream.write_all(&RECORD).await?;
    stream.shutdown().await?;
    while stream.read(&mut said).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_has_the_alert() {
        assert_eq!(RECORD.last(), Some(&u8::from(ALERT)));
    }
}
