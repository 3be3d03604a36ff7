//! The store as the node sees it.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use record::{Batch, NewRecord, StreamName};
use tokio::sync::watch;

use crate::apply::{self, Retained, client_prefix, decode_retained};
use crate::config::Config;
use crate::disk::Disk;
use crate::frame::{Entry, Frame, Lane, Origin, PacketRef};
use crate::keeper::Keeper;
use crate::ledger::{Change, Ledger, LedgerError, Table};
use crate::log::{End, FrameRead, From, Log, LogConfig, LogId, OnDurable, WriteError};
use crate::quarantine::Quarantine;
use crate::recovery::{Known, OpenError, Recovered, io_error, recover, replay};
use crate::segment::Producer;
use crate::sessions::{Checkpoint, Session, SessionError, Sessions};
use crate::stats::Stats;
use crate::wire::Reader;
use crate::writer::Item;

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
}

/// Up to which entry the ledger has got each log (before its next flush).
#[derive(Default)]
struct Applied {
    outbox: u64,
    inbox: u64,
    /// The ledger refused a change: from then on segments are kept, and read again at the next start.
    failed: bool,
}

impl Applied {
    fn of(&mut self, id: LogId) -> &mut u64 {
        match id {
            LogId::Outbox => &mut self.outbox,
            LogId::Inbox => &mut self.inbox,
        }
    }
}

struct Inner {
    outbox: Log,
    inbox: Log,
    ledger: Arc<dyn Ledger>,
    sessions: Sessions,
    uplink: Mutex<End>,
    applied: Arc<Mutex<Applied>>,
    config: Config,
    sessions_lagging: AtomicU64,
}

/// See the crate. Methods that are not `async` do not wait for the disk, except where they say so.
pub struct Store {
    inner: Arc<Inner>,
    keeper: Keeper,
    quarantine: Quarantine,
    origins: Mutex<HashMap<(u64, u32), i64>>,
    cut: u64,
    set_aside: u32,
    epoch_raised: bool,
}

const PRODUCER: &[u8] = b"producer";
const UPLINK: &[u8] = b"uplink";

fn log_key(id: LogId, what: &str) -> Vec<u8> {
    format!("{what}/{}", id.name()).into_bytes()
}

fn encode_end(end: End) -> Vec<u8> {
    [end.number.to_be_bytes(), end.position.to_be_bytes()].concat()
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

fn get_producer(ledger: &dyn Ledger) -> Result<Option<Producer>, LedgerError> {
    Ok(ledger.get(Table::Identity, PRODUCER)?.and_then(|value| {
        let mut r = Reader(value);
        Some(Producer {
            id: r.get_i64().ok()?,
            epoch: r.get_i16().ok()?,
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

/// Opens one log and brings the ledger up to it.
fn open_log(
    disk: &Arc<dyn Disk>,
    ledger: &Arc<dyn Ledger>,
    applied: &Arc<Mutex<Applied>>,
    dir: &Path,
    config: LogConfig,
    fresh_id: i64,
) -> Result<(Log, Recovered), OpenError> {
    let id = config.id;
    let dir = dir.join(id.name());
    let end = get_end(&**ledger, Table::Cursor, &log_key(id, "end"))?;
    let producer = get_producer(&**ledger)?;
    let known = end
        .zip(producer)
        .map(|(end, producer)| Known { producer, end });
    let recovered = recover(&**disk, &dir, id, known, fresh_id)?;

    let from = ledger.get(Table::Cursor, &log_key(id, "applied"))?;
    let from = from.and_then(|v| Reader(v).get_u64().ok()).unwrap_or(0);
    let mut failed = None;
    replay(&**disk, &recovered.segments, from, &mut |entry| {
        let number = entry.number();
        let mut rows = Vec::new();
        apply::changes(std::slice::from_ref(&entry), &mut rows);
        if !rows.is_empty() {
            rows.push(applied_row(id, number + 1));
            if let Err(error) = ledger.apply(rows) {
                failed.get_or_insert(error);
            }
        }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }

    *applied.lock().of(id) = recovered.state.next_number;
    let theirs = (ledger.clone(), applied.clone());
    let on_durable: OnDurable = Box::new(move |entries: &[Entry]| {
        let (ledger, applied) = &theirs;
        let Some(next) = entries.last().map(|last| last.number() + 1) else {
            return;
        };
        let mut rows = Vec::new();
        apply::changes(entries, &mut rows);
        // Held over both steps, so that a checkpoint never says less than the ledger has got.
        let mut applied = applied.lock();
        if applied.failed {
            return;
        }
        if !rows.is_empty() {
            rows.push(applied_row(id, next));
            if let Err(error) = ledger.apply(rows) {
                tracing::error!(%error, "the ledger does not take changes: they are kept in the segments for the next start");
                applied.failed = true;
                return;
            }
        }
        *applied.of(id) = next;
    });
    let log = Log::start(
        config,
        disk.clone(),
        &dir,
        recovered.state.clone(),
        recovered.segments.clone(),
        recovered.active.clone(),
        on_durable,
    )
    .map_err(io_error(dir.display()))?;
    Ok((log, recovered))
}

impl Store {
    /// Opens the store in `dir`, or makes it. Blocks on the disk.
    pub fn open(
        disk: Arc<dyn Disk>,
        ledger: Arc<dyn Ledger>,
        dir: &Path,
        config: Config,
    ) -> Result<Store, OpenError> {
        // Bit 62: never an id that a core gives out. The low byte is for the lanes.
        let fresh_id = ((config.random & (i64::MAX as u64) & !0xff) | 1 << 62) as i64;
        let applied = Arc::new(Mutex::new(Applied::default()));
        let log_config = |id| LogConfig {
            id,
            segment_bytes: config.segment_bytes,
            max_bytes: config.outbox_bytes,
        };
        let open = |id| open_log(&disk, &ledger, &applied, dir, log_config(id), fresh_id);
        let (outbox, found) = open(LogId::Outbox)?;
        let (inbox, inbox_found) = open(LogId::Inbox)?;
        let quarantine = dir.join("quarantine");
        let quarantine =
            Quarantine::open(disk.clone(), &quarantine).map_err(io_error(quarantine.display()))?;

        let start = outbox.oldest();
        let uplink = get_end(&*ledger, Table::Cursor, UPLINK)?.unwrap_or(start);
        // A cursor from before what was lost, or from an older ledger: never outside of the log.
        let uplink = if uplink.number < start.number {
            start
        } else if uplink.number > outbox.end().number {
            outbox.end()
        } else {
            uplink
        };
        let inner = Arc::new(Inner {
            outbox,
            inbox,
            sessions: Sessions::load_all(&*ledger)?,
            ledger,
            uplink: Mutex::new(uplink),
            applied,
            config,
            sessions_lagging: AtomicU64::new(0),
        });
        // The producer's identity is in both places before anything is written under it.
        inner.checkpoint()?;
        let theirs = inner.clone();
        let keeper =
            Keeper::start(move || theirs.checkpoint()).map_err(io_error("the keeper's thread"))?;
        Ok(Store {
            inner,
            keeper,
            quarantine,
            origins: Mutex::new(inbox_found.state.origins),
            cut: found.cut + inbox_found.cut,
            set_aside: found.set_aside + inbox_found.set_aside,
            epoch_raised: found.epoch_raised,
        })
    }

    fn log(&self, id: LogId) -> &Log {
        match id {
            LogId::Outbox => &self.inner.outbox,
            LogId::Inbox => &self.inner.inbox,
        }
    }

    /// Under which id and epoch batches are written now.
    pub fn producer(&self) -> Producer {
        self.inner.outbox.producer
    }

    /// Stores a message. It takes its place in the log at the first poll; resolves when it is durable.
    pub async fn publish(&self, message: NewMessage) -> Result<(), WriteError> {
        let written = self.enqueue(message)?;
        written.await.unwrap_or(Err(WriteError::Closed))
    }

    /// Stores a message without waiting, unless the disk is behind.
    pub async fn publish_unacknowledged(&self, message: NewMessage) -> Result<(), WriteError> {
        let written = self.enqueue(message)?;
        if self.inner.outbox.is_behind() {
            return written.await.unwrap_or(Err(WriteError::Closed));
        }
        Ok(())
    }

    fn enqueue(
        &self,
        message: NewMessage,
    ) -> Result<tokio::sync::oneshot::Receiver<Result<(), WriteError>>, WriteError> {
        let item = Item::Record {
            lane: message.lane,
            stream: message.stream,
            record: message.record,
            retained: message.retained,
            packet: message.packet,
        };
        let written = self.inner.outbox.enqueue(item, true)?;
        self.keeper.touch();
        Ok(written)
    }

    /// Takes a packet id from the client's unreleased ones; resolves when that is durable.
    pub async fn release(&self, packet: PacketRef) -> Result<(), WriteError> {
        let written = self.inner.outbox.enqueue(Item::Release(packet), false)?;
        written.await.unwrap_or(Err(WriteError::Closed))
    }

    /// Packet ids that were stored with messages of this client and not released.
    pub fn unreleased(&self, client: &str) -> Result<Vec<u16>, LedgerError> {
        let prefix = client_prefix(client);
        let mut ids = Vec::new();
        let ledger = &self.inner.ledger;
        ledger.scan(Table::Unreleased, &prefix, &mut |key, _| {
            let id = key.get(prefix.len()..).and_then(|id| id.try_into().ok());
            ids.extend(id.map(u16::from_be_bytes));
            true
        })?;
        Ok(ids)
    }

    /// Retained messages whose key begins with `prefix`, in the order of keys, until `visit` returns false.
    pub fn retained(
        &self,
        prefix: &str,
        visit: &mut dyn FnMut(Retained) -> bool,
    ) -> Result<(), LedgerError> {
        let ledger = &self.inner.ledger;
        ledger.scan(Table::Retained, prefix.as_bytes(), &mut |key, value| {
            match decode_retained(value) {
                Some(retained) => visit(retained),
                None => {
                    tracing::warn!(key = %String::from_utf8_lossy(key), "a retained message can not be read");
                    true
                }
            }
        })
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
            lane: Lane::DEFAULT,
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

    pub fn end(&self, log: LogId) -> End {
        self.log(log).end()
    }

    /// The oldest place that can still be read.
    pub fn oldest(&self, log: LogId) -> End {
        self.log(log).oldest()
    }

    /// Moves when something new is durable.
    pub fn watch(&self, log: LogId) -> watch::Receiver<End> {
        self.log(log).subscribe()
    }

    /// Reads whole frames of about `max_bytes`, at least one if there is one. Reading the disk is done on tokio's blocking threads.
    pub async fn read(
        self: &Arc<Self>,
        log: LogId,
        from: From,
        max_bytes: usize,
    ) -> io::Result<FrameRead> {
        if let Some(read) = self.log(log).read_tail(from, max_bytes) {
            return Ok(read);
        }
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.log(log).read(from, max_bytes))
            .await
            .map_err(io::Error::other)?
    }

    /// Where the uplink goes on after a reconnect: all before it is committed in the core.
    pub fn uplink(&self) -> End {
        *self.inner.uplink.lock()
    }

    /// The core has committed everything before `to`. Never goes back.
    pub fn advance_uplink(&self, to: End) {
        let mut uplink = self.inner.uplink.lock();
        if to.number > uplink.number {
            *uplink = to;
            drop(uplink);
            self.keeper.touch();
        }
    }

    /// Makes the cursors durable now.
    pub async fn checkpoint(&self) -> Result<(), LedgerError> {
        self.keeper.flush().await
    }

    /// Keeps a frame that the core will never take apart from the outbox. Blocks on the disk.
    pub fn quarantine(&self, frame: &Frame) -> io::Result<()> {
        self.quarantine.put(frame)
    }

    pub fn load_session(&self, client: &str) -> Result<Option<Session>, LedgerError> {
        self.inner.sessions.load(&*self.inner.ledger, client)
    }

    /// Resolves when durable.
    pub async fn save_session(&self, client: &str, session: Session) -> Result<(), SessionError> {
        let ledger = &*self.inner.ledger;
        self.inner.sessions.save(ledger, client, session)?;
        Ok(self.keeper.flush().await?)
    }

    /// Forgets a session and the unreleased packet ids of the client; resolves when that is durable.
    pub async fn delete_session(&self, client: &str) -> Result<(), LedgerError> {
        let mut rows = vec![Change::Delete {
            table: Table::Session,
            key: client.as_bytes().to_vec(),
        }];
        let ledger = &self.inner.ledger;
        let existed = ledger.get(Table::Session, client.as_bytes())?.is_some();
        ledger.scan(Table::Unreleased, &client_prefix(client), &mut |key, _| {
            rows.push(Change::Delete {
                table: Table::Unreleased,
                key: key.to_vec(),
            });
            true
        })?;
        self.inner.sessions.forget(client);
        if !existed && rows.len() == 1 {
            return Ok(());
        }
        ledger.apply(rows)?;
        self.keeper.flush().await
    }

    pub fn sessions(&self) -> Result<Vec<(String, Session)>, LedgerError> {
        self.inner.sessions.all(&*self.inner.ledger)
    }

    /// What a connected client may still read. Empty = it is gone.
    pub fn progress(&self, client: &str, positions: Vec<Checkpoint>) {
        self.inner.sessions.progress(client, positions);
        self.keeper.touch();
    }

    /// True after a failed sync: only opening the store again tells what is on the disk.
    pub fn failed(&self) -> bool {
        self.inner.outbox.failed() || self.inner.inbox.failed()
    }

    pub fn stats(&self) -> Stats {
        let inner = &self.inner;
        let (out, down) = (inner.outbox.counters(), inner.inbox.counters());
        let uplink = self.uplink();
        let count = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let pending = inner.outbox.end().position.saturating_sub(uplink.position);
        Stats {
            messages_in: count(&out.records),
            messages_down: count(&down.records),
            outbox_messages: pending,
            outbox_bytes: if pending == 0 {
                0
            } else {
                inner.outbox.bytes_from(uplink.position)
            },
            disk_bytes: inner.outbox.bytes() + inner.inbox.bytes(),
            payload_bytes: count(&out.payload_bytes) + count(&down.payload_bytes),
            bytes_written: count(&out.bytes_written) + count(&down.bytes_written),
            syncs: count(&out.syncs) + count(&down.syncs),
            refused: count(&out.refused) + count(&down.refused),
            damaged: count(&out.damaged) + count(&down.damaged),
            cut: self.cut,
            set_aside: self.set_aside.into(),
            epoch_raised: self.epoch_raised,
            quarantined: count(&self.quarantine.frames),
            sessions_lagging: count(&inner.sessions_lagging),
        }
    }

    /// Writes what waits and stops the threads. Blocks on the disk. Later writes are refused.
    pub fn close(&self) {
        self.inner.outbox.close();
        self.inner.inbox.close();
        self.keeper.close();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    /// Brings the ledger up to the logs, durably, then lets go of segments.
    fn checkpoint(&self) -> Result<(), LedgerError> {
        let uplink = *self.uplink.lock();
        let producer = self.outbox.producer;
        let mut rows = vec![
            Change::Put {
                table: Table::Identity,
                key: PRODUCER.to_vec(),
                value: [
                    &producer.id.to_be_bytes()[..],
                    &producer.epoch.to_be_bytes()[..],
                ]
                .concat(),
            },
            Change::Put {
                table: Table::Cursor,
                key: UPLINK.to_vec(),
                value: encode_end(uplink),
            },
        ];
        for (id, log) in [(LogId::Outbox, &self.outbox), (LogId::Inbox, &self.inbox)] {
            rows.push(Change::Put {
                table: Table::Cursor,
                key: log_key(id, "end"),
                value: encode_end(log.end()),
            });
        }
        let (outbox, inbox) = {
            let applied = self.applied.lock();
            let (outbox, inbox) = (applied.outbox, applied.inbox);
            rows.push(applied_row(LogId::Outbox, outbox));
            rows.push(applied_row(LogId::Inbox, inbox));
            self.ledger.apply(rows)?;
            (outbox, inbox)
        };
        self.ledger.flush()?;
        // A segment goes when the core has it, and when the ledger durably has what is to be remembered of it.
        let number = uplink.number.min(outbox);
        self.trim(LogId::Outbox, End { number, ..uplink });
        let number = inbox;
        let position = self.inbox.end().position;
        self.trim(LogId::Inbox, End { number, position });
        Ok(())
    }

    /// Deletes segments before `keep` that no session needs.
    fn trim(&self, id: LogId, mut keep: End) {
        let log = match id {
            LogId::Outbox => &self.outbox,
            LogId::Inbox => &self.inbox,
        };
        let oldest = log.position_before_end(self.config.session_bytes);
        let (lowest, lagging) = self.sessions.lowest(id, oldest);
        for client in lagging {
            self.sessions_lagging.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%client, log = id.name(), "a session is too far behind: it loses the oldest messages that it has not read");
        }
        if let Some(lowest) = lowest {
            keep.position = keep.position.min(lowest);
        }
        if let Err(error) = log.trim(keep) {
            tracing::warn!(log = id.name(), %error, "a segment can not be deleted");
        }
    }
}
