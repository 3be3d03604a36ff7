//! Bytes from the socket, by way of buffers of the thread: a connection that waits keeps none, unless it is for the rest of a packet.

use crate::limits;
use bytes::{BufMut, BytesMut};
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
        let room = *expected;
        let (read, is_full) = if room < limits::BY_REFERENCE {
            let mut buffer = ReadBuf::new(small);
            ready!(reader.poll_read(cx, &mut buffer))?;
            input.extend_from_slice(buffer.filled());
            (buffer.filled().len(), buffer.remaining() == 0)
        } else {
            let is_borrowed = input.is_empty();
            if is_borrowed {
                let fits = room..=room + room / 2;
                if !fits.contains(&large.capacity()) {
                    *large = BytesMut::with_capacity(room);
                }
                *input = std::mem::take(large);
            } else {
                make_room(input, room);
            }
            let mut limited = (&mut *input).limit(room);
            let read = pin!(reader.read_buf(&mut limited)).poll(cx);
            if is_borrowed && (read.is_pending() || is_wasteful(input)) {
                *large = std::mem::take(input);
                input.extend_from_slice(large);
                large.clear();
            } else if read.is_ready() && is_wasteful(input) {
                *input = input[..].into();
            }
            let read = ready!(read)?;
            (read, read == room)
        };
        // A little more than came: a buffer that is not filled says that there is nothing more.
        let more = if is_full { read } else { read / 8 };
        *expected = limits::READ_CHUNK.min(read + more);
        Poll::Ready(Ok(read))
    })
}

/// What is there is for nobody: gives its length; 0 = the end of the stream.
pub(crate) fn poll_discard<R: AsyncRead>(
    reader: Pin<&mut R>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    BUFFERS.with_borrow_mut(|buffers| {
        let mut buffer = ReadBuf::new(&mut buffers.small);
        ready!(reader.poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    })
}

/// For so many bytes behind what is there.
fn make_room(input: &mut BytesMut, room: usize) {
    if input.capacity() - input.len() >= room {
        return;
    }
    if input.len() >= room {
        input.reserve(room);
    } else {
        // The buffer may be full of what has been taken out of it: that is not copied along.
        let mut fresh = BytesMut::with_capacity(input.len() + room);
        fresh.extend_from_slice(input);
        *input = fresh;
    }
}

/// All of a buffer is kept as long as something in it is: it must not be far more than that. A large packet whose rest is to come grows by doubling.
fn is_wasteful(input: &BytesMut) -> bool {
    input.len() < limits::READ_CHUNK.min(input.capacity() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::future::poll_fn;
    use tokio::io::{AsyncWriteExt, DuplexStream};

    /// One end of a stream as a connection reads it, and the other.
    struct Wire {
        near: DuplexStream,
        far: DuplexStream,
        input: BytesMut,
        expected: usize,
    }

    impl Wire {
        fn new() -> Wire {
            let (near, far) = tokio::io::duplex(1 << 20);
            Wire {
                near,
                far,
                input: BytesMut::new(),
                expected: 0,
            }
        }

        async fn send(&mut self, bytes: &[u8]) {
            self.far.write_all(bytes).await.expect("room");
        }

        /// `None`: nothing is there.
        async fn read(&mut self) -> Option<usize> {
            let Wire {
                near,
                input,
                expected,
                ..
            } = self;
            // Out of what a task may do at a time, a stream says that nothing is there.
            let mut near = tokio::task::coop::unconstrained(poll_fn(|cx| {
                Poll::Ready(poll_read(Pin::new(&mut *near), input, expected, cx))
            }));
            match Pin::new(&mut near).await {
                Poll::Ready(read) => Some(read.expect("a read")),
                Poll::Pending => None,
            }
        }
    }

    /// Sizes of what a client sends at a time.
    const SENT: [usize; 12] = [
        2, 100, 5_000, 70_000, 3, 20_000, 16_399, 16_399, 16_399, 300_000, 1, 4_096,
    ];

    #[tokio::test]
    async fn everything_comes_in_its_order_whatever_is_still_in_use_of_what_came() {
        // How much of what came is the beginning of a packet: all, nothing, a part.
        for left in [usize::MAX, 0, 1, 3_000] {
            let mut wire = Wire::new();
            let (mut sent, mut came, mut taken) = (Vec::new(), Vec::new(), 0);
            for (round, size) in SENT.iter().cycle().take(40).enumerate() {
                let bytes: Vec<u8> = (0..*size).map(|n| (n * 7 + round) as u8).collect();
                wire.send(&bytes).await;
                sent.extend_from_slice(&bytes);
                while let Some(read) = wire.read().await {
                    assert!(read <= limits::READ_CHUNK);
                    let (kept, len) = (wire.input.capacity(), wire.input.len());
                    let bound = if left == 0 { 2 * len + 64 } else { usize::MAX };
                    assert!(kept <= bound, "{kept} for {len}");
                    let packets = len.saturating_sub(left);
                    let mut got = wire.input.split_to(packets).freeze();
                    taken += packets;
                    if wire.input.is_empty() {
                        wire.input = BytesMut::new();
                    }
                    // Some are kept to the end, of the others the buffer is let go at once.
                    if round % 3 == 0 {
                        got = Bytes::copy_from_slice(&got);
                    }
                    came.push(got);
                }
                assert_eq!(taken + wire.input.len(), sent.len(), "{left}");
            }
            came.push(wire.input.split().freeze());
            assert!(came.concat() == sent, "{left}");
            drop(wire.far);
            wire.far = tokio::io::duplex(1).0;
            assert_eq!(wire.read().await, Some(0));
        }
    }

    #[tokio::test]
    async fn a_connection_that_waits_keeps_no_buffer() {
        let mut wire = Wire::new();
        for _ in 0..3 {
            wire.send(&[7; 20_000]).await;
            while wire.read().await.is_some() {}
            wire.input = BytesMut::new();
            assert_eq!(wire.read().await, None);
            assert_eq!(wire.input.capacity(), 0);
        }
        // Little that comes after much is not kept in much.
        assert!(wire.expected > 20_000);
        wire.send(&[7; 60]).await;
        assert_eq!(wire.read().await, Some(60));
        assert!(wire.input.capacity() < 128, "{}", wire.input.capacity());
    }

    #[tokio::test]
    async fn the_beginning_of_a_packet_stays_while_its_rest_is_waited_for() {
        let mut wire = Wire::new();
        wire.send(&[1; 20_000]).await;
        assert_eq!(wire.read().await, Some(20_000));
        let packet = wire.input.split_to(19_000);
        for _ in 0..3 {
            assert_eq!(wire.read().await, None);
            assert!(wire.input == [1; 1_000][..]);
        }
        // What is expected next has room behind it, and no more than that.
        assert!(wire.input.capacity() <= 1_000 + wire.expected);
        wire.send(&[2; 100]).await;
        assert_eq!(wire.read().await, Some(100));
        assert!(wire.input[..1_000] == [1; 1_000] && wire.input[1_000..] == [2; 100]);
        assert!(wire.input.capacity() < 2_048, "{}", wire.input.capacity());
        assert!(packet[..] == [1; 19_000]);
    }

    #[tokio::test]
    async fn a_large_packet_is_read_in_pieces_and_makes_no_read_larger() {
        let mut wire = Wire::new();
        let mut sent = 0;
        for _ in 0..20 {
            wire.send(&[3; 500_000]).await;
            sent += 500_000;
            while let Some(read) = wire.read().await {
                assert!(read <= limits::READ_CHUNK, "{read}");
            }
        }
        assert_eq!(wire.input.len(), sent);
        assert!(wire.input.capacity() < 3 * sent);
    }
}
