//! Channels over one TLS connection: what QUIC's streams are, for networks that let no UDP through.
//!
//! Chunks of `channel u16 | length u16 | bytes`, big-endian. Channel 0 is the control stream; the others go in one direction and
//! are numbered from 1 by the side that opens them with the first chunk; a chunk of no bytes ends one. Channel 65535 carries what
//! concerns the connection: ping, pong, the edge's idle timeout, close.
//!
//! Whoever writes hands over whole pieces; the one writing task takes small chunks of the highest priority that has something,
//! and little waits behind it in the socket, so an alarm overtakes a backlog here too.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use sync::CloseCode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};

use crate::carrier::{CONTROL_PRIORITY, Closed};
use crate::mux_io;

/// Largest chunk that is sent: 32 ms on a link of 1 Mbit/s is what an alarm waits for the chunk before it.
pub(crate) const CHUNK: usize = 4 * 1024;
/// Largest chunk that is taken.
pub(crate) const MAX_CHUNK: usize = 16 * 1024;
/// A writer waits while more than this waits in its channel.
const OUT_WAITING: usize = 64 * 1024;
/// The connection is not read while a channel holds more than this. Room for all that a peer may have on its way, so that a
/// channel that is not read holds nothing up: see `MAX_UNSETTLED_BYTES` and the core's bound of unconfirmed commands.
const IN_WAITING: usize = 40 * 1024 * 1024;
/// Channels that a peer may have open.
const MAX_CHANNELS: usize = 64;
/// Longest reason in a close.
const MAX_REASON: usize = 1024;

pub(crate) const CONTROL: u16 = 0;
pub(crate) const CONNECTION: u16 = u16::MAX;

const PING: u8 = 0;
const PONG: u8 = 1;
const IDLE_TIMEOUT: u8 = 2;
const CLOSE: u8 = 3;

/// A handle. Cheap to clone; the connection ends by [`Mux::close`] or by the peer, not by dropping handles.
#[derive(Clone)]
pub(crate) struct Mux {
    shared: Arc<Shared>,
}

/// What was settled by the handshake.
pub(crate) struct Peer {
    pub(crate) remote: SocketAddr,
    pub(crate) certificate: Option<Vec<u8>>,
}

pub(crate) struct Shared {
    peer: Peer,
    state: Mutex<State>,
    /// Rings for the writing task.
    pub(crate) write: Notify,
    /// Rings for the reading task, when a channel that was full has been read.
    pub(crate) read: Notify,
    accepted: Notify,
    closed: watch::Sender<Option<Closed>>,
}

#[derive(Default)]
struct State {
    out: BTreeMap<u16, Out>,
    /// The channel of the last chunk: the next one of the same priority comes after it.
    last_out: u16,
    inward: BTreeMap<u16, In>,
    opened_here: u16,
    /// Channels of the peer that nobody has taken yet.
    waiting: VecDeque<u16>,
    /// Of channel 65535, to be sent before everything else.
    urgent: VecDeque<Bytes>,
    /// After what waits in the control channel.
    close: Option<Bytes>,
    heard: u64,
    heard_at: Option<Instant>,
    pinged_at: Option<Instant>,
    rtt: Option<Duration>,
    idle_timeout: Duration,
}

struct Out {
    priority: i32,
    queue: VecDeque<Bytes>,
    bytes: usize,
    finished: bool,
    room: Arc<Notify>,
}

impl Out {
    fn new(priority: i32) -> Out {
        Out {
            priority,
            queue: VecDeque::new(),
            bytes: 0,
            finished: false,
            room: Arc::default(),
        }
    }
}

#[derive(Default)]
struct In {
    queue: VecDeque<Bytes>,
    bytes: usize,
    ended: bool,
    /// Nobody reads it any more: what comes is dropped.
    unread: bool,
    more: Arc<Notify>,
}

/// The peer broke the rules of the channels.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MuxError {
    #[error("a chunk of {0} bytes")]
    ChunkTooLarge(usize),
    #[error("more than {MAX_CHANNELS} channels")]
    TooManyChannels,
    #[error("a message about the connection that makes no sense")]
    Malformed,
}

impl Mux {
    /// Takes over an established TLS connection. `keep_alive`: how often this side asks, if it does; `stop`: closes with
    /// `ShuttingDown` when it becomes true.
    pub(crate) fn start(
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        peer: Peer,
        keep_alive: Option<Duration>,
        idle_timeout: Duration,
        stop: Option<watch::Receiver<bool>>,
    ) -> Mux {
        let shared = Arc::new(Shared {
            peer,
            state: Mutex::new(State {
                idle_timeout,
                heard_at: Some(Instant::now()),
                ..State::default()
            }),
            write: Notify::new(),
            read: Notify::new(),
            accepted: Notify::new(),
            closed: watch::Sender::new(None),
        });
        {
            let mut state = shared.state();
            state.out.insert(CONTROL, Out::new(CONTROL_PRIORITY));
            state.inward.insert(CONTROL, In::default());
            if keep_alive.is_some() {
                let millis = u32::try_from(idle_timeout.as_millis()).unwrap_or(u32::MAX);
                let mut message = BytesMut::with_capacity(5);
                message.put_u8(IDLE_TIMEOUT);
                message.put_u32(millis);
                state.urgent.push_back(message.freeze());
            }
        }
        let (read, write) = tokio::io::split(stream);
        tokio::spawn(mux_io::write(shared.clone(), write));
        tokio::spawn(mux_io::read(shared.clone(), read));
        tokio::spawn(mux_io::keep(shared.clone(), keep_alive, stop));
        Mux { shared }
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        self.shared.peer.remote
    }

    pub(crate) fn peer_certificate(&self) -> Option<Vec<u8>> {
        self.shared.peer.certificate.clone()
    }

    pub(crate) fn heard(&self) -> u64 {
        self.shared.state().heard
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.shared.state().rtt
    }

    /// Asks for a sign of life.
    pub(crate) fn ping(&self) {
        self.shared.ping();
    }

    pub(crate) fn control(&self) -> Result<(ChannelWriter, ChannelReader), Closed> {
        self.shared.alive()?;
        Ok((self.writer(CONTROL), self.reader(CONTROL)))
    }

    pub(crate) fn open(&self, priority: i32) -> Result<ChannelWriter, Closed> {
        self.shared.alive()?;
        let channel = {
            let mut state = self.shared.state();
            // Numbers come round after 65534 channels; those that are still open are passed over.
            let mut next = state.opened_here;
            loop {
                next = if next >= CONNECTION - 1 { 1 } else { next + 1 };
                if !state.out.contains_key(&next) {
                    break;
                }
            }
            state.opened_here = next;
            state.out.insert(next, Out::new(priority));
            next
        };
        Ok(self.writer(channel))
    }

    /// Cancel-safe.
    pub(crate) async fn accept(&self) -> Result<ChannelReader, Closed> {
        loop {
            if let Some(channel) = self.shared.state().waiting.pop_front() {
                return Ok(self.reader(channel));
            }
            tokio::select! {
                () = self.shared.accepted.notified() => {}
                closed = self.closed() => return Err(closed),
            }
        }
    }

    pub(crate) fn close(&self, code: CloseCode, reason: &str) {
        self.shared.close(code, reason);
    }

    /// Cancel-safe.
    pub(crate) async fn closed(&self) -> Closed {
        self.shared.closed().await
    }

    fn writer(&self, channel: u16) -> ChannelWriter {
        ChannelWriter {
            shared: self.shared.clone(),
            channel,
        }
    }

    fn reader(&self, channel: u16) -> ChannelReader {
        ChannelReader {
            shared: self.shared.clone(),
            channel,
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self) -> Result<(), Closed> {
        match self.closed.borrow().clone() {
            Some(closed) => Err(closed),
            None => Ok(()),
        }
    }

    pub(crate) fn ended(&self) -> Option<Closed> {
        self.closed.borrow().clone()
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        self.peer.remote
    }

    pub(crate) async fn closed(&self) -> Closed {
        let mut closed = self.closed.subscribe();
        match closed.wait_for(Option::is_some).await {
            Ok(closed) => closed.clone().unwrap_or(Closed::ByUs),
            // The sender lives in `self`.
            Err(_) => Closed::ByUs,
        }
    }

    /// The first reason stays.
    pub(crate) fn end(&self, reason: Closed) {
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            if first {
                *closed = Some(reason);
            }
            first
        });
        self.write.notify_one();
        self.read.notify_one();
    }

    pub(crate) fn close(&self, code: CloseCode, reason: &str) {
        let mut message = BytesMut::with_capacity(5 + reason.len());
        message.put_u8(CLOSE);
        message.put_u32(code.to_wire());
        let mut end = reason.len().min(MAX_REASON);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        message.put_slice(&reason.as_bytes()[..end]);
        self.state().close.get_or_insert(message.freeze());
        self.end(Closed::ByUs);
    }

    pub(crate) fn ping(&self) {
        let mut state = self.state();
        if state.urgent.is_empty() {
            state.urgent.push_back(Bytes::from_static(&[PING]));
            state.pinged_at.get_or_insert_with(Instant::now);
        }
        drop(state);
        self.write.notify_one();
    }

    /// How long nothing was heard, and how long that may be.
    pub(crate) fn quiet(&self) -> (Duration, Duration) {
        let state = self.state();
        let quiet = state.heard_at.map_or(Duration::ZERO, |at| at.elapsed());
        (quiet, state.idle_timeout)
    }

    /// The next chunk for the wire, once `ended` only what belongs to a proper end.
    pub(crate) fn next_chunk(&self, ended: bool) -> Option<(u16, Bytes)> {
        let mut state = self.state();
        if let Some(message) = state.urgent.pop_front() {
            return Some((CONNECTION, message));
        }
        let ready = |out: &Out| !out.queue.is_empty() || out.finished;
        let top = state
            .out
            .values()
            .filter(|out| ready(out) && (!ended || out.priority == CONTROL_PRIORITY))
            .map(|out| out.priority)
            .max();
        let Some(top) = top else {
            let close = state.close.take()?;
            return Some((CONNECTION, close));
        };
        let last = state.last_out;
        let of_top = |(_, out): &(&u16, &mut Out)| out.priority == top && ready(out);
        let State { out, .. } = &mut *state;
        // The first behind the last one, else the first at all.
        let after = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
        let number = match out.range_mut(after).find(|entry| of_top(entry)) {
            Some((number, _)) => *number,
            None => *out.iter_mut().find(|entry| of_top(entry))?.0,
        };
        let channel = out.get_mut(&number)?;
        let chunk = match channel.queue.front_mut() {
            Some(front) => {
                let chunk = front.split_to(front.len().min(CHUNK));
                if front.is_empty() {
                    channel.queue.pop_front();
                }
                channel.bytes -= chunk.len();
                if channel.bytes < OUT_WAITING {
                    channel.room.notify_one();
                }
                chunk
            }
            None => {
                // The end. The control channel is never opened again.
                out.remove(&number);
                Bytes::new()
            }
        };
        state.last_out = number;
        Some((number, chunk))
    }

    /// Takes a chunk from the wire.
    pub(crate) fn handle_chunk(&self, channel: u16, bytes: Bytes) -> Result<(), MuxError> {
        let mut state = self.state();
        if channel == CONNECTION {
            drop(state);
            return self.handle_message(&bytes);
        }
        if !state.inward.contains_key(&channel) {
            if state.inward.len() >= MAX_CHANNELS {
                return Err(MuxError::TooManyChannels);
            }
            state.inward.insert(channel, In::default());
            state.waiting.push_back(channel);
            self.accepted.notify_one();
        }
        let Some(inward) = state.inward.get_mut(&channel) else {
            return Err(MuxError::Malformed);
        };
        if bytes.is_empty() {
            inward.ended = true;
            if inward.unread {
                state.inward.remove(&channel);
                return Ok(());
            }
        } else if !inward.unread {
            inward.bytes += bytes.len();
            inward.queue.push_back(bytes);
        }
        inward.more.notify_one();
        Ok(())
    }

    /// Whether a channel holds so much that nothing more may be read before it is.
    pub(crate) fn is_full(&self, channel: u16) -> bool {
        let state = self.state();
        let inward = state.inward.get(&channel);
        inward.is_some_and(|inward| inward.bytes > IN_WAITING)
    }

    pub(crate) fn note_heard(&self) {
        let mut state = self.state();
        state.heard += 1;
        state.heard_at = Some(Instant::now());
    }

    fn handle_message(&self, message: &[u8]) -> Result<(), MuxError> {
        match message {
            [PING] => {
                let mut state = self.state();
                // One answer is enough for all that were asked meanwhile.
                if !state.urgent.iter().any(|waiting| **waiting == [PONG]) {
                    state.urgent.push_back(Bytes::from_static(&[PONG]));
                }
                drop(state);
                self.write.notify_one();
                Ok(())
            }
            [PONG] => {
                let mut state = self.state();
                if let Some(asked) = state.pinged_at.take() {
                    state.rtt = Some(asked.elapsed());
                }
                Ok(())
            }
            [IDLE_TIMEOUT, a, b, c, d] => {
                let theirs = Duration::from_millis(u32::from_be_bytes([*a, *b, *c, *d]).into());
                let mut state = self.state();
                state.idle_timeout = state.idle_timeout.min(theirs);
                Ok(())
            }
            [CLOSE, a, b, c, d, reason @ ..] if reason.len() <= MAX_REASON => {
                self.end(Closed::ByPeer {
                    code: CloseCode::from_wire(u32::from_be_bytes([*a, *b, *c, *d])),
                    reason: String::from_utf8_lossy(reason).into_owned(),
                });
                Ok(())
            }
            _ => Err(MuxError::Malformed),
        }
    }
}

pub(crate) struct ChannelWriter {
    shared: Arc<Shared>,
    channel: u16,
}

impl ChannelWriter {
    /// Waits while the channel holds enough, then hands over everything. Not cancel-safe between the pieces of a frame, of which
    /// there is no waiting: either all or none of `pieces` is taken.
    pub(crate) async fn write(&mut self, pieces: &mut [Bytes]) -> Result<(), Closed> {
        loop {
            self.shared.alive()?;
            let room = {
                let mut state = self.shared.state();
                let Some(out) = state.out.get_mut(&self.channel) else {
                    return Err(Closed::ByUs);
                };
                if out.bytes < OUT_WAITING {
                    for piece in pieces.iter_mut().filter(|piece| !piece.is_empty()) {
                        out.bytes += piece.len();
                        out.queue.push_back(std::mem::take(piece));
                    }
                    drop(state);
                    self.shared.write.notify_one();
                    return Ok(());
                }
                out.room.clone()
            };
            tokio::select! {
                () = room.notified() => {}
                closed = self.shared.closed() => return Err(closed),
            }
        }
    }

    pub(crate) fn finish(&mut self) {
        if let Some(out) = self.shared.state().out.get_mut(&self.channel) {
            out.finished = true;
        }
        self.shared.write.notify_one();
    }
}

impl Drop for ChannelWriter {
    fn drop(&mut self) {
        // The control channel ends with the connection.
        if self.channel != CONTROL {
            self.finish();
        }
    }
}

pub(crate) struct ChannelReader {
    shared: Arc<Shared>,
    channel: u16,
}

impl ChannelReader {
    /// The next bytes; what has arrived is given also after the connection's end. Cancel-safe.
    pub(crate) async fn read(&mut self) -> Result<Option<Bytes>, Closed> {
        loop {
            let more = {
                let mut state = self.shared.state();
                let Some(inward) = state.inward.get_mut(&self.channel) else {
                    return Ok(None);
                };
                if let Some(bytes) = inward.queue.pop_front() {
                    let full = inward.bytes > IN_WAITING;
                    inward.bytes -= bytes.len();
                    if full {
                        self.shared.read.notify_one();
                    }
                    return Ok(Some(bytes));
                }
                if inward.ended {
                    return Ok(None);
                }
                inward.more.clone()
            };
            tokio::select! {
                biased;
                () = more.notified() => {}
                closed = self.shared.closed() => {
                    // Bytes that came right before the end.
                    let state = self.shared.state();
                    let left = state.inward.get(&self.channel).is_some_and(|inward| !inward.queue.is_empty());
                    if !left {
                        return Err(closed);
                    }
                }
            }
        }
    }
}

impl Drop for ChannelReader {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        let Some(inward) = state.inward.get_mut(&self.channel) else {
            return;
        };
        inward.unread = true;
        inward.queue.clear();
        inward.bytes = 0;
        if inward.ended {
            state.inward.remove(&self.channel);
        }
        self.shared.read.notify_one();
    }
}
