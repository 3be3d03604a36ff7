//! A log: segments on disk, the newest frames in memory, one writer thread.

mod dropped;
mod reading;
mod segments;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{oneshot, watch};

use record::Compression;

use crate::bound::Bound;
use crate::config::Eviction;
use crate::disk::{Disk, DiskFile};
use crate::frame::{Dropped, Entry, Frame, Lane};
use crate::gap::GapReason;
use crate::hand::{Hand, Hands};
use crate::item::{Control, Item};
use crate::landing::{Landing, landing};
use crate::ledger::LedgerError;
use crate::limits;
use crate::progress::{Progress, Unwritten};
use crate::segment::{LogState, Producer, Stamp};
use crate::space::{Space, is_full};
use crate::writer::{Waiting, Writer};
use dropped::DroppedSoFar;

/// Which log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogId {
    /// What local clients published, on its way to the core: one log a lane.
    Outbox(Lane),
    /// What came from the core for local subscribers.
    Inbox,
}

impl std::fmt::Display for LogId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LogId::Outbox(lane) => write!(f, "outbox/{}", lane.0),
            LogId::Inbox => f.write_str("inbox"),
        }
    }
}

impl LogId {
    pub(crate) fn kind(self) -> u8 {
        match self {
            LogId::Outbox(_) => 1,
            LogId::Inbox => 2,
        }
    }
}

/// Why something was not written. It is not in the log, and will not appear in it later, unless `Failed` says that this is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The lane's bound on bytes is reached; there is room again when the core has taken something.
    #[error("lane {0} is full")]
    Full(Arc<str>),
    /// The lane is full and drops what comes. The message is counted, and the core will be told: a success for its publisher.
    #[error("lane {0} is full: the message is dropped and reported")]
    Dropped(Arc<str>),
    #[error("there is no lane {0}")]
    NoSuchLane(u8),
    #[error("the file system is full")]
    DiskFull,
    #[error("the disk does not keep up with what is published")]
    TooFast,
    #[error("a record of {0} bytes; the largest that is stored is {max}", max = limits::MAX_RECORD)]
    TooLarge(usize),
    #[error("more than {} streams", limits::MAX_STREAMS)]
    TooManyStreams,
    #[error(
        "{} bytes wait to be published later already, as many as may",
        limits::MAX_DELAYED
    )]
    TooMuchDelayed,
    #[error("not encodable: {0}")]
    Encode(String),
    /// The disk failed. After a failed sync nothing is written any more until the store is opened again.
    #[error("the disk failed: {0}")]
    Failed(String),
    #[error("the store is closed")]
    Closed,
}

/// The end of a log: the numbers that come next. Everything before them is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct End {
    pub number: u64,
    pub position: u64,
}

/// Where to read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The first frame with this number or a higher one.
    Number(u64),
    /// The frame that holds this record position, or the first one after it.
    Position(u64),
}

#[derive(Debug, Clone, Default)]
pub struct FrameRead {
    pub frames: Vec<Arc<Frame>>,
    /// Where to read on.
    pub next: End,
    /// What is missing there; only if there are no frames, and only where somebody asked for it.
    pub(crate) hole: Option<Hole>,
}

/// Something between two whole entries that is missing, or was never there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hole {
    /// Entries are missing up to this number.
    Missing { next: u64 },
    /// A count of messages that were dropped at this place.
    Dropped(Dropped),
}

#[derive(Debug, Clone)]
pub(crate) struct LogConfig {
    pub id: LogId,
    /// Of the lane, or `inbox`.
    pub name: Arc<str>,
    pub segment_bytes: u64,
    pub max_age: Option<Duration>,
    pub eviction: Eviction,
    pub compression: Compression,
    pub linger: Duration,
}

/// A segment as the log knows it.
#[derive(Clone)]
pub(crate) struct Segment {
    pub path: PathBuf,
    pub first_position: u64,
    pub producer: Producer,
    /// When the last record before it was stamped.
    pub last: Stamp,
    /// Messages, and their bytes, that were dropped before it.
    pub dropped: (u64, u64),
    pub data_start: u64,
    /// Durable length.
    pub len: u64,
}

#[derive(Clone, Copy)]
struct Hint {
    segment: u64,
    number: u64,
    position: u64,
    offset: u64,
}

#[derive(Default)]
pub(crate) struct Index {
    /// By the number of the first entry.
    pub segments: BTreeMap<u64, Segment>,
    tail: VecDeque<Arc<Frame>>,
    tail_weight: usize,
    hints: VecDeque<Hint>,
}

impl Index {
    pub fn remove_segment(&mut self, number: u64) {
        self.segments.remove(&number);
        self.hints.retain(|hint| hint.segment != number);
    }
}

#[derive(Default)]
pub(crate) struct Queue {
    pub waiting: VecDeque<Waiting>,
    pub weight: usize,
    /// Items that were ever put here, and those of them that the writer is done with.
    pub accepted: u64,
    pub done: u64,
    /// Something is asked of the writer that must not wait for others.
    pub hurry: bool,
    pub closing: bool,
}

/// Counters of one log since the start.
#[derive(Default)]
pub struct LogCounters {
    pub records: AtomicU64,
    pub payload_bytes: AtomicU64,
    pub bytes_written: AtomicU64,
    pub syncs: AtomicU64,
    pub refused: AtomicU64,
    /// Groups that the writer is done with, one way or the other.
    pub groups: AtomicU64,
    pub damaged: AtomicU64,
}

/// Called with each group of entries when it is durable, before anybody hears of it.
pub(crate) type OnDurable = Box<dyn Fn(&[Entry]) + Send + Sync>;

pub(crate) struct Shared {
    pub config: LogConfig,
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub queue: Mutex<Queue>,
    pub wake: Condvar,
    pub index: Mutex<Index>,
    pub end: watch::Sender<End>,
    pub counters: LogCounters,
    /// Bytes of all segments.
    bytes: AtomicU64,
    pub bound: Arc<Bound>,
    /// Up to where the core has it.
    pub sent: Arc<Mutex<End>>,
    pub failed: AtomicBool,
    pub on_durable: OnDurable,
    pub on_evict: OnEvict,
    pub dropped: watch::Sender<DroppedSoFar>,
    pub space: Arc<Space>,
}

/// A segment that is to be deleted while the core may not have it.
pub(crate) struct Evicted {
    pub first: End,
    pub next: End,
    pub reason: GapReason,
    pub bytes: u64,
    pub first_time: i64,
    pub last_time: i64,
    /// Counts of messages that were dropped, by the number of their entry.
    pub dropped: Vec<(u64, Dropped)>,
    pub landing: Landing,
}

/// Keeps what is to be told of a segment before it is deleted, durably.
pub(crate) type OnEvict = Box<dyn Fn(Evicted) -> Result<(), LedgerError> + Send + Sync>;

/// What the store does around a log.
pub(crate) struct Hooks {
    pub bound: Arc<Bound>,
    /// Of what its bound is for, this log's goes first.
    pub goes_first: bool,
    pub sent: Arc<Mutex<End>>,
    pub on_durable: OnDurable,
    pub on_evict: OnEvict,
    /// Messages that were dropped, as far as the ledger knows, and their bytes.
    pub dropped: (u64, u64),
    pub space: Arc<Space>,
    pub hands: Hands,
}

pub(crate) struct Log {
    shared: Arc<Shared>,
    writer: Mutex<Hand<Writer>>,
}

pub(crate) fn segment_name(first_number: u64) -> String {
    format!("{first_number:020}.seg")
}

/// Whether a file is a segment, by its name.
pub(crate) fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "seg")
}

impl End {
    /// The one that comes first.
    pub(crate) fn min_by_number(self, other: End) -> End {
        if other.number < self.number {
            other
        } else {
            self
        }
    }
}

impl Log {
    /// Starts the writer over what recovery found.
    pub fn start(
        config: LogConfig,
        disk: Arc<dyn Disk>,
        dir: &Path,
        state: LogState,
        segments: BTreeMap<u64, Segment>,
        active: Arc<dyn DiskFile>,
        hooks: Hooks,
    ) -> io::Result<Log> {
        let bytes = segments.values().map(|s| s.len).sum();
        hooks.bound.grow(bytes);
        let end = state.end();
        let thread_name = format!("{}-writer", config.name);
        let shared = Arc::new(Shared {
            config,
            disk,
            dir: dir.to_owned(),
            queue: Mutex::default(),
            wake: Condvar::new(),
            index: Mutex::new(Index {
                segments,
                ..Index::default()
            }),
            end: watch::Sender::new(end),
            counters: LogCounters::default(),
            bytes: AtomicU64::new(bytes),
            bound: hooks.bound,
            sent: hooks.sent,
            failed: AtomicBool::new(false),
            on_durable: hooks.on_durable,
            on_evict: hooks.on_evict,
            dropped: watch::Sender::new(DroppedSoFar {
                records: hooks.dropped.0.max(state.dropped.0),
                bytes: hooks.dropped.1.max(state.dropped.1),
                counted: state.dropped.0,
                first_time: -1,
                last_time: -1,
            }),
            space: hooks.space,
        });
        shared.bound.join(&shared, hooks.goes_first);
        let writer = Writer::new(shared.clone(), state, active);
        let writer = hooks.hands.start(thread_name, writer, Writer::run)?;
        Ok(Log {
            shared,
            writer: Mutex::new(writer),
        })
    }

    pub fn end(&self) -> End {
        *self.shared.end.borrow()
    }

    pub fn subscribe(&self) -> watch::Receiver<End> {
        self.shared.end.subscribe()
    }

    pub fn counters(&self) -> &LogCounters {
        &self.shared.counters
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    pub fn failed(&self) -> bool {
        self.shared.failed.load(Ordering::Relaxed)
    }

    pub fn progress(&self) -> Progress {
        let queue = self.shared.queue.lock();
        Progress {
            done: self.shared.counters.groups.load(Ordering::Relaxed),
            working: queue.weight > 0,
        }
    }

    pub fn unwritten(&self) -> Unwritten {
        let queue = self.shared.queue.lock();
        Unwritten {
            log: self.shared.config.name.clone(),
            items: queue.accepted - queue.done,
            bytes: queue.weight as u64,
        }
    }

    /// Puts an item in line, in the order of calls; the receiver resolves when it is durable. `bounded` items are refused when the
    /// log is full.
    pub fn enqueue(
        &self,
        item: Item,
        bounded: bool,
    ) -> Result<oneshot::Receiver<Result<(), WriteError>>, WriteError> {
        let result = self.try_enqueue(item, bounded);
        if result.is_err() {
            self.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn try_enqueue(
        &self,
        item: Item,
        bounded: bool,
    ) -> Result<oneshot::Receiver<Result<(), WriteError>>, WriteError> {
        let weight = item.weight();
        if let Item::Record { .. } = item
            && weight > limits::MAX_RECORD
        {
            return Err(WriteError::TooLarge(weight));
        }
        let (done, receiver) = oneshot::channel();
        let mut queue = self.shared.queue.lock();
        if queue.closing {
            return Err(WriteError::Closed);
        }
        self.shared.check_works()?;
        let pending = queue.weight + weight;
        if pending > limits::MAX_PENDING && queue.weight > 0 {
            return Err(WriteError::TooFast);
        }
        if bounded && self.shared.space.is_full() {
            return Err(WriteError::DiskFull);
        }
        let config = &self.shared.config;
        let has_room = self.shared.bound.wait(weight);
        if bounded && !has_room {
            match config.eviction {
                // The writer makes room.
                Eviction::Oldest => {}
                Eviction::Newest => {
                    self.shared.bound.wait_no_more(weight);
                    let (time, bytes) = item.stamp_and_bytes();
                    self.shared
                        .dropped
                        .send_modify(|dropped| dropped.add(time, bytes));
                    return Err(WriteError::Dropped(config.name.clone()));
                }
                Eviction::Reject => {
                    self.shared.bound.wait_no_more(weight);
                    return Err(WriteError::Full(config.name.clone()));
                }
            }
        }
        queue.weight += weight;
        queue.accepted += 1;
        queue.waiting.push_back(Waiting { item, weight, done });
        drop(queue);
        self.shared.wake.notify_one();
        Ok(receiver)
    }

    /// How many items were accepted until now.
    pub fn accepted(&self) -> u64 {
        self.shared.queue.lock().accepted
    }

    /// Is the writer done with so many of them? Then they are below the end of the log, or refused.
    pub fn is_done(&self, accepted: u64) -> bool {
        self.shared.queue.lock().done >= accepted
    }

    /// Whether so much waits for the writer that publishers should wait too.
    pub fn is_behind(&self) -> bool {
        self.shared.queue.lock().weight > limits::PENDING_TARGET
    }

    /// Where reading goes on at `number`, behind a hole. Blocks on the disk.
    pub fn landing(&self, number: u64) -> io::Result<Landing> {
        let is_last = {
            let index = self.shared.index.lock();
            index.segments.range(..=number).next_back().map(|(n, _)| *n)
                == index.segments.keys().next_back().copied()
        };
        if is_last {
            // So that what the writer knows stands in a header.
            let rolled = self.control(Control::Roll);
            self.wait_for(rolled).map_err(io::Error::other)?;
        }
        landing(&self.shared, number)
    }

    /// Has the writer do something; resolves when it is done.
    pub fn control(&self, control: Control) -> oneshot::Receiver<Result<(), WriteError>> {
        let (done, receiver) = oneshot::channel();
        let mut queue = self.shared.queue.lock();
        if queue.closing {
            return receiver;
        }
        let item = Item::Control(control);
        let weight = item.weight();
        self.shared.bound.wait(weight);
        queue.accepted += 1;
        queue.weight += weight;
        queue.hurry = true;
        queue.waiting.push_back(Waiting { item, weight, done });
        drop(queue);
        self.shared.wake.notify_one();
        receiver
    }

    /// Blocks until the writer has done something.
    pub fn wait_for(
        &self,
        mut done: oneshot::Receiver<Result<(), WriteError>>,
    ) -> Result<(), WriteError> {
        loop {
            match done.try_recv() {
                Ok(result) => return result,
                Err(TryRecvError::Closed) => return Err(WriteError::Closed),
                Err(TryRecvError::Empty) if self.step() => {}
                Err(TryRecvError::Empty) => break,
            }
        }
        done.blocking_recv().unwrap_or(Err(WriteError::Closed))
    }

    /// Writes one group of what waits; false if nothing does, or a thread does that.
    pub fn step(&self) -> bool {
        match &mut *self.writer.lock() {
            Hand::Caller(writer) => writer.step(),
            _ => false,
        }
    }

    /// Writes what waits, and stops. Later calls do nothing.
    pub fn close(&self) {
        self.shared.queue.lock().closing = true;
        self.shared.wake.notify_one();
        while self.step() {}
        self.writer.lock().end();
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Segments have so many bytes more.
    pub fn grow(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bound.grow(bytes);
    }

    /// A segment has so many bytes more; the bound counts them elsewhere.
    pub fn lengthen(&self, first: u64, bytes: u64) {
        if let Some(segment) = self.index.lock().segments.get_mut(&first) {
            segment.len += bytes;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn shrink(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.bound.shrink(bytes);
    }

    /// Nothing is written after a failed sync.
    pub fn check_works(&self) -> Result<(), WriteError> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(WriteError::Failed("an earlier sync failed".into()));
        }
        Ok(())
    }

    /// Why something was not written. A file system that is full is so for all.
    pub fn write_error(&self, error: &io::Error) -> WriteError {
        if is_full(error) {
            self.space.run_out();
            return WriteError::DiskFull;
        }
        WriteError::Failed(error.to_string())
    }

    /// Deletes a segment. Under the lock of the index, so that nobody looks for it.
    pub fn remove_segment(&self, number: u64) -> io::Result<()> {
        let mut index = self.index.lock();
        let Some(segment) = index.segments.get(&number) else {
            return Ok(());
        };
        self.disk.remove(&segment.path)?;
        self.shrink(segment.len);
        index.remove_segment(number);
        Ok(())
    }
}

impl Index {
    /// What is read next comes from the disk.
    pub fn clear_tail(&mut self) {
        self.tail.clear();
        self.tail_weight = 0;
    }

    /// Adds a durable frame to what is kept in memory.
    pub fn push_tail(&mut self, frame: Arc<Frame>) {
        self.tail_weight += frame.weight();
        self.tail.push_back(frame);
        while self.tail_weight > limits::TAIL
            && self.tail.len() > 1
            && let Some(old) = self.tail.pop_front()
        {
            self.tail_weight -= old.weight();
        }
    }
}
