//! The way to the core: enrols once, then keeps one connection and sends the outbox over it, from its cursor on.
//!
//! Nothing is decided here about what is committed: the cursor moves on the core's acknowledgements only, and what was not
//! acknowledged is read from the outbox and sent again. The core knows repetitions by their sequence numbers.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use store::{End, Frame, From, Lane, LogId, Store};
use sync_quic::{
    BatchFlags, BatchFrame, CloseCode, ConnectError, Connection, CoreAddress, Dialer, EnrolError,
    EnrolRefusal, Event, Events, Hello, Identity, Lost, SendError, Timing, Token, Transport,
    Window, system_now,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::lineage::{self, Lineage};
use crate::link::Link;
use crate::{downlink, identity, limits, query};

pub struct Uplink {
    pub cores: Vec<CoreAddress>,
    pub timing: Timing,
    pub token: Option<String>,
    pub name: String,
    pub dir: PathBuf,
    pub store: Arc<Store>,
    pub link: Arc<Link>,
    /// Of this process, so that the core tells a reconnect from a copy of this edge.
    pub nonce: u64,
    pub lineage: Arc<Mutex<Lineage>>,
    /// What is told of this edge when the core asks.
    pub sources: query::Sources,
}

/// When to try again.
enum Retry {
    /// At once: there is a better way than the one that was given up.
    Now,
    /// Soon: there was a connection.
    Quick,
    /// After a pause that grows.
    Backoff,
    /// After the longest pause: somebody has to do something first.
    Slow,
}

/// One frame on its way.
struct InFlight {
    number: u64,
    end: End,
    /// Messages that are delivered when it is settled; 0 once it is refused.
    records: u64,
    settled: bool,
}

/// What is on its way, oldest first. The cursor follows the front.
struct Flight {
    frames: Mutex<VecDeque<InFlight>>,
}

impl Uplink {
    /// Runs until `stop`. Failures are states of the link, never an end.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.keep_connected()).await;
        self.link.set_down("stopped".into());
    }

    async fn keep_connected(&self) {
        let identity = match self.identity().await {
            Some(identity) => identity,
            // Nothing to be done without a restart.
            None => return std::future::pending().await,
        };
        let dialer = match Dialer::new(self.cores.clone(), &identity, system_now(), self.timing) {
            Ok(dialer) => dialer,
            Err(error) => {
                self.link.set_down(error.to_string());
                return std::future::pending().await;
            }
        };
        let mut pause = limits::MIN_RETRY;
        loop {
            match self.connection(&identity, &dialer).await {
                Retry::Now => pause = limits::MIN_RETRY,
                Retry::Quick => {
                    pause = limits::MIN_RETRY;
                    wait(limits::FIRST_RETRY).await;
                }
                Retry::Backoff => {
                    wait(pause).await;
                    pause = (pause * 2).min(limits::MAX_RETRY);
                }
                Retry::Slow => wait(limits::MAX_RETRY).await,
            }
        }
    }

    /// The stored identity, or a new one for the token. `None` = there is neither, which only an operator can change.
    async fn identity(&self) -> Option<Identity> {
        match identity::load(&self.dir) {
            Ok(Some(identity)) => {
                if self.token.is_some() {
                    tracing::debug!(edge = %identity.edge, "enrolled already: the token is not used");
                }
                if identity.edge != self.name {
                    tracing::debug!(enrolled = %identity.edge, given = %self.name, "the name was settled at the enrolment");
                }
                return Some(identity);
            }
            Ok(None) => {}
            Err(error) => {
                self.link.set_down(format!("{error:#}"));
                return None;
            }
        }
        let Some(token) = &self.token else {
            self.link.set_down(
                "not enrolled: give a token with --token (make one with `towline token create`)"
                    .into(),
            );
            return None;
        };
        let token = match Token::parse(token) {
            Ok(token) => token,
            Err(error) => {
                self.link
                    .set_down(format!("the token can not be used: {error}"));
                return None;
            }
        };
        let mut pause = limits::MIN_RETRY;
        loop {
            let error =
                match sync_quic::enrol(&self.cores, &token, &self.name, system_now(), self.timing)
                    .await
                {
                    Ok(identity) => match identity::save(&self.dir, &identity) {
                        Ok(()) => {
                            tracing::info!(edge = %identity.edge, "enrolled");
                            return Some(identity);
                        }
                        Err(error) => {
                            self.link
                                .set_down(format!("the identity can not be stored: {error}"));
                            wait(limits::MAX_RETRY).await;
                            continue;
                        }
                    },
                    Err(error) => error,
                };
            self.link.set_down(format!("not enrolled: {error}"));
            let soon = matches!(
                error,
                EnrolError::Resolve { .. }
                    | EnrolError::Unreachable { .. }
                    | EnrolError::Refused {
                        code: EnrolRefusal::Unavailable,
                        ..
                    }
            );
            wait(if soon { pause } else { limits::MAX_RETRY }).await;
            pause = (pause * 2).min(limits::MAX_RETRY);
        }
    }

    /// One connection, from its beginning to its end.
    async fn connection(&self, identity: &Identity, dialer: &Dialer) -> Retry {
        let producer = self.store.producer();
        // The core may remember this start from here on, whether its answer is heard or not.
        let earlier = match self.lineage(Lineage::before_hello).await {
            Ok(earlier) => earlier,
            Err(error) => {
                self.link
                    .set_down(format!("this start can not be noted: {error}"));
                return Retry::Slow;
            }
        };
        let hello = Hello {
            version: sync::VERSION,
            edge: identity.edge.clone(),
            producer_id: producer.id,
            previous_producer_id: producer.previous,
            incarnation: producer.epoch,
            nonce: self.nonce,
            earlier,
            software: format!("towline-edge {}", env!("CARGO_PKG_VERSION")),
            ..Hello::default()
        };
        let window = Window {
            bytes: limits::UPLINK_WINDOW,
            ..Window::default()
        };
        let (connection, events) = match dialer.connect(hello, window).await {
            Ok(connected) => connected,
            Err(error) => {
                let retry = match &error {
                    ConnectError::Resolve { .. } | ConnectError::Unreachable { .. } => {
                        Retry::Backoff
                    }
                    ConnectError::Refused(refused) if refused.code.is_retryable() => Retry::Backoff,
                    _ => Retry::Slow,
                };
                self.link.set_down(error.to_string());
                return retry;
            }
        };
        if let Err(error) = self.lineage(Lineage::welcome).await {
            // The next start says one more than it has to.
            tracing::warn!(%error, "that the core let this start in can not be noted");
        }
        tracing::info!(core = connection.core(), "connected");
        self.link.set_up(connection.core());
        let flight = Flight {
            frames: Mutex::default(),
        };
        let ended = tokio::select! {
            ended = self.send(&connection, &flight) => ended,
            ended = self.listen(&connection, events, &flight) => ended,
            () = dialer.quic_is_back(), if connection.transport() == Transport::Tls => Ended::BetterWay,
        };
        connection.close();
        match ended {
            Ended::BetterWay => Retry::Now,
            Ended::Lost(lost) => {
                let retry = match &lost {
                    Lost::ByCore {
                        code: CloseCode::TakenOver | CloseCode::Revoked | CloseCode::NoCertificate,
                        ..
                    } => Retry::Slow,
                    Lost::ByCore {
                        code: CloseCode::Refused,
                        ..
                    } => Retry::Backoff,
                    _ => Retry::Quick,
                };
                self.link.set_down(lost.to_string());
                retry
            }
            Ended::Outbox(reason) => {
                self.link.set_down(reason);
                Retry::Slow
            }
        }
    }

    /// Notes something of this start; says which starts before it have said hello. A small write, at most once for each.
    async fn lineage(
        &self,
        note: fn(&mut Lineage) -> std::io::Result<()>,
    ) -> std::io::Result<Vec<lineage::Start>> {
        let lineage = self.lineage.clone();
        let noted = tokio::task::spawn_blocking(move || {
            let mut lineage = lineage.lock();
            note(&mut lineage).map(|()| lineage.earlier().to_vec())
        });
        noted.await.map_err(std::io::Error::other)?
    }

    /// Sends frames as they become durable, and as the window allows.
    async fn send(&self, connection: &Connection, flight: &Flight) -> Ended {
        let mut news = self.store.watch(LogId::Outbox(Lane::DEFAULT));
        let mut next = self.store.uplink(Lane::DEFAULT).number;
        loop {
            news.mark_unchanged();
            let read = self
                .store
                .read(
                    LogId::Outbox(Lane::DEFAULT),
                    From::Number(next),
                    limits::UPLINK_READ,
                )
                .await;
            let read = match read {
                Ok(read) => read,
                Err(error) => return Ended::Outbox(format!("the outbox can not be read: {error}")),
            };
            next = read.next.number;
            if read.frames.is_empty() {
                if news.changed().await.is_err() {
                    return Ended::Outbox("the store is closed".into());
                }
                continue;
            }
            for frame in read.frames {
                flight.frames.lock().push_back(InFlight {
                    number: frame.number,
                    end: End {
                        number: frame.number + 1,
                        position: frame.end(),
                    },
                    records: u64::from(frame.batch.record_count()),
                    settled: false,
                });
                let flags = if frame.retained.is_empty() {
                    BatchFlags::empty()
                } else {
                    BatchFlags::HAS_RETAINED
                };
                let number = frame.number;
                let sent = connection.send_batch(BatchFrame {
                    lane: frame.lane.0,
                    frame: frame.number,
                    stream: frame.stream.as_str().to_owned(),
                    flags,
                    link: None,
                    batch: frame.batch.bytes().clone(),
                });
                match sent.await {
                    Ok(()) => {}
                    Err(SendError::Lost(lost)) => return Ended::Lost(lost),
                    Err(error @ (SendError::TooLarge { .. } | SendError::Lanes(_))) => {
                        if let Err(ended) = self.set_aside(flight, frame, error.to_string()).await {
                            return ended;
                        }
                        self.settle(flight, |entry| entry == number);
                    }
                }
            }
        }
    }

    /// Follows what the core says.
    async fn listen(&self, connection: &Connection, mut events: Events, flight: &Flight) -> Ended {
        let (commands, waiting) = mpsc::channel(limits::DOWNLINK_WAITING);
        tokio::spawn(downlink::run(
            self.store.clone(),
            connection.clone(),
            waiting,
        ));
        loop {
            match events.next().await {
                Event::Ack { frame, .. } => self.settle(flight, |entry| entry <= frame),
                Event::Refused(refused) if refused.code.is_retryable() => {
                    tracing::warn!(frame = refused.frame, code = %refused.code, reason = %refused.reason, "the core can not take a batch now");
                }
                Event::Refused(refused) => {
                    let reason = format!("{}: {}", refused.code, refused.reason);
                    let from = From::Number(refused.frame);
                    match self.store.read(LogId::Outbox(Lane::DEFAULT), from, 1).await {
                        Ok(read) => {
                            let found = read.frames.into_iter().next();
                            if let Some(frame) = found.filter(|f| f.number == refused.frame)
                                && let Err(ended) = self.set_aside(flight, frame, reason).await
                            {
                                return ended;
                            }
                        }
                        Err(error) => {
                            return Ended::Outbox(format!("the outbox can not be read: {error}"));
                        }
                    }
                }
                Event::Down(frame) => {
                    // An error = the downlink has ended and closed the connection.
                    let _ = commands.send(frame).await;
                }
                Event::Query(query) => {
                    let (sources, connection) = (self.sources.clone(), connection.clone());
                    tokio::spawn(async move {
                        let answer = query::answer(&sources, &query).await;
                        // An error: the link is gone, and whoever asked has heard so.
                        let _ = connection.answer(answer).await;
                    });
                }
                // Never sent to an edge that announces no lanes.
                Event::Dictionary(_) | Event::Pace(_) => {}
                Event::Closed(lost) => return Ended::Lost(lost),
            }
        }
    }

    /// Notes frames as settled and moves the cursor over those at the front.
    fn settle(&self, flight: &Flight, is_settled: impl Fn(u64) -> bool) {
        let mut frames = flight.frames.lock();
        for frame in frames.iter_mut().filter(|frame| is_settled(frame.number)) {
            frame.settled = true;
        }
        let mut reached = None;
        while frames.front().is_some_and(|frame| frame.settled)
            && let Some(frame) = frames.pop_front()
        {
            self.link
                .delivered
                .fetch_add(frame.records, Ordering::Relaxed);
            reached = Some(frame.end);
        }
        if let Some(end) = reached {
            self.store.advance_uplink(Lane::DEFAULT, end);
        }
    }

    /// Keeps a frame that the core will never take where it blocks nothing.
    async fn set_aside(
        &self,
        flight: &Flight,
        frame: Arc<Frame>,
        reason: String,
    ) -> Result<(), Ended> {
        tracing::error!(frame = frame.number, stream = %frame.stream, messages = frame.batch.record_count(), %reason,
            "the core does not take a batch: it is kept in the quarantine");
        self.link
            .refused
            .fetch_add(u64::from(frame.batch.record_count()), Ordering::Relaxed);
        flight.note_refused(frame.number);
        let store = self.store.clone();
        let kept = tokio::task::spawn_blocking(move || store.quarantine(&frame)).await;
        let failed = |error: &dyn std::fmt::Display| {
            Ended::Outbox(format!("a refused batch can not be kept: {error}"))
        };
        match kept {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failed(&error)),
            Err(error) => Err(failed(&error)),
        }
    }
}

/// Why a connection ended.
enum Ended {
    Lost(Lost),
    /// QUIC gets through again, while this connection is over TLS.
    BetterWay,
    /// The outbox can not be read, or not be written to.
    Outbox(String),
}

impl Flight {
    /// The messages of this frame will not be counted as delivered.
    fn note_refused(&self, number: u64) {
        let mut frames = self.frames.lock();
        for frame in frames.iter_mut().filter(|frame| frame.number == number) {
            frame.records = 0;
        }
    }
}

/// Between half of the time and all of it, so that edges that lost the same core do not come back together.
async fn wait(longest: Duration) {
    let share = 0.5 + rand::random::<f64>() / 2.0;
    tokio::time::sleep(longest.mul_f64(share)).await;
}
