//! Bytes on their way to the socket: small things are copied together, large payloads go by reference.

use crate::limits;
use crate::mailbox::{Mailbox, SOCKET};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncWrite, AsyncWriteExt, WriteHalf};

/// An empty one holds no memory of its own: most connections are idle most of the time.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Before the tail, in order.
    pieces: VecDeque<Bytes>,
    pieces_len: usize,
    tail: BytesMut,
}

impl Output {
    pub fn len(&self) -> usize {
        self.pieces_len + self.tail.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// So many packets are about to come: room for small ones is made at once.
    pub fn expect(&mut self, packets: usize) {
        if packets > 8 {
            self.tail
                .reserve((packets * limits::SMALL_PACKET).min(limits::MAX_OUTPUT / 4));
        }
    }

    /// To append something small to.
    pub fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends a payload: many receivers share the bytes of a large one.
    pub fn put_payload(&mut self, payload: &Bytes) {
        if payload.len() < limits::BY_REFERENCE {
            self.tail.extend_from_slice(payload);
            return;
        }
        for piece in [self.tail.split().freeze(), payload.clone()] {
            self.pieces_len += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// Writes a part of it, which must not be empty, and gives its length.
    pub fn poll_write<W: AsyncWrite>(
        &mut self,
        writer: Pin<&mut W>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let written = if self.pieces.is_empty() {
            ready!(writer.poll_write(cx, &self.tail))?
        } else {
            let mut slices = [IoSlice::new(&[]); limits::WRITE_PIECES];
            let all = self.pieces.iter().map(|piece| &piece[..]);
            let all = all.chain(std::iter::once(&self.tail[..]));
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(all) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            ready!(writer.poll_write_vectored(cx, slices.get(..count).unwrap_or_default()))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.consume(written);
        Poll::Ready(Ok(written))
    }

    fn consume(&mut self, mut written: usize) {
        while let Some(first) = self.pieces.front_mut() {
            if written < first.len() {
                first.advance(written);
                self.pieces_len -= written;
                return;
            }
            written -= first.len();
            self.pieces_len -= first.len();
            self.pieces.pop_front();
        }
        self.tail.advance(written.min(self.tail.len()));
        if self.tail.is_empty() {
            *self = Output::default();
        }
    }
}

/// Writes a part of the output; with nothing to write, flushes what was written and gives 0; with nothing to flush either, waits for ever.
pub(crate) async fn write_some<W: AsyncWrite>(
    writer: &mut WriteHalf<W>,
    output: &mut Output,
    unflushed: bool,
    mailbox: &Mailbox,
) -> std::io::Result<usize> {
    if !output.is_empty() {
        let write = poll_fn(|cx| {
            let written = output.poll_write(Pin::new(&mut *writer), cx);
            mailbox.set_blocked(SOCKET, written.is_pending());
            written
        });
        write.await
    } else if unflushed {
        writer.flush().await.map(|()| 0)
    } else {
        pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn all_of_it_comes_out_in_order_whatever_the_pieces() {
        let mut output = Output::default();
        let mut expected = Vec::new();
        for n in 0..200usize {
            let head = [n as u8; 7];
            let payload = Bytes::from(vec![n as u8; (n * 331) % (3 * limits::BY_REFERENCE)]);
            output.tail().extend_from_slice(&head);
            output.put_payload(&payload);
            expected.extend_from_slice(&head);
            expected.extend_from_slice(&payload);
        }
        assert_eq!(output.len(), expected.len());
        let (mut near, mut far) = tokio::io::duplex(10_007);
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.expect("the other end");
            all
        });
        while !output.is_empty() {
            poll_fn(|cx| output.poll_write(Pin::new(&mut near), cx))
                .await
                .expect("a write");
        }
        drop(near);
        assert!(reader.await.expect("the reader") == expected);
    }
}
