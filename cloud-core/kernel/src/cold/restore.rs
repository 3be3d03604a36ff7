//! When the disk has died: a fresh data directory from what is in the cold store. What was sealed is readable again; what was only in the WAL
//! is lost. No offset is used twice.

mod replay;

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::claim::{create_epoch, epochs};
use super::streams::newest_list;
use super::tend::checkpoints;
use super::{Located, Owner};
use crate::checkpoint;
use crate::error::OpenError;
use crate::limits::{RESTORED_OFFSETS, RESTORED_PRODUCER_IDS};
use crate::ports::cold::{ColdError, ColdStore};
use crate::ports::{Disk, Ports};
use crate::segment::{self, Footer, SegmentError, SegmentId, TRAILER_BYTES, Trailer};
use crate::snapshot::{self, SnapshotHead};
use crate::state::State;
use crate::state::cold::{ColdRange, SegmentState};
use crate::state::producer::{self, Sent};
use crate::stream::{Stream, StreamId};
use crate::wal;
use crate::wal::recover::io_error;

/// What came of a restoration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Name of the log, as before.
    pub log: Uuid,
    /// Its epoch from now on: whoever still runs on the old data directory can not write to the store any more.
    pub epoch: u32,
    /// Newest entry of the checkpoint that was used; `None` = there was no sound one. Then tables, cursors and queues are lost, and streams and
    /// records alone are back.
    pub checkpoint: Option<u64>,
    /// Entry up to which the streams are known for sure: that of the list of streams, or of the checkpoint where nothing came to be listed after it.
    /// `None` = the list that was newest is not sound, or there is none. Then streams that were made after the checkpoint come back with the
    /// default configuration, and those that were deleted come back as well.
    pub stream_list: Option<u64>,
    /// Streams, partitions, and segments that can be read.
    pub streams: u64,
    /// See `streams`.
    pub partitions: u64,
    /// See `streams`.
    pub segments: u64,
    /// Bytes of batches that can be read.
    pub bytes: u64,
    /// Objects that could not be used, and why.
    pub damaged: Vec<(String, String)>,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is something in the data directory.
    #[error(
        "{0} is not empty: restore into a new data directory, and keep the old one until you know that nothing in it is needed"
    )]
    NotEmpty(&'static str),
    /// There is no log in the cold store.
    #[error("there is no log in {0}")]
    NoLog(String),
    /// There is more than one; the caller must say which.
    #[error("there are several logs; say which one: {0:?}")]
    SeveralLogs(Vec<Uuid>),
    /// The cold store failed.
    #[error(transparent)]
    Store(#[from] ColdError),
    /// The data directory could not be written.
    #[error(transparent)]
    Disk(#[from] OpenError),
}

/// Builds the first checkpoint of an empty data directory from the cold store; open it afterwards as ever. `log`: which, if there are
/// several. Everything is taken from the newest sound checkpoint there and from the footers of the segments that were sealed after it; hot batches
/// are gone. Ends move on by [`RESTORED_OFFSETS`]; readers see that when something is written there, not before. Of producers only
/// what is in the segments is known (they may go on anywhere after it), transactions that were open are
/// aborted by the first write of whoever opens it.
pub async fn restore(ports: &Ports, log: Option<Uuid>) -> Result<Restored, RestoreError> {
    let disk = &*ports.disk;
    let _lock = empty_directory(disk)?;
    let store = &*ports.cold;
    let log = match log {
        Some(log) => log,
        None => only_log(store).await?,
    };
    let mut damaged = Vec::new();
    let (state, head, newest) = newest_checkpoint(store, log, &mut damaged).await?;
    let present: BTreeMap<SegmentId, u64> = store
        .list(&segment::prefix(log))
        .await?
        .into_iter()
        .filter_map(|object| Some((SegmentId::of_key(log, &object.key)?, object.bytes)))
        .collect();
    let (list, newest_list) = newest_list(store, log, &mut damaged).await?;
    if head.is_none() && present.is_empty() && list.is_none() {
        return Err(RestoreError::NoLog(store.location()));
    }
    let known_to = head.map(|head| head.index);
    // Of two that know the streams, the newer one.
    let list = list.filter(|(index, _)| known_to.is_none_or(|known| *index >= known));
    let listed = list.as_ref().map(|(index, _)| *index);
    // A list is written whenever the streams change. Where the newest is older than the checkpoint, sound or not, none did since.
    let stream_list = listed.or(known_to.filter(|known| (1..=*known).contains(&newest_list)));
    if let Some((_, list)) = list {
        list.apply(&state);
    }
    let known: BTreeSet<SegmentId> = state.cold.lock().segments.keys().copied().collect();
    // Those of an earlier epoch that the checkpoint does not name had been replaced before, or never came to be named.
    let epoch = head.map_or(0, |_| state.cold.lock().epoch);
    let is_news = |id: &SegmentId| id.epoch() >= epoch && !known.contains(id);
    let mut footers = Vec::new();
    for (id, size) in present.iter().filter(|(id, _)| is_news(id)) {
        match footer(store, log, *id, *size).await {
            Ok(found) => footers.push(found),
            Err(FooterError::Store(error)) => return Err(error.into()),
            Err(FooterError::Damaged(error)) => {
                damaged.push((id.key(log), error.to_string()));
            }
        }
    }
    let deleted_below = if head.is_some() || listed.is_some() {
        state.directory.read().next_stream
    } else {
        0
    };
    add_streams(&state, &footers, deleted_below, ports.clock.now_ms());
    let mut order = newest.max(newest_list).max(known_to.unwrap_or_default());
    for (located, footer) in &footers {
        let segment = SegmentState {
            bytes: located.bytes,
            footer_bytes: located.footer_bytes,
            footer_crc: located.footer_crc,
            live_bytes: 0,
            live_ranges: 0,
        };
        state.cold.lock().segments.insert(located.id, segment);
        order = order.max(add_ranges(&state, footer));
    }
    drop_missing(&state, &present);
    replay::replay(&state, store, &footers).await?;
    settle(&state);
    let owner = take_epoch(store, log, &state).await?;
    let index = order + 1;
    let head_now = SnapshotHead {
        index,
        stamp: ports.clock.now_ms(),
        ..SnapshotHead::default()
    };
    let snapshot = snapshot::take(&state, head_now, snapshot::room(&state));
    checkpoint::save(disk, index, &snapshot.encode()).map_err(io_error("write", "checkpoint"))?;
    let cold = state.cold.lock();
    let directory = state.directory.read();
    Ok(Restored {
        log,
        epoch: owner.epoch,
        checkpoint: known_to,
        stream_list,
        streams: directory.by_id.len() as u64,
        partitions: directory.partitions.len() as u64,
        segments: cold.segments.len() as u64,
        bytes: cold.segments.values().map(|s| s.live_bytes).sum(),
        damaged,
    })
}

/// Makes and locks the directories of a kernel, which must hold nothing.
fn empty_directory(disk: &dyn Disk) -> Result<Box<dyn Send + Sync>, RestoreError> {
    for directory in [wal::DIRECTORY, checkpoint::DIRECTORY] {
        disk.create_dir(directory)
            .map_err(io_error("create", directory))?;
        let names = disk.list(directory).map_err(io_error("list", directory))?;
        if !names.is_empty() {
            return Err(RestoreError::NotEmpty(directory));
        }
    }
    let lock = disk.lock(crate::kernel::LOCK);
    let lock = lock.map_err(io_error("lock", crate::kernel::LOCK))?;
    disk.sync_dir("")
        .map_err(io_error("sync", "the data directory"))?;
    Ok(lock.ok_or(OpenError::Locked)?)
}

async fn only_log(store: &dyn ColdStore) -> Result<Uuid, RestoreError> {
    let objects = store.list("").await?;
    let logs: BTreeSet<Uuid> = objects
        .iter()
        .filter_map(|object| object.key.split_once('/')?.0.parse().ok())
        .collect();
    let mut logs: Vec<Uuid> = logs.into_iter().collect();
    match (logs.pop(), logs.is_empty()) {
        (Some(log), true) => Ok(log),
        (Some(log), false) => {
            logs.push(log);
            Err(RestoreError::SeveralLogs(logs))
        }
        (None, _) => Err(RestoreError::NoLog(store.location())),
    }
}

/// The state of the newest checkpoint that is sound, and the index of the newest there is.
async fn newest_checkpoint(
    store: &dyn ColdStore,
    log: Uuid,
    damaged: &mut Vec<(String, String)>,
) -> Result<(State, Option<SnapshotHead>, u64), RestoreError> {
    let prefix = checkpoints(log);
    let mut found: Vec<(u64, String, u64)> = store
        .list(&prefix)
        .await?
        .into_iter()
        .filter_map(|object| {
            let index = checkpoint::index_of(object.key.strip_prefix(&prefix)?)?;
            Some((index, object.key, object.bytes))
        })
        .collect();
    found.sort_unstable();
    let newest = found.last().map_or(0, |(index, _, _)| *index);
    for (index, key, size) in found.into_iter().rev() {
        let bytes = match store.get(&key, 0..size).await {
            Ok(bytes) => bytes,
            Err(ColdError::NotFound(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        // Nothing stays in memory of what is read: this state is only written down.
        let state = State::new(0);
        match checkpoint::parse(index, bytes, &state) {
            Ok(head) => return Ok((state, Some(head), newest)),
            Err(error @ OpenError::NewerVersion { .. }) => return Err(error.into()),
            Err(error) => damaged.push((key, error.to_string())),
        }
    }
    Ok((State::new(0), None, newest))
}

/// Drops ranges whose segments are gone: trimmed after the checkpoint, or replaced by segments whose footers say so.
fn drop_missing(state: &State, present: &BTreeMap<SegmentId, u64>) {
    for partition in state.directory.read().partitions.values() {
        let mut log = partition.log.lock();
        let mut cold = state.cold.lock();
        for range in log
            .cold
            .iter()
            .filter(|r| !present.contains_key(&r.segment))
        {
            cold.lose(range);
        }
        log.cold.retain(|r| present.contains_key(&r.segment));
    }
    let mut cold = state.cold.lock();
    cold.segments.retain(|id, _| present.contains_key(id));
}

enum FooterError {
    Store(ColdError),
    Damaged(SegmentError),
}

impl From<ColdError> for FooterError {
    fn from(error: ColdError) -> Self {
        FooterError::Store(error)
    }
}

impl From<SegmentError> for FooterError {
    fn from(error: SegmentError) -> Self {
        FooterError::Damaged(error)
    }
}

async fn footer(
    store: &dyn ColdStore,
    log: Uuid,
    id: SegmentId,
    size: u64,
) -> Result<(Located, Footer), FooterError> {
    let key = id.key(log);
    let end = size
        .checked_sub(TRAILER_BYTES as u64)
        .ok_or(SegmentError::Foreign("end"))?;
    let trailer = Trailer::decode(&store.get(&key, end..size).await?, size)?;
    let at = trailer.footer_at(size)?;
    let footer = Footer::decode(store.get(&key, at..end).await?, trailer.footer_crc, at)?;
    if footer.id != id || footer.log != log {
        return Err(SegmentError::Malformed("it is another segment's").into());
    }
    let located = Located {
        log,
        id,
        bytes: size,
        footer_bytes: trailer.footer_bytes,
        footer_crc: trailer.footer_crc,
    };
    Ok((located, footer))
}

/// Makes the streams that were created after the checkpoint and the list of streams. Those below `deleted_below` that the state does not know were deleted before it.
fn add_streams(state: &State, footers: &[(Located, Footer)], deleted_below: u64, now: i64) {
    let mut directory = state.directory.write();
    let mut streams: BTreeMap<StreamId, Stream> = BTreeMap::new();
    for part in footers.iter().flat_map(|(_, footer)| &footer.parts) {
        let id = part.partition.stream;
        if id.0 < deleted_below && !directory.by_id.contains_key(&id) {
            continue;
        }
        let stream = streams.entry(id).or_insert_with(|| {
            let known = directory.by_id.get(&id);
            known.map_or_else(
                || Stream {
                    id,
                    uuid: part.uuid,
                    address: part.address.clone(),
                    partitions: 1,
                    config: BTreeMap::new(),
                    created_at: now,
                },
                |known| Stream::clone(known),
            )
        });
        let partitions = part.partition.partition.saturating_add(1);
        stream.partitions = stream
            .partitions
            .max(partitions.min(crate::limits::MAX_PARTITIONS));
    }
    for (id, stream) in streams {
        directory.next_stream = directory.next_stream.max(id.0.saturating_add(1));
        // One of the same name that is older was deleted since.
        let older = directory.find(&stream.address).map(|s| s.id);
        if let Some(older) = older.filter(|older| *older != id)
            && let Some(older) = directory.by_id.remove(&older)
        {
            for partition in older.partition_ids() {
                if let Some(partition) = directory.partitions.remove(&partition) {
                    let mut cold = state.cold.lock();
                    let log = partition.log.lock();
                    log.cold.iter().for_each(|range| cold.lose(range));
                }
            }
        }
        State::place_stream(&mut directory, stream);
    }
}

/// Puts the parts of a segment into their partitions, in the place of what is older there; returns the newest entry that it names. It may be one that was
/// replaced before the checkpoint was made, and is to be deleted: of such a one nothing comes back.
fn add_ranges(state: &State, footer: &Footer) -> u64 {
    let mut newest = 0;
    for part in &footer.parts {
        newest = newest.max(part.first_index);
        let Some(partition) = state.partition(part.partition) else {
            continue;
        };
        let same = state.stream(part.partition.stream);
        if same.is_none_or(|stream| stream.uuid != part.uuid) {
            continue;
        }
        let mut log = partition.log.lock();
        let range = ColdRange::of(footer.id, &part.summary());
        if range.next_offset <= log.log_start {
            continue;
        }
        // What the checkpoint has below was sealed before it, or is gone.
        let sealed_to = log.batches.front().map_or(log.end, |b| b.base_offset);
        let (left, came) = log.lay_over(range, sealed_to, part.chunks.is_empty());
        let mut cold = state.cold.lock();
        came.iter().for_each(|range| cold.gain(range));
        left.iter().for_each(|range| cold.lose(range));
    }
    state.cold.lock().bury(footer.id);
    newest
}

/// Forgets what died with the disk, and moves on to where no offset, producer id or stream number has been.
fn settle(state: &State) {
    let mut directory = state.directory.write();
    directory.next_producer_id = directory
        .next_producer_id
        .saturating_add(RESTORED_PRODUCER_IDS);
    directory.next_stream = directory.next_stream.saturating_add(1 << 20);
    for partition in directory.partitions.values() {
        let mut log = partition.log.lock();
        log.batches.clear();
        log.volatile.clear();
        log.tail.clear();
        log.bytes = log.cold.iter().map(|range| range.bytes).sum();
        let cold_end = log.cold.back().map_or(0, |range| range.next_offset);
        log.end = log.end.max(log.reserved).max(cold_end);
        log.end = log.end.saturating_add(RESTORED_OFFSETS);
        let producers = std::mem::take(&mut log.producers);
        for (id, producer) in producers {
            let is_there = |sent: &Sent| {
                let range = log.cold_at(sent.base_offset);
                range.is_some_and(|range| {
                    range.base_offset <= sent.base_offset && sent.last_offset < range.next_offset
                })
            };
            if let Some(producer) = producer::restored(producer, is_there) {
                log.producers.insert(id, producer);
            }
        }
    }
    let mut wal_use = state.wal_use.lock();
    *wal_use = Default::default();
}

/// Takes the epoch after all there are: a listing may not show the newest.
async fn take_epoch(
    store: &dyn ColdStore,
    log: Uuid,
    state: &State,
) -> Result<Owner, RestoreError> {
    let prefix = epochs(log);
    let taken = store.list(&prefix).await?;
    let taken = taken.iter().filter_map(|object| {
        let digits = object.key.strip_prefix(&prefix)?;
        u32::from_str_radix(digits, 16).ok()
    });
    let mut owner = Owner {
        log,
        epoch: taken.max().unwrap_or(0).max(state.cold.lock().epoch),
        nonce: Uuid::new_v4(),
    };
    loop {
        owner.epoch = owner.epoch.saturating_add(1);
        if create_epoch(store, owner).await? {
            break;
        }
    }
    let mut cold = state.cold.lock();
    cold.log = Some(log);
    cold.epoch = owner.epoch;
    cold.nonce = owner.nonce;
    Ok(owner)
}
