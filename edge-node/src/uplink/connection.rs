//! One connection, from its hello to its end: a task's worth of lanes that send, and one that follows what the core says.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use store::{Frame, From, Lane, LogId};
use sync_quic::{
    After, CloseCode, ConnectError, Connection, CoreAddress, Dialer, Event, Events, Hello,
    HelloRefusal, Identity, LaneFrame, Lost, Pauses, Refused, SendError, TimeQuality, Transport,
    Window,
};
use tokio::sync::mpsc;

use super::Uplink;
use super::flight::{Flight, InFlight, Verdict};
use super::gate::Gate;
use super::plan::{LanePlan, plan};
use super::{enrolment, lane};
use crate::lineage::Lineage;
use crate::{downlink, limits, query};

/// Why a connection ended.
pub enum Ended {
    Lost(Lost),
    /// QUIC gets through again, while this connection is over TLS; or only TLS does any more, while it is over QUIC.
    BetterWay,
    /// A lane has to be sent again from its cursor on.
    Again,
    /// The outbox can not be read, or not be written to.
    Outbox(String),
}

/// What the tasks of a connection share.
pub struct Session<'a> {
    pub uplink: &'a Uplink,
    pub connection: Connection,
    pub gate: Gate,
    pub flight: Flight,
    /// Bytes that a lane reads ahead.
    pub read_bytes: usize,
}

/// Connects, and stays connected as long as it goes.
pub async fn run(
    uplink: &Uplink,
    identity: &Identity,
    dialer: &Dialer,
    pauses: &mut Pauses,
) -> After {
    // The core may remember this start from here on, whether its answer is heard or not.
    let earlier = match uplink.lineage(Lineage::before_hello).await {
        Ok(earlier) => earlier,
        Err(error) => {
            let reason = format!("this start can not be noted: {error}");
            uplink.link.set_down(reason);
            return After::Refusal;
        }
    };
    let lanes = plan(&uplink.store, &uplink.lanes);
    let window = Window {
        bytes: sync::limits::DEFAULT_WINDOW,
        ..Window::default()
    };
    let hello = hello(uplink, identity, &lanes, earlier);
    let (connection, events) = match dialer.connect(hello, window).await {
        Ok(connected) => connected,
        Err(error) => return refused(uplink, identity, pauses, error).await,
    };
    if let Err(error) = uplink.lineage(Lineage::welcome).await {
        // The next start says one more than it has to.
        tracing::warn!(%error, "that the core let this start in can not be noted");
    }
    welcome(uplink, &connection, dialer, pauses);
    let time = connection.welcome().time_ms;
    if let Err(error) = uplink.clock.learn(time, &uplink.store).await {
        // Nothing that was stamped blind may go before its place in time is kept.
        let reason = format!("what time it is can not be noted: {error}");
        uplink.link.set_down(reason);
        return After::Refusal;
    }
    let shares = lanes.iter().map(LanePlan::share).collect();
    let session = Session {
        uplink,
        gate: Gate::new(shares, uplink.link_rate),
        flight: Flight::default(),
        read_bytes: (limits::UPLINK_READ_AHEAD / lanes.len().max(1)).min(limits::UPLINK_READ),
        connection,
    };
    for plan in &lanes {
        session.connection.prioritise(plan.lane.0, plan.rank.into());
    }
    let mut sending: FuturesUnordered<_> =
        lanes.iter().map(|plan| lane::run(&session, plan)).collect();
    let is_tls = session.connection.transport() == Transport::Tls;
    let ended = tokio::select! {
        Some(ended) = sending.next() => ended,
        ended = session.listen(events, pauses) => ended,
        () = session.gate.run() => Ended::BetterWay,
        () = session.follow_silence() => Ended::BetterWay,
        () = dialer.quic_is_back(), if is_tls => Ended::BetterWay,
        () = dialer.tls_instead(&session.connection), if !is_tls => Ended::BetterWay,
    };
    session.connection.close();
    let (after, reason) = match ended {
        Ended::BetterWay | Ended::Again => (After::Now, None),
        Ended::Lost(lost) => (after(&lost), Some(lost.to_string())),
        Ended::Outbox(reason) => (After::Refusal, Some(reason)),
    };
    if let Some(reason) = reason {
        uplink.link.set_down(reason);
    }
    after
}

fn hello(
    uplink: &Uplink,
    identity: &Identity,
    lanes: &[LanePlan],
    earlier: Vec<(i16, u64)>,
) -> Hello {
    let producer = uplink.store.producer();
    Hello {
        version: sync::VERSION,
        edge: identity.edge.clone(),
        producer_id: producer.id,
        previous_producer_id: producer.previous,
        incarnation: producer.epoch,
        nonce: uplink.nonce,
        earlier,
        lanes: lanes.iter().map(LanePlan::info).collect(),
        dictionaries: uplink.dictionaries.ids(),
        software: format!("towline-edge {}", env!("CARGO_PKG_VERSION")),
        time: if uplink.clock.is_known() {
            TimeQuality::Known
        } else {
            TimeQuality::Unknown
        },
    }
}

/// Takes in what the core says at first.
fn welcome(uplink: &Uplink, connection: &Connection, dialer: &Dialer, pauses: &mut Pauses) {
    let welcome = connection.welcome();
    pauses.hear(welcome.retry);
    let cores = welcome.cores.iter().filter_map(|core| {
        let parsed = CoreAddress::parse_list(core);
        parsed
            .inspect_err(
                |error| tracing::warn!(%error, "the core names an address of itself that is none"),
            )
            .ok()
    });
    let cores: Vec<CoreAddress> = cores.flatten().collect();
    if !cores.is_empty() {
        dialer.learn(cores);
    }
    enrolment::forget_fenced(&uplink.dir);
    tracing::info!(core = connection.core(), "connected");
    uplink
        .link
        .set_up(connection.core(), connection.transport());
}

/// There is no connection.
async fn refused(
    uplink: &Uplink,
    identity: &Identity,
    pauses: &mut Pauses,
    error: ConnectError,
) -> After {
    let mut reason = error.to_string();
    let after = match &error {
        ConnectError::Resolve { .. } | ConnectError::Unreachable { .. } => After::Silence,
        ConnectError::Busy { .. } => After::Busy,
        ConnectError::Refused(refused) => {
            pauses.hear(refused.retry);
            if refused.code == HelloRefusal::Fenced {
                reason += enrolment::FENCED_HINT;
                enrolment::note_fenced(&uplink.dir, identity);
            }
            if refused.code.is_retryable() {
                After::Busy
            } else {
                After::Refusal
            }
        }
        _ => After::Refusal,
    };
    uplink.link.set_down(reason);
    after
}

fn after(lost: &Lost) -> After {
    match lost {
        Lost::ByCore {
            code: CloseCode::TakenOver | CloseCode::Revoked | CloseCode::NoCertificate,
            ..
        } => After::Refusal,
        Lost::ByCore {
            code: CloseCode::Refused,
            ..
        } => After::Busy,
        _ => After::Connection,
    }
}

impl Session<'_> {
    /// Sends one frame when its turn comes.
    pub async fn send(
        &self,
        lane: Lane,
        in_flight: InFlight,
        frame: LaneFrame,
    ) -> Result<(), SendError> {
        if self.flight.is_broken(lane) {
            // What comes next of it goes over another connection.
            std::future::pending::<()>().await;
        }
        self.flight.push(lane, in_flight);
        self.connection
            .send_paced(
                frame,
                &Turn {
                    session: self,
                    lane,
                },
            )
            .await
    }

    /// What is written while the core is silent is not live any more when it is heard again. Never returns.
    async fn follow_silence(&self) {
        let mut silence = self.connection.silence();
        loop {
            let silent = silence.borrow_and_update().is_some();
            self.uplink.link.set_silent(silent);
            if silence.changed().await.is_err() {
                // The connection is over, which others notice.
                return std::future::pending().await;
            }
        }
    }

    /// Follows what the core says.
    async fn listen(&self, mut events: Events, pauses: &mut Pauses) -> Ended {
        let uplink = self.uplink;
        let (commands, waiting) = mpsc::channel(limits::DOWNLINK_WAITING);
        tokio::spawn(downlink::run(
            uplink.store.clone(),
            self.connection.clone(),
            waiting,
        ));
        loop {
            let event = events.next().await;
            if !matches!(event, Event::Closed(_)) {
                // At once, where `follow_silence` hears of it at the next look: what is written from now on is live.
                self.uplink.link.set_silent(false);
            }
            match event {
                Event::Ack { lane, frame } => {
                    if self.settle(Lane(lane), frame) {
                        return Ended::Again;
                    }
                }
                Event::Refused(refused) => {
                    if let Err(ended) = self.refused(refused).await {
                        return ended;
                    }
                }
                Event::Down(frame) => {
                    // An error = the downlink has ended and closed the connection.
                    let _ = commands.send(frame).await;
                }
                Event::Query(query) => {
                    let (sources, connection) = (uplink.sources.clone(), self.connection.clone());
                    tokio::spawn(async move {
                        let answer = query::answer(&sources, &query).await;
                        // An error: the link is gone, and whoever asked has heard so.
                        let _ = connection.answer(answer).await;
                    });
                }
                Event::Dictionary(frame) => {
                    let dictionaries = uplink.dictionaries.clone();
                    let stream = frame.stream.clone();
                    let learn = move || dictionaries.learn(&frame);
                    let learnt = tokio::task::spawn_blocking(learn).await;
                    if let Err(error) =
                        learnt.unwrap_or_else(|error| Err(std::io::Error::other(error)))
                    {
                        tracing::warn!(stream, %error, "a dictionary can not be kept");
                    }
                }
                Event::Pace(pace) => {
                    pauses.hear(pace.retry);
                    self.gate.set_pace(pace.bytes_per_second);
                }
                Event::Closed(lost) => return Ended::Lost(lost),
            }
        }
    }

    /// Everything of a lane up to a frame is settled. True: it has to be sent again from the cursor on.
    fn settle(&self, lane: Lane, up_to: u64) -> bool {
        let settled = self.flight.settle(lane, up_to);
        let rtt = self.connection.rtt();
        self.gate.settled(lane.0, &settled.tickets, rtt);
        let delivered = &self.uplink.link.delivered;
        delivered.fetch_add(settled.records, Ordering::Relaxed);
        if let Some(end) = settled.end {
            self.uplink.store.advance_uplink(lane, end);
        }
        settled.again
    }

    async fn refused(&self, refused: Refused) -> Result<(), Ended> {
        let Refused {
            lane,
            frame,
            code,
            reason,
        } = refused;
        if code.is_about_compression() {
            tracing::warn!(lane, frame, %code, reason, "the core can not restore a batch: it is sent again as it is");
            let dictionaries = self.uplink.dictionaries.clone();
            let forget = move || dictionaries.forget(lane, frame);
            // It does not fail: a panic of it would be a defect that the log shows.
            let _ = tokio::task::spawn_blocking(forget).await;
            return Ok(());
        }
        if code.is_retryable() {
            tracing::warn!(lane, frame, %code, reason, "the core can not take a batch now");
            return Ok(());
        }
        match self.flight.refuse(Lane(lane), frame, code) {
            Verdict::SendAgain => Ok(()),
            Verdict::PassOver => {
                tracing::error!(lane, frame, %code, reason, "the core does not take a gap: it is not told of it");
                Ok(())
            }
            Verdict::SetAside => {
                let from = From::Number(frame);
                let read = self
                    .uplink
                    .store
                    .read(LogId::Outbox(Lane(lane)), from, 1)
                    .await;
                let read = read.map_err(|error| {
                    Ended::Outbox(format!("the outbox can not be read: {error}"))
                })?;
                match read.frames.into_iter().next() {
                    Some(found) if found.number == frame => {
                        self.set_aside(found, format!("{code}: {reason}")).await
                    }
                    // Evicted meanwhile, and so a gap already.
                    _ => Ok(()),
                }
            }
        }
    }

    /// Keeps a frame that the core will never take where it blocks nothing. A gap stands in its place then.
    pub async fn set_aside(&self, frame: Arc<Frame>, reason: String) -> Result<(), Ended> {
        let records = frame.batch.record_count();
        tracing::error!(lane = frame.lane.0, frame = frame.number, stream = %frame.stream, messages = records, %reason,
            "the core does not take a batch: it is kept in the quarantine");
        let refused = &self.uplink.link.refused;
        refused.fetch_add(records.into(), Ordering::Relaxed);
        let store = self.uplink.store.clone();
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

/// Lets a frame of a lane pass the gate, and notes with what it is to be settled.
struct Turn<'a> {
    session: &'a Session<'a>,
    lane: Lane,
}

impl sync_quic::Pacer for Turn<'_> {
    async fn pass(&self, lane: u8, bytes: usize, begins: Option<usize>) -> usize {
        let Session { gate, flight, .. } = self.session;
        let may = gate.pass(lane, bytes, begins).await;
        if begins.is_some() {
            flight.begin(self.lane, gate.ticket(lane));
        }
        may
    }
}
