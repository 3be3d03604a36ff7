//! One accepted connection.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;
use transport::{Peer, ReadHalf, Stream, WriteHalf};

/// What the handler of [`crate::serve`] gets.
pub struct Connection {
    /// The bytes of the protocol, through whatever carries them: TCP, TLS, WebSocket, QUIC. Counts them. What was written has to be
    /// flushed. `TCP_NODELAY` is set.
    pub stream: Counted<Stream>,
    /// Address and verified certificate of the client.
    pub peer: Peer,
    /// The address the client connected to (see [`crate::Advertise::host_for`]); behind a balancer that says it, the balancer's.
    pub local: SocketAddr,
    /// Unique in this process and this listener, for logs and holder ids.
    pub id: u64,
    /// Cancelled at shutdown: say goodbye in the protocol's own words and end. Who has not ended after
    /// [`crate::Limits::drain`] is cut.
    pub shutdown: CancellationToken,
}

/// A byte stream that counts what passes into the metrics of its protocol.
pub struct Counted<T> {
    inner: T,
    received: IntCounter,
    sent: IntCounter,
}

impl<T> Counted<T> {
    pub fn new(inner: T, received: IntCounter, sent: IntCounter) -> Counted<T> {
        Counted {
            inner,
            received,
            sent,
        }
    }

    pub fn get_ref(&self) -> &T {
        &self.inner
    }
}

impl Counted<Stream> {
    /// Two halves for two tasks; those of plain TCP have no lock between them.
    pub fn into_split(self) -> (Counted<ReadHalf>, Counted<WriteHalf>) {
        let (read, write) = self.inner.into_split();
        let Counted { received, sent, .. } = self;
        (
            Counted::new(read, received.clone(), sent.clone()),
            Counted::new(write, received, sent),
        )
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.received
            .inc_by(buf.filled().len().saturating_sub(before) as u64);
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.count_sent(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.count_sent(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<T> Counted<T> {
    fn count_sent(&self, result: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(written)) = result {
            self.sent.inc_by(*written as u64);
        }
    }
}
