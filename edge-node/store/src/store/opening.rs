//! Opening a store: each log is brought to where its disk is, the ledger to where the logs are, and what the disk forgot is noted as a gap.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    Applied, Inner, LaneInfo, LaneLog, PRODUCER, Store, applied_row, clients, fresh_id, get_end,
    log_key, producer_row, uplink_row,
};
use crate::apply;
use crate::boots::Boots;
use crate::bound::Bound;
use crate::config::{Config, Eviction, LOCAL, LaneConfig};
use crate::delayed::DelayedMessages;
use crate::disk::{Disk, RealDisk};
use crate::frame::{Entry, Lane};
use crate::gap::{Gap, GapReason, Gaps, records_between};
use crate::hand::Hands;
use crate::keeper::Keeper;
use crate::lanes;
use crate::ledger::{Ledger, LedgerError, OneFailure, SledLedger, Table};
use crate::limits;
use crate::log::{End, Evicted, Hooks, Log, LogConfig, LogId, OnDurable, OnEvict};
use crate::quarantine::Quarantine;
use crate::recovery::{OpenError, Recovered, io_error, next_incarnation, recover, replay, survey};
use crate::retained::RetainedCount;
use crate::segment::Producer;
use crate::sessions::Sessions;
use crate::space::Space;
use crate::wire::Reader;

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

/// What all logs of a store have in common.
struct Shared<'a> {
    disk: &'a Arc<dyn Disk>,
    ledger: &'a Arc<OneFailure>,
    applied: &'a Arc<Mutex<Applied>>,
    retained: &'a Arc<RetainedCount>,
    space: &'a Arc<Space>,
    hands: Hands,
}

/// How much a log may have, and what goes where that is too much.
struct Room {
    bound: Arc<Bound>,
    /// Of the logs that share it, this one's goes first.
    goes_first: bool,
    sent: Arc<Mutex<End>>,
    on_evict: OnEvict,
}

/// A bound for each lane, by its name, which is that of another one where they share it.
fn bounds(found: &[lanes::FoundLane]) -> HashMap<String, Arc<Bound>> {
    let mut shared: HashMap<&str, Vec<&LaneConfig>> = HashMap::new();
    let configs: Vec<LaneConfig> = found.iter().map(bounds_of).collect();
    for config in &configs {
        let of = config.shares.as_deref().unwrap_or(&config.name);
        shared.entry(of).or_default().push(config);
    }
    let bounds = shared.into_iter().map(|(name, lanes)| {
        // That of the lane itself, if there is one of that name.
        let own = lanes.iter().find(|lane| lane.name == name);
        let max = own.or(lanes.first()).map_or(0, |lane| lane.max_bytes);
        (name.to_owned(), Bound::new(max, lanes.len()))
    });
    bounds.collect()
}

/// What a lane was configured with, or has when it is not any more.
fn bounds_of(lane: &lanes::FoundLane) -> LaneConfig {
    let config = lane.config.clone();
    config.unwrap_or_else(|| LaneConfig::new(&lane.name))
}

/// Opens one log and brings the ledger up to it.
fn open_log(
    shared: &Shared<'_>,
    dir: &Path,
    config: LogConfig,
    recovered: &Recovered,
    room: Room,
) -> Result<Log, OpenError> {
    let Shared {
        disk,
        ledger,
        applied,
        retained,
        space,
        hands,
    } = *shared;
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
            if let Err(error) = retained.apply(&**ledger, rows) {
                failed.get_or_insert(error);
            }
        }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }

    let next = recovered.state.next_number;
    applied.lock().logs.insert(id, next);
    let theirs = (ledger.clone(), applied.clone(), retained.clone());
    let on_durable: OnDurable = Box::new(move |entries: &[Entry]| {
        let (ledger, applied, retained) = &theirs;
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
            if let Err(error) = retained.apply(&**ledger, rows) {
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
            bound: room.bound,
            goes_first: room.goes_first,
            sent: room.sent,
            on_durable,
            on_evict: room.on_evict,
            dropped: dropped.unwrap_or_default(),
            space: space.clone(),
            hands,
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
    let records = records_between(from.position, known.position);
    gaps.add(lost(from.number, state.end(), records, Vec::new()))?;
    Ok(uplink)
}

/// Makes what keeps a gap for a segment before it is evicted.
fn note_evicted(
    lane: Lane,
    gaps: &Arc<Gaps>,
    uplink: &Arc<Mutex<End>>,
    ledger: &Arc<OneFailure>,
    count: &Arc<AtomicU64>,
) -> OnEvict {
    let (gaps, uplink, ledger) = (gaps.clone(), uplink.clone(), ledger.clone());
    let count = count.clone();
    Box::new(move |evicted: Evicted| {
        let uplink = *uplink.lock();
        // With the segment goes what a cursor from before it would find.
        let row = uplink_row(LogId::Outbox(lane), uplink);
        if uplink.number >= evicted.next.number {
            // The core has it. What else it means must be in the ledger.
            ledger.apply(vec![row])?;
            return ledger.flush();
        }
        let first = if uplink.number > evicted.first.number {
            uplink
        } else {
            evicted.first
        };
        let position = evicted.next.position;
        let all = records_between(evicted.first.position, position).max(1);
        let records = records_between(first.position, position);
        let dropped = evicted.dropped.iter();
        let dropped = dropped.filter(|(number, _)| *number >= first.number);
        let dropped: u64 = dropped.map(|(_, dropped)| dropped.records).sum();
        let gap = Gap {
            lane,
            reason: evicted.reason,
            first: first.number,
            next: evicted.next,
            records: records + dropped,
            bytes: u64::try_from(u128::from(evicted.bytes) * u128::from(records) / u128::from(all))
                .unwrap_or(u64::MAX),
            first_time: evicted.first_time,
            last_time: evicted.last_time,
            producer_id: evicted.landing.producer.id + i64::from(lane.0),
            epoch: evicted.landing.producer.epoch,
            sequences: evicted.landing.sequences,
        };
        gaps.add_with(gap, vec![row])?;
        // Those that were dropped are counted where that happens.
        count.fetch_add(records, Ordering::Relaxed);
        Ok(())
    })
}

impl Store {
    /// Opens the store of a data directory, or makes it: segments in `store`, sled in `ledger`. Blocks on the disk.
    pub fn open_in(data_dir: &Path, config: Config) -> Result<Store, OpenError> {
        let disk = Arc::new(RealDisk);
        let dir = data_dir.join("store");
        disk.create_dir(&dir).map_err(io_error(dir.display()))?;
        // Before sled: it does not open without room.
        drop(Space::open(disk.clone(), &dir).map_err(io_error(dir.display()))?);
        let mut ledger = SledLedger::open(&data_dir.join("ledger"))?;
        let set_aside = u32::from(ledger.set_aside.is_some()) + ledger.values_set_aside;
        let room = disk.room(&dir);
        if room.is_ok_and(|room| room > limits::LEDGER_REWRITE_ROOM) {
            ledger.add_checksums()?;
        }
        let mut store = Store::open(disk, Arc::new(ledger), &dir, config)?;
        store.set_aside += set_aside;
        Ok(store)
    }

    /// Opens the store in `dir`, or makes it. Blocks on the disk.
    pub fn open(
        disk: Arc<dyn Disk>,
        ledger: Arc<dyn Ledger>,
        dir: &Path,
        config: Config,
    ) -> Result<Store, OpenError> {
        Store::open_with(disk, ledger, dir, config, Hands::Threads)
    }

    /// Like [`Store::open`], without threads: the caller does their work with [`Store::step`].
    pub fn open_stepped(
        disk: Arc<dyn Disk>,
        ledger: Arc<dyn Ledger>,
        dir: &Path,
        config: Config,
    ) -> Result<Store, OpenError> {
        Store::open_with(disk, ledger, dir, config, Hands::Stepped)
    }

    fn open_with(
        disk: Arc<dyn Disk>,
        ledger: Arc<dyn Ledger>,
        dir: &Path,
        config: Config,
        hands: Hands,
    ) -> Result<Store, OpenError> {
        disk.create_dir(dir).map_err(io_error(dir.display()))?;
        let space = Arc::new(Space::open(disk.clone(), dir).map_err(io_error(dir.display()))?);
        let ledger = Arc::new(OneFailure::new(ledger, space.clone()));
        let outbox_dir = dir.join("outbox");
        let inbox_dir = dir.join("inbox");
        let found = lanes::survey_all(&*disk, &*ledger, &outbox_dir, &config)?;
        let inbox_survey = survey(&*disk, &inbox_dir, LogId::Inbox.kind())?;

        let mut logs: Vec<&[Producer]> = vec![&inbox_survey.producers];
        logs.extend(found.iter().map(|lane| &*lane.survey.producers));
        let known = get_producer(&*ledger)?;
        let producer = next_incarnation(known, &logs, fresh_id(config.random));
        // In both places before anything is written under it: here, and in the headers of the new segments.
        let mut rows = vec![producer_row(producer)];
        rows.extend(found.iter().map(lanes::FoundLane::row));
        ledger.apply(rows)?;
        ledger.flush()?;

        let gaps = Arc::new(Gaps::load(ledger.clone())?);
        let applied = Arc::new(Mutex::new(Applied::default()));
        let retained = Arc::new(RetainedCount::load(&*ledger)?);
        let shared = Shared {
            disk: &disk,
            ledger: &ledger,
            applied: &applied,
            retained: &retained,
            space: &space,
            hands,
        };
        let mut lanes = Vec::new();
        let mut cut = 0;
        let mut set_aside = 0;
        let shared_bounds = bounds(&found);
        for lane in found {
            let id = LogId::Outbox(lane.number);
            let dir = outbox_dir.join(&*lane.name);
            set_aside += lane.survey.set_aside;
            let end = get_end(&*ledger, Table::Cursor, &log_key(id, "end"))?;
            let bounds = bounds_of(&lane);
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
            let shares = bounds.shares.as_ref().unwrap_or(&bounds.name);
            let bound = shared_bounds.get(shares).cloned();
            let bound = bound.unwrap_or_else(|| Bound::new(bounds.max_bytes, 1));
            let log_config = LogConfig {
                id,
                name: lane.name.clone(),
                // A lane that evicts must have more than a few of them.
                segment_bytes: config.segment_bytes.min(bound.part()),
                max_age: bounds.max_age,
                eviction: bounds.eviction,
                compression: bounds.compression,
                linger: bounds.linger,
            };
            let evicted = Arc::new(AtomicU64::new(0));
            let on_evict = if is_local {
                let ledger = ledger.clone();
                Box::new(move |_| ledger.flush()) as OnEvict
            } else {
                note_evicted(lane.number, &gaps, &uplink, &ledger, &evicted)
            };
            let room = Room {
                bound,
                goes_first: bounds.shares.is_some(),
                sent: uplink.clone(),
                on_evict,
            };
            let log = open_log(&shared, &dir, log_config, &recovered, room)?;
            let dropped_before = log.dropped().records;
            lanes.push(LaneLog {
                info: LaneInfo {
                    lane: lane.number,
                    name: lane.name,
                    configured: lane.config.is_some(),
                },
                log,
                uplink,
                evicted,
                dropped_before,
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
            max_age: None,
            eviction: Eviction::Reject,
            compression: record::Compression::None,
            linger: std::time::Duration::ZERO,
        };
        let inbox = open_log(
            &shared,
            &inbox_dir,
            log_config,
            &inbox_found,
            // It has no bound.
            Room {
                bound: Bound::new(u64::MAX, 1),
                goes_first: false,
                sent: Arc::default(),
                on_evict: Box::new(|_| Ok(())),
            },
        )?;
        let quarantine = dir.join("quarantine");
        let quarantine =
            Quarantine::open(disk.clone(), &quarantine).map_err(io_error(quarantine.display()))?;

        let sessions = Sessions::load_all(&*ledger)?;
        clients::forget_wills_of_nobody(&sessions, &*ledger)?;
        clients::forget_packets_of_nobody(&sessions, &*ledger)?;
        let boots = Boots::load(&*ledger)?;
        let inner = Arc::new(Inner {
            lanes,
            inbox,
            producer: Mutex::new(producer),
            sessions,
            delayed: DelayedMessages::load(&*ledger, &boots)?,
            boots,
            gaps,
            space,
            ledger,
            applied,
            retained,
            config,
            sessions_lagging: AtomicU64::new(0),
        });
        inner.checkpoint()?;
        let theirs = inner.clone();
        let keeper = Keeper::start(hands, move || theirs.checkpoint())
            .map_err(io_error("the keeper's thread"))?;
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
}
