//! WebSocket (RFC 6455) as a byte stream: what the payloads of the binary frames hold, one after the other. Where a frame ends means
//! nothing to who reads it [MQTT-6.0.0-2 and similar rules of others].
//!
//! No frame or message is ever collected: payloads are taken as they arrive, so a frame of any length costs no memory. Extensions
//! (compression) are not offered.

mod frame;
mod upgrade;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits;
pub use frame::Violation;
pub use frame::{Decoder, Step};
use frame::{Opcode, put_frame, put_head};
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
    /// There is an answer to a ping, or a close, in `out`.
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

    /// Puts the answer to a ping, or a close, behind what is to be sent. `false`: there is none.
    fn put_control(&mut self) -> bool {
        let before = self.out.len();
        if self.closing != Closing::Sent
            && let Some(payload) = self.pong.take()
        {
            put_frame(&mut self.out, Opcode::Pong, &payload);
        }
        if let Closing::Wanted(code) = self.closing {
            put_frame(&mut self.out, Opcode::Close, &code.to_be_bytes());
            self.closing = Closing::Sent;
        }
        self.control_in_out |= self.out.len() > before;
        self.out.len() > before
    }
}

impl<S: AsyncWrite + Unpin> WebSocket<S> {
    /// Sends everything there is. Answers wait until all before them was sent: pings of a client that takes no pongs do not add up.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while !self.out.is_empty() {
                match ready!(Pin::new(&mut self.inner).poll_write(cx, &self.out))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    taken => self.out.advance(taken),
                }
            }
            self.control_in_out = false;
            if !self.put_control() {
                break;
            }
        }
        if self.out.capacity() > limits::FRAME_KEPT {
            self.out = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Answers a ping or a close while reading: perhaps nobody writes. What the connection does not take now it takes later. Where it takes
    /// nothing any more, whoever writes is told so: what the client said before it left is read all the same, up to its end.
    fn poll_control(&mut self, cx: &mut Context<'_>) {
        if !self.control_in_out && !self.put_control() {
            return;
        }
        // Who waits to write is the one to be woken: it sends the answer too.
        let writer = self.writer.clone();
        let waker = writer.as_ref().unwrap_or(cx.waker());
        let cx = &mut Context::from_waker(waker);
        if let Poll::Ready(sent) = self.poll_out(cx) {
            if let Some(writer) = self.writer.take() {
                writer.wake();
            }
            if sent.is_ok() {
                let _ = Pin::new(&mut self.inner).poll_flush(cx);
            }
        }
    }

    /// The same for who writes, who is remembered while it waits.
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
            this.poll_control(cx);
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
                this.poll_control(cx);
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
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.closing != Closing::Not {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(this.poll_all_out(cx))?;
        let length = slices.iter().map(|slice| slice.len()).sum();
        let length = limits::FRAME_OUT.min(length);
        if length == 0 {
            return Poll::Ready(Ok(0));
        }
        put_head(&mut this.out, Opcode::Binary, length);
        let mut missing = length;
        for slice in slices {
            let part = slice.get(..missing).unwrap_or(slice);
            this.out.extend_from_slice(part);
            missing -= part.len();
        }
        match this.poll_all_out(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(length)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_all_out(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.want_close(NORMAL);
        ready!(this.poll_all_out(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}
