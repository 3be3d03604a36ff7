//! What the attempts of one race have heard of a core. One that is answered is worth more than another beside it, which would cost the core a
//! handshake more: in a fleet that comes at once each edge would take several, and all of them would wait for longer.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Transport;

/// So long after the last word of the core no other attempt begins: longer than a core lets a client wait before its handshake
/// ([`crate::Handshakes::patience`]), after which it sends it away.
const ALONE: Duration = Duration::from_secs(3);
/// So long after the first word to one attempt others may be heard that were begun before it. What they have sent in a silence they send again,
/// and the core would take each of them for one more client.
const COMPANY: Duration = Duration::from_millis(250);

/// Of all attempts that run.
#[derive(Clone, Default)]
pub(crate) struct Signs(Arc<State>);

#[derive(Default)]
struct State {
    attempts: Mutex<Vec<Weak<Sign>>>,
    news: Notify,
}

/// Of one attempt, as long as that keeps it.
pub(crate) struct Sign {
    /// Which attempt of the race it is a part of.
    of: usize,
    transport: Transport,
    heard: Mutex<Heard>,
    all: Weak<State>,
}

#[derive(Clone, Copy, Default)]
struct Heard {
    /// After a silence as well.
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Heard {
    /// Nothing, or nothing any more.
    fn is_over(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| last + ALONE <= now)
    }
}

impl Sign {
    /// Something has come from the core's address.
    pub(crate) fn note(&self) {
        let now = Instant::now();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let was_silent = heard.is_over(now);
        if was_silent {
            heard.first = Some(now);
        }
        heard.last = Some(now);
        drop(heard);
        if let (true, Some(all)) = (was_silent, self.all.upgrade()) {
            all.news.notify_one();
        }
    }

    fn heard(&self) -> Heard {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signs {
    /// For an attempt that begins.
    pub(crate) fn attempt(&self, of: usize, transport: Transport) -> Arc<Sign> {
        let sign = Arc::new(Sign {
            of,
            transport,
            heard: Mutex::default(),
            all: Arc::downgrade(&self.0),
        });
        let mut attempts = self.attempts();
        attempts.retain(|attempt| attempt.strong_count() > 0);
        attempts.push(Arc::downgrade(&sign));
        sign
    }

    fn attempts(&self) -> MutexGuard<'_, Vec<Weak<Sign>>> {
        self.0
            .attempts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Of those that still run, and are of use to tell whether another over `next` is to begin. That a connection over TCP stands says less: a
    /// proxy on the way may have taken it.
    fn heard(&self, next: Transport) -> Vec<(usize, Heard)> {
        let attempts = self.attempts();
        attempts
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|sign| sign.transport == Transport::Quic || next == Transport::Tls)
            .map(|sign| (sign.of, sign.heard()))
            .collect()
    }

    /// Until when no other attempt over `next` is to begin beside those that run, unless more is heard.
    pub(crate) fn alone_until(&self, next: Transport) -> Option<Instant> {
        let heard = self.heard(next);
        let last = heard.iter().filter_map(|(_, heard)| heard.last).max();
        last.map(|last| last + ALONE)
    }

    /// Returns when one has been answered over QUIC and is not done by now, with all that were: others are not needed any more. Cancel-safe.
    pub(crate) async fn answered(&self) -> Vec<usize> {
        loop {
            let now = Instant::now();
            let heard = self.heard(Transport::Quic);
            let alive = heard.iter().filter(|(_, heard)| !heard.is_over(now));
            let first = alive.filter_map(|(_, heard)| heard.first).min();
            match first.map(|first| first + COMPANY) {
                Some(at) if at <= now => {
                    let answered = heard.iter().filter(|(_, heard)| heard.first.is_some());
                    return answered.map(|(of, _)| *of).collect();
                }
                Some(at) => tokio::time::sleep_until(at).await,
                None => self.0.news.notified().await,
            }
        }
    }
}

/// A socket that notes what comes from `remote`, as long as the attempt runs.
pub(crate) struct Listening {
    socket: Arc<dyn AsyncUdpSocket>,
    remote: SocketAddr,
    sign: Weak<Sign>,
}

impl Listening {
    pub(crate) fn new(
        socket: Arc<dyn AsyncUdpSocket>,
        remote: SocketAddr,
        sign: &Arc<Sign>,
    ) -> Listening {
        Listening {
            socket,
            remote,
            sign: Arc::downgrade(sign),
        }
    }
}

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.socket.fmt(f)
    }
}

impl AsyncUdpSocket for Listening {
    fn create_io_poller(self: Arc<Self>) -> std::pin::Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.socket.poll_recv(cx, bufs, meta);
        if let (Poll::Ready(Ok(count)), Some(sign)) = (&received, self.sign.upgrade()) {
            let from = |meta: &RecvMeta| (meta.addr.ip(), meta.addr.port());
            let remote = (self.remote.ip(), self.remote.port());
            if meta.iter().take(*count).any(|meta| from(meta) == remote) {
                sign.note();
            }
        }
        received
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}
