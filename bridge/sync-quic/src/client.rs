//! An edge's connection to its core.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sync::{
    AnswerFrame, BatchFrame, CloseCode, DictionaryFrame, DownFrame, DownPosition, Frame,
    FrameReader, GapFrame, LaneFrame, Pace, QueryFrame, Refused, Sender, Welcome, Window, limits,
};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::Transport;
use crate::carrier::{CONTROL_PRIORITY, Carrier, CloseOnDrop, Closed, RecvPipe, SendPipe};
use crate::dial::{DialError, Dialled};
use crate::outcome::{ConnectError, Event, Lost, SendError};
use crate::quic::Client;
use crate::wire::{ReadFrameError, WriteFrameError, read_frame, write_frame};

/// Downlink frames read ahead of the caller.
const DOWN_READ_AHEAD: usize = 4;

/// Why an established transport did not become a connection.
pub(crate) enum HandshakeError {
    Dial(DialError),
    Connect(ConnectError),
}

impl From<ConnectError> for HandshakeError {
    fn from(error: ConnectError) -> Self {
        HandshakeError::Connect(error)
    }
}

fn failed(closed: Closed) -> HandshakeError {
    HandshakeError::Dial(closed.into())
}

fn protocol(error: impl ToString) -> HandshakeError {
    ConnectError::Protocol(error.to_string()).into()
}

/// Says hello and waits for the welcome. `keep_alive`: after so long without a word of the core this side sends a sign of life.
pub(crate) async fn establish(
    mut dialled: Dialled,
    hello: Frame,
    window: Window,
    keep_alive: Duration,
) -> Result<(Connection, Events), HandshakeError> {
    let (send, mut recv) = match dialled.say(&hello).await {
        Ok(control) => control,
        Err(WriteFrameError::Connection(closed)) => return Err(failed(closed)),
        Err(error) => return Err(protocol(error)),
    };
    let mut reader = FrameReader::new(limits::MAX_CONTROL_FRAME);
    // In TLS 1.3 a client learns only now that its certificate was not accepted.
    let welcome = match read_frame(&mut recv, &mut reader).await {
        Ok(Some(Frame::Welcome(welcome))) => welcome,
        Ok(Some(Frame::HelloRefused(refused))) => {
            return Err(ConnectError::Refused(refused).into());
        }
        Ok(_) => return Err(protocol("no welcome")),
        Err(ReadFrameError::Connection(closed)) => return Err(failed(closed)),
        Err(error) => return Err(protocol(error)),
    };
    let Dialled {
        carrier,
        client,
        candidate,
        resumed,
        guard,
        ..
    } = dialled;
    let shared = Arc::new(Shared {
        carrier,
        core: candidate.to_string(),
        resumed,
        welcome,
        sender: Mutex::new(Sender::new(window)),
        room: Notify::new(),
        heard: Mutex::new(VecDeque::new()),
        heard_more: Notify::new(),
        lost: OnceLock::new(),
        silent: watch::Sender::default(),
        control: tokio::sync::Mutex::new(send),
        lanes: tokio::sync::Mutex::new(BTreeMap::new()),
        priorities: Mutex::new(BTreeMap::new()),
    });
    let (down_tx, down_rx) = mpsc::channel(DOWN_READ_AHEAD);
    tokio::spawn(read_control(shared.clone(), recv, reader));
    tokio::spawn(read_downlink(shared.clone(), down_tx));
    tokio::spawn(crate::silence::watch(
        shared.clone(),
        client.clone(),
        keep_alive,
    ));
    let guard = Arc::new(Guard {
        _close: guard,
        _client: client,
    });
    let connection = Connection {
        shared: shared.clone(),
        _guard: guard.clone(),
    };
    Ok((
        connection,
        Events {
            shared,
            down: down_rx,
            _guard: guard,
        },
    ))
}

pub(crate) struct Shared {
    pub(crate) carrier: Carrier,
    core: String,
    resumed: bool,
    welcome: Welcome,
    sender: Mutex<Sender>,
    /// Rings when the window has moved or the connection is over.
    room: Notify,
    /// What came on the control stream and nobody has asked for yet: bounded by the frames in flight, since neighbours of one lane
    /// merge, and by the queries that may be open.
    heard: Mutex<VecDeque<Heard>>,
    heard_more: Notify,
    lost: OnceLock<Lost>,
    /// Since when the core has been silent although an answer is owed; none: not for long enough to mean anything.
    pub(crate) silent: watch::Sender<Option<Instant>>,
    control: tokio::sync::Mutex<SendPipe>,
    lanes: tokio::sync::Mutex<BTreeMap<u8, Arc<tokio::sync::Mutex<SendPipe>>>>,
    priorities: Mutex<BTreeMap<u8, i32>>,
}

enum Heard {
    Ack { lane: u8, frame: u64 },
    Refused(Refused),
    Query(QueryFrame),
    Pace(Pace),
}

/// What comes on the downlink.
enum Downlink {
    Down(DownFrame),
    Dictionary(DictionaryFrame),
}

impl From<Downlink> for Event {
    fn from(frame: Downlink) -> Event {
        match frame {
            Downlink::Down(frame) => Event::Down(frame),
            Downlink::Dictionary(frame) => Event::Dictionary(frame),
        }
    }
}

impl Shared {
    fn sender(&self) -> MutexGuard<'_, Sender> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self) -> MutexGuard<'_, VecDeque<Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes why it is over (the first reason stays), closes, and wakes everybody who waits.
    pub(crate) fn end(&self, lost: Lost) {
        match &lost {
            Lost::Protocol(reason) => self.carrier.close(CloseCode::Protocol, reason),
            // Nobody hears it, but what was opened here ends.
            Lost::Link(_) => self.carrier.close(CloseCode::Normal, ""),
            Lost::ByCore { .. } | Lost::ByEdge => {}
        }
        let _ = self.lost.set(lost);
        self.room.notify_waiters();
        self.heard_more.notify_one();
    }

    fn end_of_carrier(&self, closed: Closed) {
        self.end(closed.into());
    }

    /// Whether an acknowledgement of the core is owed.
    pub(crate) fn waits_for_core(&self) -> bool {
        self.sender().in_flight_frames() > 0
    }

    pub(crate) fn lost(&self) -> Option<Lost> {
        self.lost.get().cloned()
    }

    /// Why it is over, when an operation has just failed because it is.
    async fn why(&self) -> Lost {
        match self.lost() {
            Some(lost) => lost,
            None => self.carrier.closed().await.into(),
        }
    }

    fn handle_control(&self, frame: Frame) -> Result<(), String> {
        let heard = match frame {
            Frame::Ack { lane, frame } => {
                self.sender()
                    .handle_ack(lane, frame)
                    .map_err(|error| error.to_string())?;
                self.room.notify_waiters();
                Heard::Ack { lane, frame }
            }
            Frame::Refused(refused) => {
                self.sender()
                    .handle_refused(refused.lane, refused.frame)
                    .map_err(|error| error.to_string())?;
                Heard::Refused(refused)
            }
            Frame::Query(query) => Heard::Query(query),
            Frame::Pace(pace) => Heard::Pace(pace),
            _ => return Err("a frame that does not belong on the control stream".to_owned()),
        };
        let mut queue = self.heard();
        let questions = open_queries(&queue);
        match (queue.back_mut(), heard) {
            (
                Some(Heard::Ack { lane, frame }),
                Heard::Ack {
                    lane: next_lane,
                    frame: next,
                },
            ) if *lane == next_lane => {
                *frame = next;
            }
            (Some(Heard::Pace(before)), Heard::Pace(pace)) => *before = pace,
            (_, Heard::Query(_)) if questions >= limits::MAX_QUERIES => {
                return Err("more questions than may be open".to_owned());
            }
            (_, heard) => queue.push_back(heard),
        }
        drop(queue);
        self.heard_more.notify_one();
        Ok(())
    }
}

fn open_queries(heard: &VecDeque<Heard>) -> usize {
    heard
        .iter()
        .filter(|heard| matches!(heard, Heard::Query(_)))
        .count()
}

impl From<Closed> for Lost {
    fn from(closed: Closed) -> Lost {
        match closed {
            Closed::ByPeer { code, reason } => Lost::ByCore { code, reason },
            Closed::ByUs => Lost::ByEdge,
            Closed::Link(reason) | Closed::Untrusted(reason) | Closed::Busy(reason) => {
                Lost::Link(reason)
            }
        }
    }
}

async fn read_control(shared: Arc<Shared>, mut recv: RecvPipe, mut reader: FrameReader) {
    loop {
        match read_frame(&mut recv, &mut reader).await {
            Ok(Some(frame)) => {
                if let Err(reason) = shared.handle_control(frame) {
                    return shared.end(Lost::Protocol(reason));
                }
            }
            // The core says no more; its close follows, or the idle timeout.
            Ok(None) => return shared.end_of_carrier(shared.carrier.closed().await),
            Err(ReadFrameError::Connection(error)) => return shared.end_of_carrier(error),
            Err(error) => return shared.end(Lost::Protocol(error.to_string())),
        }
    }
}

async fn read_downlink(shared: Arc<Shared>, down: mpsc::Sender<Downlink>) {
    // An end of the connection is noted by the control stream's reader.
    let Ok(mut recv) = shared.carrier.accept_uni().await else {
        return;
    };
    let mut reader = FrameReader::new(limits::MAX_LANE_FRAME);
    loop {
        match read_frame(&mut recv, &mut reader).await {
            Ok(Some(Frame::Down(frame))) => {
                if down.send(Downlink::Down(frame)).await.is_err() {
                    return;
                }
            }
            Ok(Some(Frame::Dictionary(frame))) => {
                if down.send(Downlink::Dictionary(frame)).await.is_err() {
                    return;
                }
            }
            Ok(Some(_)) => {
                return shared.end(Lost::Protocol(
                    "a frame that does not belong on the downlink".to_owned(),
                ));
            }
            Ok(None) | Err(ReadFrameError::Connection(_)) => return,
            Err(error) => return shared.end(Lost::Protocol(error.to_string())),
        }
    }
}

/// Closes when the last handle is dropped.
struct Guard {
    _close: CloseOnDrop,
    _client: Option<Arc<Client>>,
}

/// Says when a lane may send: what stands between the lanes and the transport.
pub trait Pacer {
    /// Waits until the lane may send, and says how many bytes: at least one, at most `bytes`, which are left of its frame. `begins`: none
    /// of the frame is sent yet, and this is what it weighs in the window.
    fn pass(
        &self,
        lane: u8,
        bytes: usize,
        begins: Option<usize>,
    ) -> impl Future<Output = usize> + Send;
}

/// The sending half. Cheap to clone; the connection closes when all clones and the events are dropped.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
    _guard: Arc<Guard>,
}

impl Connection {
    /// What the core said to the hello: its clock, its limits.
    pub fn welcome(&self) -> &Welcome {
        &self.shared.welcome
    }

    pub fn transport(&self) -> Transport {
        self.shared.carrier.transport()
    }

    /// Where the core was reached: `quic://HOST:PORT` or `tls://HOST:PORT`.
    pub fn core(&self) -> &str {
        &self.shared.core
    }

    /// Whether the hello was taken as early data, one round trip sooner (RFC 9001, 4.6).
    pub fn resumed(&self) -> bool {
        self.shared.resumed
    }

    /// Since when the core has been silent although an answer is owed; none: not for long enough to mean anything.
    pub fn silence(&self) -> watch::Receiver<Option<Instant>> {
        self.shared.silent.subscribe()
    }

    /// The smoothed round-trip time, where it is known.
    pub fn rtt(&self) -> Option<Duration> {
        self.shared.carrier.rtt()
    }

    /// What a lane's stream is worth among the others of this connection; to be called before the lane's first frame. 0 where
    /// nothing is said.
    pub fn prioritise(&self, lane: u8, priority: i32) {
        self.shared
            .priorities
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(lane, priority);
    }

    /// Sends one batch on its lane's stream. Waits while the window is full or the link is slow: this is the backpressure.
    /// Returns when the bytes are handed to the transport, which is not an acknowledgement. Calls for one lane must come one after the other.
    ///
    /// Not cancel-safe: dropping the future may leave half a frame on the lane; only do it when the connection is given up.
    pub async fn send_batch(&self, frame: BatchFrame) -> Result<(), SendError> {
        self.check_size(&frame)?;
        self.send_on_lane(LaneFrame::Batch(frame)).await
    }

    /// Says in its place in the lane that entries are missing; otherwise as [`Connection::send_batch`].
    pub async fn send_gap(&self, frame: GapFrame) -> Result<(), SendError> {
        self.send_on_lane(LaneFrame::Gap(frame)).await
    }

    /// Sends a frame of a lane in pieces, each of which `pacer` has let pass. Otherwise as [`Connection::send_batch`].
    pub async fn send_paced(&self, frame: LaneFrame, pacer: &impl Pacer) -> Result<(), SendError> {
        if let LaneFrame::Batch(frame) = &frame {
            self.check_size(frame)?;
        }
        let (lane, number, weight) = (frame.lane(), frame.number(), frame.weight());
        let encoded = match frame {
            LaneFrame::Batch(frame) => Frame::Batch(frame),
            LaneFrame::Gap(frame) => Frame::Gap(frame),
        };
        let encoded = encoded.encode();
        let (head, rest) = encoded.map_err(|error| SendError::Lanes(error.to_string()))?;
        let mut pieces = [head, rest];
        let mut begins = Some(weight);
        loop {
            let left = pieces.iter().map(Bytes::len).sum();
            if left == 0 {
                return Ok(());
            }
            let mut may = pacer.pass(lane, left, begins).await;
            if begins.take().is_some() {
                self.wait_for_room(weight, |sender| sender.sent(lane, number, weight))
                    .await?
                    .map_err(|error| SendError::Lanes(error.to_string()))?;
            }
            let mut piece = pieces.each_mut().map(|bytes| {
                let take = may.min(bytes.len());
                may -= take;
                bytes.split_to(take)
            });
            let stream = self.lane(lane).await?;
            if stream.lock().await.write(&mut piece).await.is_err() {
                return Err(self.shared.why().await.into());
            }
        }
    }

    fn check_size(&self, frame: &BatchFrame) -> Result<(), SendError> {
        let limit = limits::MAX_BATCH.min(self.shared.welcome.max_batch as usize);
        let raw = frame.link.map_or(0, |link| link.raw_length as usize);
        let size = raw.max(frame.batch.len());
        if size > limit {
            return Err(SendError::TooLarge { size, limit });
        }
        Ok(())
    }

    async fn send_on_lane(&self, frame: LaneFrame) -> Result<(), SendError> {
        let (lane, number, weight) = (frame.lane(), frame.number(), frame.weight());
        self.wait_for_room(weight, |sender| sender.sent(lane, number, weight))
            .await?
            .map_err(|error| SendError::Lanes(error.to_string()))?;
        let stream = self.lane(lane).await?;
        let mut stream = stream.lock().await;
        let frame = match frame {
            LaneFrame::Batch(frame) => Frame::Batch(frame),
            LaneFrame::Gap(frame) => Frame::Gap(frame),
        };
        match write_frame(&mut stream, &frame).await {
            Ok(()) => Ok(()),
            Err(WriteFrameError::Frame(error)) => {
                // Counted as sent but not sent: nothing but an end can follow.
                self.shared.end(Lost::Protocol(error.to_string()));
                Err(SendError::Lanes(error.to_string()))
            }
            Err(WriteFrameError::Connection(_) | WriteFrameError::Stopped) => {
                Err(self.shared.why().await.into())
            }
        }
    }

    /// Waits until a batch of `len` bytes fits in the window, or the connection is over. Cancel-safe: for a `select!` before `send_batch`.
    pub async fn ready(&self, len: usize) -> Result<(), Lost> {
        self.wait_for_room(len, |_| ()).await
    }

    /// Waits for room and takes it in one step, so that two senders never take the same room.
    async fn wait_for_room<T>(
        &self,
        weight: usize,
        mut take: impl FnMut(&mut Sender) -> T,
    ) -> Result<T, Lost> {
        loop {
            let moved = self.shared.room.notified();
            tokio::pin!(moved);
            // Registered before looking, so that a move between the look and the wait is not missed.
            moved.as_mut().enable();
            if let Some(lost) = self.shared.lost() {
                return Err(lost);
            }
            {
                let mut sender = self.shared.sender();
                if sender.has_room(weight) {
                    return Ok(take(&mut sender));
                }
            }
            moved.await;
        }
    }

    async fn lane(&self, lane: u8) -> Result<Arc<tokio::sync::Mutex<SendPipe>>, Lost> {
        let mut lanes = self.shared.lanes.lock().await;
        if let Some(stream) = lanes.get(&lane) {
            return Ok(stream.clone());
        }
        let priority = {
            let priorities = &self.shared.priorities;
            let priorities = priorities.lock().unwrap_or_else(PoisonError::into_inner);
            priorities.get(&lane).copied().unwrap_or_default()
        };
        let stream = self.shared.carrier.open_uni(priority).await?;
        let stream = Arc::new(tokio::sync::Mutex::new(stream));
        lanes.insert(lane, stream.clone());
        Ok(stream)
    }

    /// Tells the core that everything up to and with `position` in its partition is stored durably here.
    pub async fn send_down_ack(&self, position: DownPosition) -> Result<(), Lost> {
        let mut control = self.shared.control.lock().await;
        match write_frame(&mut control, &Frame::DownAck(position)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.shared.why().await),
        }
    }

    /// Answers a question of the core, on a stream of its own. Calls may overlap. Not cancel-safe.
    pub async fn answer(&self, answer: AnswerFrame) -> Result<(), SendError> {
        let size = answer.json.len();
        let opened = self.shared.carrier.open_uni(CONTROL_PRIORITY).await;
        let mut stream = opened.map_err(Lost::from)?;
        match write_frame(&mut stream, &Frame::Answer(answer)).await {
            Ok(()) => {
                stream.finish().await;
                Ok(())
            }
            Err(WriteFrameError::Frame(_)) => Err(SendError::TooLarge {
                size,
                limit: limits::MAX_ANSWER,
            }),
            Err(_) => Err(self.shared.why().await.into()),
        }
    }

    /// Closes at once. What is not acknowledged has to be sent again over the next connection.
    pub fn close(&self) {
        self.shared.carrier.close(CloseCode::Normal, "");
        self.shared.end(Lost::ByEdge);
    }
}

/// The receiving half.
pub struct Events {
    shared: Arc<Shared>,
    down: mpsc::Receiver<Downlink>,
    _guard: Arc<Guard>,
}

impl Events {
    /// The next event; after [`Event::Closed`] it is that one for ever. Cancel-safe.
    pub async fn next(&mut self) -> Event {
        let mut down_open = true;
        loop {
            // `notify_one` keeps its permit, so nothing is missed between this look and the wait below.
            match self.shared.heard().pop_front() {
                Some(Heard::Ack { lane, frame }) => return Event::Ack { lane, frame },
                Some(Heard::Refused(refused)) => return Event::Refused(refused),
                Some(Heard::Query(query)) => return Event::Query(query),
                Some(Heard::Pace(pace)) => return Event::Pace(pace),
                None => {}
            }
            if let Ok(frame) = self.down.try_recv() {
                return frame.into();
            }
            if let Some(lost) = self.shared.lost() {
                return Event::Closed(lost);
            }
            tokio::select! {
                () = self.shared.heard_more.notified() => {}
                frame = self.down.recv(), if down_open => match frame {
                    Some(frame) => return frame.into(),
                    None => down_open = false,
                },
            }
        }
    }
}
