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

/// Appends what is there to `input` and gives its length; 0 = the end of the stream. `expected` says what to make room for, and is 0 at first.
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
            let borrows = input.is_empty();
            if borrows {
                if large.capacity() < *expected || large.capacity() > 2 * *expected {
                    *large = BytesMut::with_capacity(*expected);
                }
                std::mem::swap(input, large);
            } else {
                input.reserve(*expected);
            }
            let room = input.capacity() - input.len();
            match pin!(reader.read_buf(input)).poll(cx) {
                Poll::Ready(read) => (read?, room),
                Poll::Pending => {
                    if borrows {
                        std::mem::swap(input, large);
                    }
                    return Poll::Pending;
                }
            }
        };
        // A little more than came: a buffer that is not filled says that there is nothing more.
        let next = if read == room {
            2 * read
        } else {
            read + read / 8
        };
        *expected = next.min(limits::READ_MOST);
        Poll::Ready(Ok(read))
    })
}
