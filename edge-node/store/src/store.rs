//! The store as the node sees it.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use record::{Batch, NewRecord, StreamName};
use tokio::sync::watch;

use crate::apply::{self, Retained, client_prefix, decode_retained, packet_prefix};
use crate::boots::Boots;
use crate::config::{Config, Eviction, LOCAL, LaneConfig};
use crate::disk::Disk;
use crate::frame::{Entry, Frame, Lane, Origin, PacketRef, View};
use crate::gap::{Gap, GapReason, Gaps};
use crate::keeper::Keeper;
use crate::lanes;
use crate::ledger::{Change, Ledger, LedgerError, Table};
use crate::log::{
    End, Evicted, FrameRead, From, Hole, Hooks, Log, LogConfig, LogId, OnDurable, OnEvict,
    WriteError,
};
use crate::progress::Progress;
use crate::quarantine::Quarantine;
use crate::recovery::{OpenError, Recovered, io_error, next_incarnation, recover, replay, survey};
use crate::segment::Producer;
use crate::sessions::{Checkpoint, Session, SessionError, Sessions};
use crate::space::Space;
use crate::stats::{self, LaneStats, Stats};
use crate::wire::Reader;
use crate::writer::{Control, Item};

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
}

struct Inner {
    /// In the order of their numbers.
    lanes: Vec<LaneLog>,
    inbox: Log,
    producer: Mutex<Producer>,
    ledger: Arc<dyn Ledger>,
    gaps: Arc<Gaps>,
    boots: Boots,
    space: Arc<Space>,
    started: Instant,
    sessions: Sessions,
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
    /// The end of a log that is not there: never moves.
    nothing: watch::Sender<End>,
    cut: u64,
    set_aside: u32,
}

/// Frames of a lane for the core, and before them the gap that stands there.
#[derive(Debug, Clone, Default)]
pub struct OutboxRead {
    /// Comes before the frames.
    pub gap: Option<Gap>,
    pub frames: Vec<Arc<Frame>>,
    /// Where to read on.
    pub next: End,
}

const PRODUCER: &[u8] = b"producer";

fn log_key(id: LogId, what: &str) -> Vec<u8> {
    format!("{what}/{id}").into_bytes()
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
            previous: Some(r.get_i64().ok()?).filter(|id| *id >= 0),
        })
    }))
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
    recovered: &Recovered,
    on_evict: OnEvict,
    space: Arc<Space>,
) -> Result<Log, OpenError> {
    let id = config.id;
    let dropped = ledger.get(Table::Cursor, &log_key(id, "dropped"))?;
    let dropped = dropped.and_then(|value| {
        let mut r = Reader(value);
        Some((r.get_u64().ok()?, r.get_u64().ok()?))
    });
    let from = ledger.get(Table::Cursor, &log_key(id, "applied"))?;
    let from = from.and_then(|v| Reader(v).get_u64().ok()).unwrap_or(0);
    let lane = recovered.state.lane;
    let mut failed = None;
    replay(&**disk, &recovered.segments, from, &mut |entry| {
        let number = entry.number();
        let mut rows = Vec::new();
        apply::changes(lane, std::slice::from_ref(&entry), &mut rows);
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

    let next = recovered.state.next_number;
    applied.lock().logs.insert(id, next);
    let theirs = (ledger.clone(), applied.clone());
    let on_durable: OnDurable = Box::new(move |entries: &[Entry]| {
        let (ledger, applied) = &theirs;
        let Some(next) = entries.last().map(|last| last.number() + 1) else {
            return;
        };
        let mut rows = Vec::new();
        apply::changes(lane, entries, &mut rows);
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
        applied.logs.insert(id, next);
    });
    Log::start(
        config,
        disk.clone(),
        dir,
        recovered.state.clone(),
        recovered.segments.clone(),
        recovered.active.clone(),
        Hooks {
            on_durable,
            on_evict,
            dropped: dropped.unwrap_or_default(),
            space,
        },
    )
    .map_err(io_error(dir.display()))
}

/// Where the uplink of a lane goes on, and the gap that it meets first if the disk forgot what it had.
fn settle_cursor(
    gaps: &Gaps,
    lane: Lane,
    uplink: Option<End>,
    known: Option<End>,
    recovered: &Recovered,
) -> Result<End, LedgerError> {
    let state = &recovered.state;
    let oldest = recovered.segments.iter().next();
    let oldest = oldest.map_or(state.end(), |(number, segment)| End {
        number: *number,
        position: segment.first_position,
    });
    let producer = state.producer;
    let lost = |first: u64, next: End, records: u64, sequences| Gap {
        lane,
        reason: GapReason::Lost,
        first,
        next,
        records,
        bytes: 0,
        first_time: state.last.ms,
        last_time: -1,
        producer_id: producer.id + i64::from(lane.0),
        epoch: producer.epoch,
        sequences,
    };
    let Some(uplink) = uplink else {
        // Without the ledger nobody knows what of the beginning the core has, or what else was to be told of it.
        if let Some(first) = &recovered.oldest
            && oldest.number > 1
        {
            let sequences = first.sequences.clone().into_iter().collect();
            let mut gap = lost(1, oldest, 0, sequences);
            gap.producer_id = first.producer.id + i64::from(lane.0);
            gap.epoch = first.producer.epoch;
            gap.first_time = -1;
            gap.last_time = first.last.ms;
            gaps.add(gap)?;
            return Ok(End {
                number: 1,
                position: oldest.position,
            });
        }
        return Ok(oldest);
    };
    let Some((found, known)) = recovered.lost_from.zip(known) else {
        return Ok(uplink.min_by_number(state.end()));
    };
    if uplink.number >= known.number {
        // The core has it all.
        return Ok(state.end());
    }
    let from = if found.number > uplink.number {
        found
    } else {
        uplink
    };
    let records = known.position.saturating_sub(from.position);
    gaps.add(lost(from.number, state.end(), records, Vec::new()))?;
    Ok(uplink)
}

/// Makes what keeps a gap for a segment before it is evicted.
fn note_evicted(
    lane: Lane,
    gaps: &Arc<Gaps>,
    uplink: &Arc<Mutex<End>>,
    ledger: &Arc<dyn Ledger>,
) -> OnEvict {
    let (gaps, uplink, ledger) = (gaps.clone(), uplink.clone(), ledger.clone());
    Box::new(move |evicted: Evicted| {
        let uplink = *uplink.lock();
        if uplink.number >= evicted.next.number {
            // The core has it. What else it means must be in the ledger.
            return ledger.flush();
        }
        let first = if uplink.number > evicted.first.number {
            uplink
        } else {
            evicted.first
        };
        let position = evicted.next.position;
        let all = position.saturating_sub(evicted.first.position).max(1);
        let records = position.saturating_sub(first.position);
        gaps.add(Gap {
            lane,
            reason: evicted.reason,
            first: first.number,
            next: evicted.next,
            records,
            bytes: u64::try_from(u128::from(evicted.bytes) * u128::from(records) / u128::from(all))
                .unwrap_or(u64::MAX),
            first_time: evicted.first_time,
            last_time: evicted.last_time,
            producer_id: evicted.landing.producer.id + i64::from(lane.0),
            epoch: evicted.landing.producer.epoch,
            sequences: evicted.landing.sequences,
        })
    })
}

impl Store {
    /// Opens the store in `dir`, or makes it. Blocks on the disk.
    pub fn open(
        disk: Arc<dyn Disk>,
        ledger: Arc<dyn Ledger>,
        dir: &Path,
        config: Config,
    ) -> Result<Store, OpenError> {
        let outbox_dir = dir.join("outbox");
        let inbox_dir = dir.join("inbox");
        let found = lanes::survey_all(&*disk, &*ledger, &outbox_dir, &config)?;
        let inbox_survey = survey(&*disk, &inbox_dir, LogId::Inbox.kind())?;

        let mut known: Vec<Producer> = get_producer(&*ledger)?.into_iter().collect();
        known.extend(inbox_survey.producers.iter());
        known.extend(found.iter().flat_map(|lane| &lane.survey.producers));
        let producer = next_incarnation(&known, fresh_id(config.random));
        // In both places before anything is written under it: here, and in the headers of the new segments.
        let mut rows = vec![producer_row(producer)];
        rows.extend(found.iter().map(lanes::FoundLane::row));
        ledger.apply(rows)?;
        ledger.flush()?;

        let space = Arc::new(Space::open(disk.clone(), dir).map_err(io_error(dir.display()))?);
        let gaps = Arc::new(Gaps::load(ledger.clone())?);
        let applied = Arc::new(Mutex::new(Applied::default()));
        let mut lanes = Vec::new();
        let mut cut = 0;
        let mut set_aside = 0;
        for lane in found {
            let id = LogId::Outbox(lane.number);
            let dir = outbox_dir.join(&*lane.name);
            set_aside += lane.survey.set_aside;
            let end = get_end(&*ledger, Table::Cursor, &log_key(id, "end"))?;
            let recovered = recover(&*disk, lane.survey, id, end, producer)?;
            cut += recovered.cut;
            let uplink = get_end(&*ledger, Table::Cursor, &log_key(id, "uplink"))?;
            // Of what only local readers get, the core hears nothing.
            let is_local = *lane.name == *LOCAL;
            let uplink = if is_local {
                recovered.state.end()
            } else {
                settle_cursor(&gaps, lane.number, uplink, end, &recovered)?
            };
            let uplink = Arc::new(Mutex::new(uplink));
            let bounds = lane.config.clone();
            let bounds = bounds.unwrap_or_else(|| LaneConfig::new(&lane.name));
            let log_config = LogConfig {
                id,
                name: lane.name.clone(),
                // A lane that evicts must have more than a few of them.
                segment_bytes: config.segment_bytes.min(bounds.max_bytes / 8),
                max_bytes: bounds.max_bytes,
                max_age: bounds.max_age,
                eviction: bounds.eviction,
                compression: bounds.compression,
            };
            let on_evict = if is_local {
                let ledger = ledger.clone();
                Box::new(move |_| ledger.flush()) as OnEvict
            } else {
                note_evicted(lane.number, &gaps, &uplink, &ledger)
            };
            let log = open_log(
                &disk,
                &ledger,
                &applied,
                &dir,
                log_config,
                &recovered,
                on_evict,
                space.clone(),
            )?;
            lanes.push(LaneLog {
                info: LaneInfo {
                    lane: lane.number,
                    name: lane.name,
                    configured: lane.config.is_some(),
                },
                log,
                uplink,
            });
        }

        set_aside += inbox_survey.set_aside;
        let end = get_end(&*ledger, Table::Cursor, &log_key(LogId::Inbox, "end"))?;
        let inbox_found = recover(&*disk, inbox_survey, LogId::Inbox, end, producer)?;
        cut += inbox_found.cut;
        let log_config = LogConfig {
            id: LogId::Inbox,
            name: "inbox".into(),
            segment_bytes: config.segment_bytes,
            max_bytes: u64::MAX,
            max_age: None,
            eviction: Eviction::Reject,
            compression: record::Compression::None,
        };
        let inbox = open_log(
            &disk,
            &ledger,
            &applied,
            &inbox_dir,
            log_config,
            &inbox_found,
            // It has no bound.
            Box::new(|_| Ok(())),
            space.clone(),
        )?;
        let quarantine = dir.join("quarantine");
        let quarantine =
            Quarantine::open(disk.clone(), &quarantine).map_err(io_error(quarantine.display()))?;

        let inner = Arc::new(Inner {
            lanes,
            inbox,
            producer: Mutex::new(producer),
            sessions: Sessions::load_all(&*ledger)?,
            boots: Boots::load(&*ledger)?,
            gaps,
            space,
            started: Instant::now(),
            ledger,
            applied,
            config,
            sessions_lagging: AtomicU64::new(0),
        });
        inner.checkpoint()?;
        let theirs = inner.clone();
        let keeper =
            Keeper::start(move || theirs.checkpoint()).map_err(io_error("the keeper's thread"))?;
        Ok(Store {
            inner,
            keeper,
            quarantine,
            origins: Mutex::new(inbox_found.state.origins),
            nothing: watch::Sender::new(End::default()),
            cut,
            set_aside,
        })
    }

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

    /// Retained messages whose key begins with `prefix`, in the order of keys, until `visit` returns false.
    pub fn retained(
        &self,
        prefix: &str,
        visit: &mut dyn FnMut(Retained) -> bool,
    ) -> Result<(), LedgerError> {
        let ledger = &self.inner.ledger;
        ledger.scan(Table::Retained, prefix.as_bytes(), &mut |key, value| {
            match decode_retained(key, value) {
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

    /// Reads a lane for the core, from the end of what was read before: a gap if one is there, then whole frames up to the next gap, about
    /// `max_bytes`, at least one if there is one.
    pub async fn read_outbox(
        self: &Arc<Self>,
        lane: Lane,
        from: End,
        max_bytes: usize,
    ) -> io::Result<OutboxRead> {
        let store = self.clone();
        let read = tokio::task::spawn_blocking(move || store.read_lane(lane, from, max_bytes));
        read.await.map_err(io::Error::other)?
    }

    fn read_lane(&self, lane: Lane, from: End, max_bytes: usize) -> io::Result<OutboxRead> {
        let inner = &self.inner;
        let Some(log) = self.log(LogId::Outbox(lane)) else {
            return Ok(OutboxRead::default());
        };
        let mut gap = inner.gaps.tell(lane, from.number);
        let mut start = gap.as_ref().map_or(from, |gap| gap.next);
        let mut read = log.read_to_hole(start, max_bytes)?;
        if let Some(hole) = read.hole.take() {
            if gap.is_some() {
                // The one gap, then the other.
                return Ok(OutboxRead {
                    gap,
                    frames: Vec::new(),
                    next: start,
                });
            }
            let found = match hole {
                // Where a segment was evicted while this was read, the gap is there by now.
                Hole::Missing { next } => match inner.gaps.tell(lane, start.number) {
                    Some(gap) => gap,
                    None => self.note_missing(lane, log, start, next)?,
                },
                Hole::Dropped(dropped) => Gap {
                    lane,
                    reason: GapReason::EvictedBytes,
                    first: start.number,
                    next: End {
                        number: start.number + 1,
                        ..start
                    },
                    records: dropped.records,
                    bytes: dropped.bytes,
                    first_time: dropped.first_time,
                    last_time: dropped.last_time,
                    producer_id: self.producer().id + i64::from(lane.0),
                    epoch: self.producer().epoch,
                    sequences: Vec::new(),
                },
            };
            start = found.next;
            gap = Some(found);
            read = log.read_to_hole(start, max_bytes)?;
            if read.hole.is_some() {
                read.next = start;
            }
        }
        // A frame that was refused stands there still, and is behind its gap.
        if let Some(stop) = inner.gaps.after(lane, start.number.saturating_sub(1)) {
            let before = read.frames.partition_point(|frame| frame.number < stop);
            if let Some(frame) = read.frames.get(before) {
                read.next = End {
                    number: stop,
                    position: frame.position,
                };
                read.frames.truncate(before);
            }
        }
        Ok(OutboxRead {
            gap,
            frames: read.frames,
            next: read.next,
        })
    }

    /// Keeps a gap for entries that are not where they should be.
    fn note_missing(&self, lane: Lane, log: &Log, first: End, next: u64) -> io::Result<Gap> {
        let landing = log.landing(next)?;
        let gap = Gap {
            lane,
            reason: GapReason::Damaged,
            first: first.number,
            next: landing.next,
            records: landing.next.position.saturating_sub(first.position),
            bytes: 0,
            first_time: -1,
            last_time: landing.time,
            producer_id: landing.producer.id + i64::from(lane.0),
            epoch: landing.producer.epoch,
            sequences: landing.sequences,
        };
        let gaps = &self.inner.gaps;
        gaps.add(gap.clone()).map_err(io::Error::other)?;
        Ok(gaps.tell(lane, first.number).unwrap_or(gap))
    }

    /// Where the uplink of a lane goes on after a reconnect: all before it is committed in the core.
    pub fn uplink(&self, lane: Lane) -> End {
        let lane = self.inner.lane(lane);
        lane.map(LaneLog::sent).unwrap_or_default()
    }

    /// The core has committed everything of the lane before `to`. Never goes back.
    pub fn advance_uplink(&self, lane: Lane, to: End) {
        let Some(lane) = self.inner.lane(lane) else {
            return;
        };
        let mut uplink = lane.uplink.lock();
        if to.number > uplink.number {
            *uplink = to;
            drop(uplink);
            if let Err(error) = self.inner.gaps.settle(lane.info.lane, to.number) {
                tracing::warn!(%error, "a gap that the core knows can not be forgotten");
            }
            self.keeper.touch();
        }
    }

    /// Gaps that the core has not been told of yet, by lane and place.
    pub fn gaps(&self) -> Vec<Gap> {
        self.inner.gaps.all()
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
        self.keeper.flush().await
    }

    /// Boots whose offset is known, in order.
    pub fn boot_offsets(&self) -> Vec<(u64, i64)> {
        self.inner.boots.all()
    }

    /// Takes a fresh producer id, after a new enrolment of an edge that was fenced as a copy. What is in the outbox is set aside in the
    /// quarantine, as far as there is room, and the core will be told of it as a gap: nobody can say which of it the core has. Blocks on
    /// the disk.
    pub fn fresh_identity(&self, random: u64) -> io::Result<Producer> {
        let inner = &self.inner;
        let producer = {
            let mut producer = inner.producer.lock();
            *producer = Producer {
                id: fresh_id(random),
                previous: Some(producer.id),
                epoch: 0,
            };
            *producer
        };
        inner
            .ledger
            .apply(vec![producer_row(producer)])
            .and_then(|()| inner.ledger.flush())
            .map_err(io::Error::other)?;
        for (id, log) in inner.logs() {
            let became = log.control(Control::Become(producer));
            let became = became.blocking_recv().unwrap_or(Err(WriteError::Closed));
            became.map_err(io::Error::other)?;
            let LogId::Outbox(lane) = id else { continue };
            let from = self.uplink(lane);
            let (end, segments) = log.written_before(producer);
            if from.number >= end.number {
                continue;
            }
            for (name, path) in segments {
                self.quarantine
                    .keep_segment(&format!("fenced-{}-{name}", lane.0), &path)?;
            }
            let gap = Gap {
                lane,
                reason: GapReason::Fenced,
                first: from.number,
                next: end,
                records: end.position.saturating_sub(from.position),
                bytes: log.bytes_from(from.position),
                first_time: -1,
                last_time: -1,
                producer_id: producer.id + i64::from(lane.0),
                epoch: producer.epoch,
                sequences: Vec::new(),
            };
            inner.gaps.add(gap).map_err(io::Error::other)?;
        }
        Ok(producer)
    }

    /// Makes the cursors durable now.
    pub async fn checkpoint(&self) -> Result<(), LedgerError> {
        self.keeper.flush().await
    }

    /// Keeps a frame that the core will never take apart from the outbox, and a gap in its place, which [`Store::read_outbox`] gives from
    /// then on. Blocks on the disk.
    pub fn quarantine(&self, frame: &Frame) -> io::Result<()> {
        self.quarantine.put(frame)?;
        let gap = Gap {
            lane: frame.lane,
            reason: GapReason::Refused,
            first: frame.number,
            next: End {
                number: frame.number + 1,
                position: frame.end(),
            },
            records: frame.batch.record_count().into(),
            bytes: frame.batch.len() as u64,
            first_time: frame.batch.base_timestamp(),
            last_time: frame.batch.max_timestamp(),
            producer_id: frame.batch.producer_id(),
            epoch: frame.batch.producer_epoch(),
            sequences: vec![(
                frame.stream.clone(),
                record::next_sequence(frame.batch.last_sequence()),
            )],
        };
        self.inner.gaps.add(gap).map_err(io::Error::other)
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
        self.inner.logs().any(|(_, log)| log.failed())
    }

    /// Of every thread that writes, in the same order at each call.
    pub fn writers(&self) -> Vec<Progress> {
        let logs = self.inner.logs();
        logs.map(|(_, log)| log.progress())
            .chain([self.keeper.progress()])
            .collect()
    }

    pub fn stats(&self) -> Stats {
        let inner = &self.inner;
        let count = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let mut stats = Stats {
            messages_down: count(&inner.inbox.counters().records),
            cut: self.cut,
            set_aside: self.set_aside.into(),
            quarantined: count(&self.quarantine.frames),
            sessions_lagging: count(&inner.sessions_lagging),
            gaps: inner.gaps.all().len() as u64,
            disk_full: inner.space.is_full(),
            device_bytes: stats::device_bytes(),
            running_ms: inner.started.elapsed().as_millis() as u64,
            ..Stats::default()
        };
        for (_, log) in inner.logs() {
            let counters = log.counters();
            stats.disk_bytes += log.bytes();
            stats.payload_bytes += count(&counters.payload_bytes);
            stats.bytes_written += count(&counters.bytes_written);
            stats.syncs += count(&counters.syncs);
            stats.refused += count(&counters.refused);
            stats.damaged += count(&counters.damaged);
        }
        for lane in &inner.lanes {
            let lane = lane.stats();
            stats.messages_in += lane.messages_in;
            stats.outbox_messages += lane.messages;
            stats.outbox_bytes += lane.bytes;
        }
        stats
    }

    /// What one lane looks like, in the order of [`Store::lanes`].
    pub fn lane_stats(&self) -> Vec<(LaneInfo, LaneStats)> {
        let lanes = self.inner.lanes.iter().filter(|lane| !lane.is_local());
        lanes
            .map(|lane| (lane.info.clone(), lane.stats()))
            .collect()
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

    fn stats(&self) -> LaneStats {
        let uplink = self.sent();
        let messages = self.log.end().position.saturating_sub(uplink.position);
        LaneStats {
            messages_in: self.log.counters().records.load(Ordering::Relaxed),
            messages,
            bytes: if messages == 0 {
                0
            } else {
                self.log.bytes_from(uplink.position)
            },
            disk_bytes: self.log.bytes(),
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
        let mut put_end = |what: &str, id: LogId, end: End| {
            rows.push(Change::Put {
                table: Table::Cursor,
                key: log_key(id, what),
                value: encode_end(end),
            });
        };
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
            self.ledger.apply(rows)?;
        }
        self.ledger.flush()?;
        for (id, keep) in done {
            self.trim(id, keep);
        }
        self.space.try_again();
        Ok(())
    }

    /// Deletes segments before `keep` that no session needs.
    fn trim(&self, id: LogId, mut keep: End) {
        let Some(log) = self.log(id) else { return };
        let oldest = log.position_before_end(self.config.session_bytes);
        let (lowest, lagging) = self.sessions.lowest(id, oldest);
        for client in lagging {
            self.sessions_lagging.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%client, log = %id, "a session is too far behind: it loses the oldest messages that it has not read");
        }
        if let Some(lowest) = lowest {
            keep.position = keep.position.min(lowest);
        }
        if let Err(error) = log.trim(keep) {
            tracing::warn!(log = %id, %error, "a segment can not be deleted");
        }
    }
}
