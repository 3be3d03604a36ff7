//! Taking frames off a connection without believing their length.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::limits;
use crate::wire::Api;

/// Why no more requests come.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error("a request of {length} bytes, the limit is {limit}")]
    BadLength { length: i64, limit: usize },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The receiving half of a connection.
pub struct Receiver<R> {
    reader: R,
    buffer: BytesMut,
    /// Largest request, where it is less than what its kind may have.
    limit: usize,
}

impl<R: AsyncRead + Unpin> Receiver<R> {
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: BytesMut::new(),
            limit: usize::MAX,
        }
    }

    /// Of requests that come from now on.
    pub fn limit(&mut self, bytes: usize) {
        self.limit = bytes;
    }

    /// The next request without its length; `None` at the end of the connection. Nothing is lost when it is cancelled.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReceiveError> {
        loop {
            let missing = match self.frame_length()? {
                Some(length) if self.buffer.len() >= 4 + length => {
                    let mut frame = self.buffer.split_to(4 + length).freeze();
                    return Ok(Some(frame.split_off(4)));
                }
                Some(length) => 4 + length - self.buffer.len(),
                None => 1,
            };
            if !self.fill(missing).await? {
                return Ok(None);
            }
        }
    }

    /// Receives what there is while a request is being answered, up to a bound; returns only when the client has left.
    pub async fn closed(&mut self) -> io::Result<()> {
        while self.buffer.len() < limits::READ_AHEAD {
            if !self.fill(1).await? {
                return Ok(());
            }
        }
        std::future::pending().await
    }

    /// The length of the frame that begins in the buffer, once enough of it is there to judge it.
    fn frame_length(&self) -> Result<Option<usize>, ReceiveError> {
        let Some((head, rest)) = self.buffer.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let Some(key) = rest.first_chunk::<2>() else {
            return Ok(None);
        };
        let limit = if i16::from_be_bytes(*key) == Api::Produce.key() {
            limits::MAX_PRODUCE_REQUEST
        } else {
            limits::MAX_REQUEST
        }
        .min(self.limit);
        let length = i32::from_be_bytes(*head);
        match usize::try_from(length) {
            Ok(length) if (limits::MIN_REQUEST..=limit).contains(&length) => Ok(Some(length)),
            _ => Err(ReceiveError::BadLength {
                length: i64::from(length),
                limit,
            }),
        }
    }

    /// Receives at least one byte; false at the end of the connection. The buffer grows with what arrives.
    async fn fill(&mut self, missing: usize) -> io::Result<bool> {
        if self.buffer.capacity() == self.buffer.len() {
            self.buffer
                .reserve(missing.clamp(limits::RECEIVE_SMALL, limits::RECEIVE_CHUNK));
        }
        Ok(self.reader.read_buf(&mut self.buffer).await? > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn receive(bytes: &[u8]) -> (Vec<Bytes>, Result<(), ReceiveError>) {
        let mut receiver = Receiver::new(bytes);
        let mut frames = Vec::new();
        loop {
            match receiver.next().await {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, Ok(())),
                Err(error) => return (frames, Err(error)),
            }
        }
    }

    #[tokio::test]
    async fn frames_come_one_by_one_and_a_cut_one_does_not() {
        let frame = [0, 0, 0, 8, 0, 18, 0, 0, 0, 0, 0, 1];
        let (frames, end) = receive(&[&frame[..], &frame[..], &frame[..7]].concat()).await;
        assert_eq!(frames, [&frame[4..], &frame[4..]]);
        assert!(end.is_ok());
    }

    #[tokio::test]
    async fn impossible_lengths_end_the_connection() {
        for head in [
            [0xff, 0xff, 0xff, 0xff, 0, 0],
            [0x7f, 0xff, 0xff, 0xff, 0, 0],
            [0, 0, 0, 3, 0, 0],
            [0, 0x50, 0, 0, 0, 3],
        ] {
            let (frames, end) = receive(&head).await;
            assert!(frames.is_empty());
            assert!(
                matches!(end, Err(ReceiveError::BadLength { .. })),
                "{head:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_claimed_length_costs_no_memory() {
        let head = [0x06, 0, 0, 0, 0, 0, 0, 9];
        let mut receiver = Receiver::new(&head[..]);
        assert!(receiver.next().await.unwrap().is_none());
        assert!(receiver.buffer.capacity() <= 2 * limits::RECEIVE_CHUNK);
    }
}
