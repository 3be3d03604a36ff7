//! The store as the node sees it.

mod clients;
mod delayed;
mod figures;
mod opening;
mod outbox;
mod retained;

pub use delayed::NewDelayed;
pub use outbox::OutboxRead;
pub use retained::Now;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use record::{Batch, NewRecord, StreamName};
use tokio::sync::watch;

use crate::apply::{client_prefix, packet_prefix};
use crate::boots::Boots;
use crate::config::{Config, LOCAL};
use crate::delayed::{DelayedKey, DelayedMessages};
use crate::frame::{Lane, Origin, PacketRef, View};
use crate::gap::Gaps;
use crate::item::{Control, Item};
use crate::keeper::Keeper;
use crate::ledger::{Change, Ledger, LedgerError, OneFailure, Table};
use crate::log::{End, FrameRead, From, Log, LogId, WriteError};
use crate::progress::{Progress, Unwritten};
use crate::quarantine::Quarantine;
use crate::retained::RetainedCount;
use crate::segment::Producer;
use crate::sessions::Sessions;
use crate::space::Space;
use crate::wire::Reader;

/// A message to be stored.
#[derive(Debug, Clone)]
pub struct NewMessage {
    pub lane: Lane,
    pub stream: StreamName,
    pub record: NewRecord,
    /// Sets (or, with an empty value, clears) the retained message of the record's key.
    pub retained: bool,
    /// Stored in the same write.
    pub packet: Option<PacketRef>,
    /// The boot (not 0) whose clock stamped the record while the time was not known.
    pub blind: Option<u64>,
    /// What local readers see of it. `None` = the record.
    pub view: Option<View>,
    /// It has waited for its time, and is taken from those that do in the same write.
    pub delayed: Option<DelayedKey>,
}

/// Up to which entry the ledger has got each log (before its next flush).
#[derive(Default)]
struct Applied {
    logs: HashMap<LogId, u64>,
    /// The ledger refused a change: from then on segments are kept, and read again at the next start.
    failed: bool,
}

/// What is said of a lane to those who did not configure it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneInfo {
    pub lane: Lane,
    pub name: Arc<str>,
    /// False: it is not in the configuration any more, and is only drained.
    pub configured: bool,
}

struct LaneLog {
    info: LaneInfo,
    log: Log,
    /// Shared with what notes an eviction.
    uplink: Arc<Mutex<End>>,
    /// Messages that went with their segments before the core had them, since the start.
    evicted: Arc<AtomicU64>,
    /// Messages that had been dropped before this start.
    dropped_before: u64,
}

struct Inner {
    /// In the order of their numbers.
    lanes: Vec<LaneLog>,
    inbox: Log,
    producer: Mutex<Producer>,
    ledger: Arc<OneFailure>,
    gaps: Arc<Gaps>,
    boots: Boots,
    delayed: DelayedMessages,
    space: Arc<Space>,
    sessions: Sessions,
    applied: Arc<Mutex<Applied>>,
    retained: Arc<RetainedCount>,
    config: Config,
    sessions_lagging: AtomicU64,
}

/// See the crate. Methods that are not `async` do not wait for the disk, except where they say so.
pub struct Store {
    inner: Arc<Inner>,
    keeper: Keeper,
    quarantine: Quarantine,
    origins: Mutex<HashMap<(u64, u32), i64>>,
    /// The end of a log that is not there: never moves.
    nothing: watch::Sender<End>,
    cut: u64,
    set_aside: u32,
}

const PRODUCER: &[u8] = b"producer";

fn log_key(id: LogId, what: &str) -> Vec<u8> {
    format!("{what}/{id}").into_bytes()
}

fn encode_end(end: End) -> Vec<u8> {
    [end.number.to_be_bytes(), end.position.to_be_bytes()].concat()
}

fn end_row(what: &str, id: LogId, end: End) -> Change {
    Change::Put {
        table: Table::Cursor,
        key: log_key(id, what),
        value: encode_end(end),
    }
}

/// A row that says how far the core has got.
fn uplink_row(id: LogId, end: End) -> Change {
    end_row("uplink", id, end)
}

fn get_end(ledger: &dyn Ledger, table: Table, key: &[u8]) -> Result<Option<End>, LedgerError> {
    Ok(ledger.get(table, key)?.and_then(|value| {
        let mut r = Reader(value);
        Some(End {
            number: r.get_u64().ok()?,
            position: r.get_u64().ok()?,
        })
    }))
}

/// A row that says that the ledger has got all entries before `number`.
fn applied_row(id: LogId, number: u64) -> Change {
    Change::Put {
        table: Table::Cursor,
        key: log_key(id, "applied"),
        value: number.to_be_bytes().to_vec(),
    }
}

/// Bit 62: never an id that a core gives out. The low byte is for the lanes.
fn fresh_id(random: u64) -> i64 {
    ((random & (i64::MAX as u64) & !0xff) | 1 << 62) as i64
}

fn producer_row(producer: Producer) -> Change {
    Change::Put {
        table: Table::Identity,
        key: PRODUCER.to_vec(),
        value: [
            &producer.id.to_be_bytes()[..],
            &producer.epoch.to_be_bytes()[..],
            &producer.previous.unwrap_or(-1).to_be_bytes()[..],
        ]
        .concat(),
    }
}

impl Store {
    /// All lanes for the core that have a log, in the order of their numbers.
    pub fn lanes(&self) -> Vec<LaneInfo> {
        let lanes = self.inner.lanes.iter().filter(|lane| !lane.is_local());
        lanes.map(|lane| lane.info.clone()).collect()
    }

    /// All logs that local readers read.
    pub fn logs(&self) -> Vec<LogId> {
        self.inner.logs().map(|(id, _)| id).collect()
    }

    /// The lane of that name in the configuration.
    pub fn lane(&self, name: &str) -> Option<Lane> {
        let mut lanes = self.inner.lanes.iter();
        let found = lanes.find(|lane| lane.info.configured && *lane.info.name == *name);
        found.map(|lane| lane.info.lane)
    }

    fn log(&self, id: LogId) -> Option<&Log> {
        self.inner.log(id)
    }

    /// Under which id and epoch batches are written now.
    pub fn producer(&self) -> Producer {
        *self.inner.producer.lock()
    }

    /// Stores a message. It takes its place in the log at the first poll; resolves when it is durable.
    pub async fn publish(&self, message: NewMessage) -> Result<(), WriteError> {
        let written = match self.enqueue(message) {
            Err(dropped @ WriteError::Dropped(_)) => {
                // Counted durably before its publisher hears of it.
                let counted = self.keeper.flush().await;
                counted.map_err(|error| WriteError::Failed(error.to_string()))?;
                return Err(dropped);
            }
            written => written?,
        };
        written.await.unwrap_or(Err(WriteError::Closed))
    }

    /// Stores a message without waiting, unless the disk is behind.
    pub async fn publish_unacknowledged(&self, message: NewMessage) -> Result<(), WriteError> {
        let lane = message.lane;
        let written = self.enqueue(message)?;
        let log = self.log(LogId::Outbox(lane));
        if log.is_some_and(Log::is_behind) {
            return written.await.unwrap_or(Err(WriteError::Closed));
        }
        Ok(())
    }

    fn enqueue(
        &self,
        message: NewMessage,
    ) -> Result<tokio::sync::oneshot::Receiver<Result<(), WriteError>>, WriteError> {
        let item = Item::Record {
            stream: message.stream,
            record: message.record,
            retained: message.retained,
            packet: message.packet,
            blind: message.blind,
            view: message.view,
            delayed: message.delayed,
        };
        let log = self.log(LogId::Outbox(message.lane));
        let log = log.ok_or(WriteError::NoSuchLane(message.lane.0))?;
        let written = log.enqueue(item, true);
        // Also after a refusal: the keeper looks whether there is room again.
        self.keeper.touch();
        written
    }

    /// Takes a packet id from the client's unreleased ones; resolves when that is durable.
    pub async fn release(&self, packet: PacketRef) -> Result<(), WriteError> {
        let prefix = packet_prefix(&packet);
        let mut lanes = Vec::new();
        let ledger = &self.inner.ledger;
        let scanned = ledger.scan(Table::Unreleased, &prefix, &mut |key, _| {
            lanes.extend(key.get(prefix.len()).map(|lane| Lane(*lane)));
            true
        });
        scanned.map_err(|error| WriteError::Failed(error.to_string()))?;
        if self.inner.applied.lock().failed {
            // The ledger does not know; a release of nothing does no harm.
            lanes = self.inner.lanes.iter().map(|lane| lane.info.lane).collect();
        }
        // To the log of its message, where a replay finds the two in their order.
        let mut releases = Vec::new();
        for log in lanes
            .iter()
            .filter_map(|lane| self.log(LogId::Outbox(*lane)))
        {
            releases.push(log.enqueue(Item::Release(packet.clone()), false)?);
        }
        for release in releases {
            release.await.unwrap_or(Err(WriteError::Closed))?;
        }
        Ok(())
    }

    /// Packet ids that were stored with messages of this client and not released.
    pub fn unreleased(&self, client: &str) -> Result<Vec<u16>, LedgerError> {
        let prefix = client_prefix(client);
        let mut ids = Vec::new();
        let ledger = &self.inner.ledger;
        ledger.scan(Table::Unreleased, &prefix, &mut |key, _| {
            let id = key.get(prefix.len()..prefix.len() + 2);
            let id = id.and_then(|id| id.try_into().ok());
            ids.extend(id.map(u16::from_be_bytes));
            true
        })?;
        // One that was used again in another lane is there twice.
        ids.dedup();
        Ok(ids)
    }

    /// Stores a batch from the core. One that is here already is not stored again. Resolves when it is durable. `retained` names
    /// the records, counted from 0, that set or clear retained messages.
    pub async fn receive(
        &self,
        stream: StreamName,
        batch: Batch,
        origin: Origin,
        retained: Vec<u32>,
    ) -> Result<(), WriteError> {
        let key = (origin.stream, origin.partition);
        {
            let origins = self.origins.lock();
            if origins.get(&key).is_some_and(|next| origin.next <= *next) {
                return Ok(());
            }
            if !origins.contains_key(&key) && origins.len() >= crate::limits::MAX_ORIGINS {
                return Err(WriteError::TooManyStreams);
            }
        }
        let item = Item::Batch {
            stream,
            batch,
            retained,
            origin,
        };
        let written = self.inner.inbox.enqueue(item, false)?;
        written.await.unwrap_or(Err(WriteError::Closed))?;
        self.origins.lock().insert(key, origin.next);
        self.keeper.touch();
        Ok(())
    }

    /// What every log has accepted until now, for [`Store::is_done`].
    pub fn accepted(&self) -> Vec<u64> {
        let logs = self.inner.logs();
        logs.map(|(_, log)| log.accepted()).collect()
    }

    /// Is all that was accepted then readable, or refused?
    pub fn is_done(&self, accepted: &[u64]) -> bool {
        let mut logs = self.inner.logs().zip(accepted);
        logs.all(|((_, log), accepted)| log.is_done(*accepted))
    }

    pub fn end(&self, log: LogId) -> End {
        self.log(log).map(Log::end).unwrap_or_default()
    }

    /// The oldest place that can still be read.
    pub fn oldest(&self, log: LogId) -> End {
        self.log(log).map(Log::oldest).unwrap_or_default()
    }

    /// Moves when something new is durable.
    pub fn watch(&self, log: LogId) -> watch::Receiver<End> {
        let log = self.log(log);
        log.map_or_else(|| self.nothing.subscribe(), Log::subscribe)
    }

    /// Reads whole frames of about `max_bytes`, at least one if there is one; what is missing is passed over. Reading the disk is
    /// done on tokio's blocking threads.
    pub async fn read(
        self: &Arc<Self>,
        log: LogId,
        from: From,
        max_bytes: usize,
    ) -> io::Result<FrameRead> {
        let Some(found) = self.log(log) else {
            return Ok(FrameRead::default());
        };
        if let Some(read) = found.read_tail(from, max_bytes) {
            return Ok(read);
        }
        let store = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let log = store.log(log);
            log.map_or_else(|| Ok(FrameRead::default()), |log| log.read(from, max_bytes))
        });
        read.await.map_err(io::Error::other)?
    }

    /// Evicts what is older than its lane allows. `now_ms` must be known to be right: nothing brings evicted messages back.
    pub async fn expire(&self, now_ms: i64) -> Result<(), WriteError> {
        let boots = Arc::new(self.inner.boots.all().into_iter().collect());
        let expire = Control::Expire { now_ms, boots };
        let lanes = self.inner.lanes.iter();
        let expired: Vec<_> = lanes.map(|lane| lane.log.control(expire.clone())).collect();
        for expired in expired {
            expired.await.unwrap_or(Err(WriteError::Closed))?;
        }
        Ok(())
    }

    /// What is to be added to timestamps that were stamped blind in a boot, in milliseconds; durable when it resolves. Numbers of boots
    /// grow: the lowest are forgotten when there are too many.
    pub async fn set_boot_offset(&self, boot: u64, add_ms: i64) -> Result<(), LedgerError> {
        self.inner.boots.set(&*self.inner.ledger, boot, add_ms)?;
        self.inner.delayed.clock_was_set(boot, add_ms);
        self.look_at_delayed();
        self.keeper.flush().await
    }

    /// What is to be added to the timestamps of a boot, in milliseconds, if that is known.
    pub fn boot_offset(&self, boot: u64) -> Option<i64> {
        self.inner.boots.of(boot)
    }

    /// Boots whose offset is known, in order.
    pub fn boot_offsets(&self) -> Vec<(u64, i64)> {
        self.inner.boots.all()
    }

    /// Makes the cursors durable now.
    pub async fn checkpoint(&self) -> Result<(), LedgerError> {
        self.keeper.flush().await
    }

    /// True after a failed sync: only opening the store again tells what is on the disk.
    pub fn failed(&self) -> bool {
        *self.failure().borrow() || self.inner.logs().any(|(_, log)| log.failed())
    }

    /// Becomes true when the ledger has failed: nothing that is not in the segments is kept any more, and only opening the store again
    /// tells what is on the disk.
    pub fn failure(&self) -> watch::Receiver<bool> {
        self.inner.ledger.failure()
    }

    /// Does a piece of the work of one of the [`Store::writers`], by its place there; false if it has none, or a thread does it.
    pub fn step(&self, writer: usize) -> bool {
        let log = self.inner.logs().nth(writer);
        log.map_or_else(|| self.keeper.step(), |(_, log)| log.step())
    }

    /// Of every thread that writes, in the same order at each call.
    pub fn writers(&self) -> Vec<Progress> {
        let logs = self.inner.logs();
        logs.map(|(_, log)| log.progress())
            .chain([self.keeper.progress()])
            .collect()
    }

    /// What was accepted and is not on the disk, log by log.
    pub fn unwritten(&self) -> Vec<Unwritten> {
        self.inner.logs().map(|(_, log)| log.unwritten()).collect()
    }

    /// Writes what waits and stops the threads. Blocks on the disk. Later writes are refused.
    pub fn close(&self) {
        for (_, log) in self.inner.logs() {
            log.close();
        }
        self.keeper.close();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl LaneLog {
    fn is_local(&self) -> bool {
        &*self.info.name == LOCAL
    }

    /// Everything before is no matter of the core's any more.
    fn sent(&self) -> End {
        if self.is_local() {
            self.log.end()
        } else {
            *self.uplink.lock()
        }
    }
}

impl Inner {
    fn lane(&self, lane: Lane) -> Option<&LaneLog> {
        self.lanes.iter().find(|found| found.info.lane == lane)
    }

    fn log(&self, id: LogId) -> Option<&Log> {
        match id {
            LogId::Outbox(lane) => self.lane(lane).map(|lane| &lane.log),
            LogId::Inbox => Some(&self.inbox),
        }
    }

    fn logs(&self) -> impl Iterator<Item = (LogId, &Log)> {
        let lanes = self.lanes.iter();
        let lanes = lanes.map(|lane| (LogId::Outbox(lane.info.lane), &lane.log));
        lanes.chain([(LogId::Inbox, &self.inbox)])
    }

    /// Brings the ledger up to the logs, durably, then lets go of segments.
    fn checkpoint(&self) -> Result<(), LedgerError> {
        let mut rows = Vec::new();
        let mut put_end = |what: &str, id, end| rows.push(end_row(what, id, end));
        // How far each log is done with, but for sessions and the ledger.
        let mut done: Vec<(LogId, End)> = Vec::new();
        for lane in &self.lanes {
            let id = LogId::Outbox(lane.info.lane);
            let uplink = lane.sent();
            put_end("uplink", id, uplink);
            put_end("end", id, lane.log.end());
            done.push((id, uplink));
            let dropped = lane.log.dropped();
            if dropped.records > 0 {
                // Not an end, but two numbers as well.
                let (number, position) = (dropped.records, dropped.bytes);
                put_end("dropped", id, End { number, position });
            }
        }
        put_end("end", LogId::Inbox, self.inbox.end());
        done.push((LogId::Inbox, self.inbox.end()));
        {
            let applied = self.applied.lock();
            for (id, end) in &mut done {
                let number = applied.logs.get(id).copied().unwrap_or(0);
                rows.push(applied_row(*id, number));
                // A segment goes when the ledger durably has what is to be remembered of it.
                end.number = end.number.min(number);
            }
            // Also what sessions hold, as it is before the flush: later it may say what is not durable yet.
            for (id, keep) in &mut done {
                keep.position = keep.position.min(self.held(*id));
            }
            self.ledger.apply(rows)?;
        }
        self.ledger.flush()?;
        for (id, keep) in done {
            if let Some(log) = self.log(id)
                && let Err(error) = log.trim(keep)
            {
                tracing::warn!(log = %id, %error, "a segment can not be deleted");
            }
        }
        self.space.try_again();
        Ok(())
    }

    /// The first position that a session still needs.
    fn held(&self, id: LogId) -> u64 {
        let Some(log) = self.log(id) else {
            return u64::MAX;
        };
        let oldest = log.position_before_end(self.config.session_bytes);
        let (lowest, lagging) = self.sessions.lowest(id, oldest);
        for client in lagging {
            self.sessions_lagging.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%client, log = %id, "a session is too far behind: it loses the oldest messages that it has not read");
        }
        lowest.unwrap_or(u64::MAX)
    }
}
