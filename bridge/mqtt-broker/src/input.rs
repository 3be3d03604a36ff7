//! Bytes from the socket, by way of buffers of the thread: a connection that waits keeps none.

use crate::limits;
use bytes::BytesMut;
use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// Of a thread.
struct Buffers {
    /// What is small is copied out of it, to where it takes no more room than it needs.
    small: Box<[u8]>,
    /// Becomes the input of whoever reads something large, which is not copied then.
    large: BytesMut,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers {
        small: vec![0; limits::READ_CHUNK].into(),
        large: BytesMut::new(),
    });
}

/// Appends what is there to `input` and gives its length; 0 = the end of the stream. `expected` is how many bytes may come, 0 at first.
pub(crate) fn poll_read<R: AsyncRead + Unpin>(
    mut reader: Pin<&mut R>,
    input: &mut BytesMut,
    expected: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    BUFFERS.with_borrow_mut(|Buffers { small, large }| {
        let (read, room) = if *expected < limits::BY_REFERENCE {
            let mut buffer = ReadBuf::new(small);
            ready!(reader.poll_read(cx, &mut buffer))?;
            input.extend_from_slice(buffer.filled());
            (buffer.filled().len(), buffer.capacity())
        } else {
            let is_borrowed = input.is_empty();
            if is_borrowed {
                if large.capacity() < *expected || large.capacity() > 2 * *expected {
                    *large = BytesMut::with_capacity(*expected);
                }
                std::mem::swap(input, large);
            } else {
                input.reserve(*expected);
            }
            let room = input.capacity() - input.len();
            let read = pin!(reader.read_buf(input)).poll(cx);
            let kept = match &read {
                // Nothing came. Where something waits for its rest, so does the room for that.
                Poll::Pending => is_borrowed.then(BytesMut::new),
                // All of a buffer is kept as long as something in it is: it must not be far more than that.
                Poll::Ready(_) if input.len() < input.capacity() / 2 => Some(input[..].into()),
                Poll::Ready(_) => None,
            };
            if let Some(kept) = kept {
                let mut buffer = std::mem::replace(input, kept);
                if is_borrowed {
                    buffer.clear();
                    *large = buffer;
                }
            }
            (ready!(read)?, room)
        };
        // A little more than came: a buffer that is not filled says that there is nothing more.
        let next = if read == room {
            2 * read
        } else {
            read + read / 8
        };
        *expected = next.min(limits::READ_CHUNK);
        Poll::Ready(Ok(read))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::AsyncWriteExt;

    /// Sizes of what a client sends at a time.
    const SENT: [usize; 12] = [
        2, 100, 5_000, 70_000, 3, 20_000, 16_399, 16_399, 16_399, 300_000, 1, 4_096,
    ];

    async fn read(
        reader: &mut (impl AsyncRead + Unpin),
        input: &mut BytesMut,
        expected: &mut usize,
    ) -> usize {
        let mut reader = Pin::new(reader);
        let read = poll_fn(|cx| poll_read(reader.as_mut(), input, expected, cx));
        read.await.expect("a read")
    }

    #[tokio::test]
    async fn everything_comes_in_its_order_and_what_is_kept_of_it_keeps_little_more() {
        // How much of what came is left in the input each time: all, nothing, a part.
        for left in [usize::MAX, 0, 1, 3_000] {
            let (mut near, mut far) = tokio::io::duplex(1 << 20);
            let (mut input, mut expected) = (BytesMut::new(), 0);
            let (mut sent, mut came) = (Vec::new(), Vec::new());
            for (round, size) in SENT.iter().cycle().take(40).enumerate() {
                let bytes: Vec<u8> = (0..*size).map(|n| (n * 7 + round) as u8).collect();
                far.write_all(&bytes).await.expect("room");
                sent.extend_from_slice(&bytes);
                while came.len() + input.len() < sent.len() {
                    read(&mut near, &mut input, &mut expected).await;
                    let (kept, bytes) = (input.capacity(), input.len());
                    assert!(left > 0 || kept <= 2 * bytes + 64, "{kept} for {bytes}");
                    let taken = input.len().saturating_sub(left);
                    came.extend_from_slice(&input.split_to(taken));
                }
            }
            came.extend_from_slice(&input);
            assert!(came == sent, "{left}");
            drop(far);
            assert_eq!(read(&mut near, &mut input, &mut expected).await, 0);
        }
    }

    #[tokio::test]
    async fn a_connection_that_waits_keeps_no_buffer() {
        let (mut near, mut far) = tokio::io::duplex(1 << 20);
        let (mut input, mut expected) = (BytesMut::new(), 0);
        for _ in 0..3 {
            far.write_all(&[7; 20_000]).await.expect("room");
            while read(&mut near, &mut input, &mut expected).await == 0 {}
            input = BytesMut::new();
            let waits = poll_fn(|cx| {
                Poll::Ready(poll_read(
                    Pin::new(&mut near),
                    &mut input,
                    &mut expected,
                    cx,
                ))
            });
            assert!(waits.await.is_pending());
            assert_eq!(input.capacity(), 0);
        }
        // Little that comes after much is not kept in much.
        assert!(expected > 20_000);
        far.write_all(&[7; 60]).await.expect("room");
        assert_eq!(read(&mut near, &mut input, &mut expected).await, 60);
        assert!(input.capacity() < 128, "{}", input.capacity());
    }
}
