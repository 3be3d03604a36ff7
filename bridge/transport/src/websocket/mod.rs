//! WebSocket (RFC 6455) as a byte stream: what the payloads of the binary frames hold, one after the other. Where a frame ends means
//! nothing to who reads it [MQTT-6.0.0-2 and similar rules of others].
//!
//! No frame or message is ever collected: payloads are taken as they arrive, so a frame of any length costs no memory. Extensions
//! (compression) are not offered.

mod frame;
mod upgrade;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits;
pub use frame::Violation;
pub use frame::{Decoder, Step};
use frame::{Opcode, put_frame};
pub use upgrade::{Offer, UpgradeError, accept};

/// The server's end of one connection.
pub struct WebSocket<S> {
    inner: S,
    decoder: Decoder,
    /// Bytes that came together with the request.
    early: BytesMut,
    reading: Reading,
    /// Whole frames, as far as the connection has not taken them.
    out: BytesMut,
    /// A control frame is in `out`: reading sends it, since perhaps nobody writes.
    control_in_out: bool,
    /// The answer to the last ping, where it is not in `out` yet. Earlier ones need none (section 5.5.3).
    pong: Option<Vec<u8>>,
    closing: Closing,
    /// Who writes, and waits for room.
    writer: Option<Waker>,
}

#[derive(Clone, Copy)]
enum Reading {
    Open,
    /// A close frame came, or the connection ended.
    Ended,
    Failed(Violation),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Closing {
    Not,
    /// With this code (section 7.4.1).
    Wanted(u16),
    Sent,
}

/// Section 7.4.1: nothing was wrong.
const NORMAL: u16 = 1000;

impl<S> WebSocket<S> {
    /// After the request was answered. `early`: what came behind it.
    fn new(inner: S, early: BytesMut) -> WebSocket<S> {
        WebSocket {
            inner,
            decoder: Decoder::default(),
            early,
            reading: Reading::Open,
            out: BytesMut::new(),
            control_in_out: false,
            pong: None,
            closing: Closing::Not,
            writer: None,
        }
    }

    /// Reads frames in `raw`, moves their payloads to its beginning, and gives their length.
    fn digest(&mut self, raw: &mut [u8]) -> usize {
        let (mut at, mut kept) = (0, 0);
        while let Some(rest) = raw.get_mut(at..).filter(|rest| !rest.is_empty()) {
            match self.decoder.step(rest) {
                Ok(Step::Payload(length)) => {
                    raw.copy_within(at..at + length, kept);
                    at += length;
                    kept += length;
                }
                Ok(Step::Passed(length)) => at += length,
                Ok(Step::Ping(length, payload)) => {
                    at += length;
                    self.pong = Some(payload);
                }
                Ok(Step::Close(code)) => {
                    self.reading = Reading::Ended;
                    self.want_close(code.unwrap_or(NORMAL));
                    break;
                }
                Err(violation) => {
                    tracing::debug!(%violation, "a WebSocket is closed");
                    self.reading = Reading::Failed(violation);
                    self.want_close(violation.close_code());
                    break;
                }
            }
        }
        kept
    }

    fn want_close(&mut self, code: u16) {
        if self.closing == Closing::Not {
            self.closing = Closing::Wanted(code);
        }
    }

    fn put_close(&mut self) {
        if let Closing::Wanted(code) = self.closing {
            put_frame(&mut self.out, Opcode::Close, &code.to_be_bytes());
            self.closing = Closing::Sent;
        }
    }
}

impl<S: AsyncWrite + Unpin> WebSocket<S> {
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, &self.out))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => self.out.advance(taken),
            }
        }
        self.control_in_out = false;
        if self.out.capacity() > limits::FRAME_KEPT {
            self.out = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Answers a ping or a close while reading. What the connection does not take now it takes when it is polled again.
    fn poll_control(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        // One at a time: pings of a client that takes no pongs do not add up.
        if !self.control_in_out {
            let answer = self.closing != Closing::Sent;
            if let Some(payload) = self.pong.take()
                && answer
            {
                put_frame(&mut self.out, Opcode::Pong, &payload);
                self.control_in_out = true;
            }
            if matches!(self.closing, Closing::Wanted(_)) {
                self.put_close();
                self.control_in_out = true;
            }
        }
        if self.control_in_out {
            let before = self.out.len();
            if let Poll::Ready(done) = self.poll_out(cx) {
                done?;
                if let Poll::Ready(flushed) = Pin::new(&mut self.inner).poll_flush(cx) {
                    flushed?;
                }
            }
            // Its waker may have been replaced by ours.
            if self.out.len() < before
                && let Some(writer) = self.writer.take()
            {
                writer.wake();
            }
        }
        Ok(())
    }

    /// Sends everything there is; who waits is remembered.
    fn poll_all_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.poll_out(cx);
        self.writer = sent.is_pending().then(|| cx.waker().clone());
        sent
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            this.poll_control(cx)?;
            match this.reading {
                Reading::Open => {}
                Reading::Ended => return Poll::Ready(Ok(())),
                Reading::Failed(violation) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)));
                }
            }
            if buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            // The frames are read into the caller's buffer and unwrapped there: an idle connection needs none of its own.
            let before = buf.filled().len();
            if this.early.is_empty() {
                ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
            } else {
                let early = this.early.split_to(buf.remaining().min(this.early.len()));
                buf.put_slice(&early);
                if this.early.is_empty() {
                    this.early = BytesMut::new();
                }
            }
            let raw = buf.filled_mut().get_mut(before..).unwrap_or_default();
            if raw.is_empty() {
                this.reading = Reading::Ended;
                return Poll::Ready(Ok(()));
            }
            let kept = this.digest(raw);
            buf.set_filled(before + kept);
            if kept > 0 {
                this.poll_control(cx)?;
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    /// Takes what fits in one frame. The rest of the frame goes out with the next write, a flush or a shutdown.
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.closing != Closing::Not {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(this.poll_all_out(cx))?;
        let part = bytes.get(..limits::FRAME_OUT).unwrap_or(bytes);
        if part.is_empty() {
            return Poll::Ready(Ok(0));
        }
        put_frame(&mut this.out, Opcode::Binary, part);
        match this.poll_all_out(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(part.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_all_out(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.want_close(NORMAL);
        this.put_close();
        ready!(this.poll_all_out(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}
