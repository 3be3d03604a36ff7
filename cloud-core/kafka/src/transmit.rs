//! Putting a response on the wire, chunk by chunk as it lies in memory.

use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::limits;

/// Chunks handed to the system in one call.
const SLICES: usize = 64;

/// Writes all of `chunks`. A client that takes nothing for too long is an error.
pub async fn transmit<W: AsyncWrite + Unpin>(writer: &mut W, chunks: Vec<Bytes>) -> io::Result<()> {
    let mut chunks = chunks.into_iter();
    let mut window: std::collections::VecDeque<Bytes> = chunks.by_ref().take(SLICES).collect();
    while !window.is_empty() {
        let slices: Vec<IoSlice<'_>> = window.iter().map(|chunk| IoSlice::new(chunk)).collect();
        let mut written =
            tokio::time::timeout(limits::WRITE_TIMEOUT, writer.write_vectored(&slices))
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(first) = window.front_mut() {
            if first.len() > written {
                first.advance(written);
                break;
            }
            written -= first.len();
            window.pop_front();
            window.extend(chunks.next());
        }
    }
    writer.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_chunk_arrives_in_order_through_a_small_pipe() {
        let chunks: Vec<Bytes> = (0..500u32)
            .map(|n| Bytes::from(n.to_be_bytes().repeat(n as usize % 7)))
            .collect();
        let expected: Vec<u8> = chunks.concat();
        let (mut near, mut far) = tokio::io::duplex(13);
        let sender = tokio::spawn(async move { transmit(&mut near, chunks).await });
        let mut received = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut far, &mut received)
            .await
            .unwrap();
        sender.await.unwrap().unwrap();
        assert_eq!(received, expected);
    }
}
