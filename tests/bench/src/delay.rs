//! A longer way to a server: every byte arrives so much later, however many are on the way.

use std::time::Duration;

use anyhow::Result;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Pieces that are on the way at most, in one direction of one connection.
const ON_THE_WAY: usize = 1024;
/// Bytes of a piece.
const PIECE: usize = 64 << 10;

/// Forwards connections to `server`; what is sent there arrives `delay` later, what comes back does not wait. Returns the address.
pub async fn proxy(server: String, delay: Duration) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(&server).await else {
                continue;
            };
            // Without this, small requests wait for each other.
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            forward(from_client, to_server, delay);
            forward(from_server, to_client, Duration::ZERO);
        }
    });
    Ok(address)
}

fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Bytes)>(ON_THE_WAY);
    tokio::spawn(async move {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(PIECE);
            match from.read_buf(&mut buffer).await {
                Ok(read) if read > 0 => {}
                _ => break,
            }
            let piece = (Instant::now() + delay, buffer.split().freeze());
            if sender.send(piece).await.is_err() {
                break;
            }
        }
    });
    tokio::spawn(async move {
        while let Some((due, bytes)) = receiver.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // The end of the stream goes the same way.
        let _ = to.shutdown().await;
    });
}
