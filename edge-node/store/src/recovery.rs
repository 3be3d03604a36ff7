//! What stands on the disk after a stop of any kind, made into a log that can be written again.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, is_of_the_medium};
use crate::frame::{Entry, Lane};
use crate::log::{End, LogId, Segment, is_segment};
use crate::segment::{
    HeaderError, LogState, Producer, ReadEntryError, SegmentReader, Stamp, read_header,
};
use crate::writer::{DRAFT, create_segment};

/// Why a store does not open. Damage is no reason: it is set aside and reported.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{file}: {reason}")]
    Newer { file: String, reason: String },
    #[error("{what}: {error}")]
    Io {
        what: String,
        #[source]
        error: io::Error,
    },
    #[error("lanes: {0}")]
    Lanes(String),
    #[error(transparent)]
    Ledger(#[from] crate::ledger::LedgerError),
}

pub(crate) fn io_error(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> OpenError {
    let what = what.to_string();
    move |error| OpenError::Io { what, error }
}

/// The segments of a log by their headers.
pub(crate) struct Survey {
    dir: PathBuf,
    segments: BTreeMap<u64, Segment>,
    newest: Option<(LogState, Arc<dyn DiskFile>)>,
    /// What the oldest segment begins with.
    oldest: Option<LogState>,
    /// Segments that could not be read and were set aside.
    pub set_aside: u32,
    /// Who wrote here, oldest first.
    pub producers: Vec<Producer>,
    /// Which lane it says it is.
    pub lane: Option<Lane>,
}

/// Reads the headers of a log, and sets aside what has none.
pub(crate) fn survey(disk: &dyn Disk, dir: &Path, kind: u8) -> Result<Survey, OpenError> {
    disk.create_dir(dir).map_err(io_error(dir.display()))?;
    let mut names = disk.list(dir).map_err(io_error(dir.display()))?;
    names.sort();
    let mut survey = Survey {
        dir: dir.to_owned(),
        segments: BTreeMap::new(),
        newest: None,
        oldest: None,
        set_aside: 0,
        producers: Vec::new(),
        lane: None,
    };
    for name in names {
        let path = dir.join(&name);
        let what = path.display().to_string();
        if path.extension().is_some_and(|end| end == DRAFT) {
            // Never had a name that counts.
            disk.remove(&path).map_err(io_error(&what))?;
        }
        if !is_segment(&path) {
            continue;
        }
        let read = disk
            .open(&path)
            .map_err(HeaderError::Io)
            .and_then(|file| Ok((read_header(&*file, kind)?, file.len()?, file)));
        match read {
            Ok(((state, data_start), len, file)) => {
                let segment = Segment {
                    path,
                    first_position: state.next_position,
                    producer: state.producer,
                    last: state.last,
                    dropped: state.dropped,
                    data_start,
                    len,
                };
                survey.segments.insert(state.next_number, segment);
                if survey.producers.last() != Some(&state.producer) {
                    survey.producers.push(state.producer);
                }
                survey.lane = Some(state.lane);
                survey.oldest.get_or_insert_with(|| state.clone());
                survey.newest = Some((state, file));
            }
            Err(HeaderError::Newer(version)) => {
                return Err(OpenError::Newer {
                    file: what,
                    reason: HeaderError::Newer(version).to_string(),
                });
            }
            Err(HeaderError::Io(error)) if !is_of_the_medium(&error) => {
                return Err(io_error(&what)(error));
            }
            Err(error) => {
                survey.set_aside += 1;
                let salvaged = match salvage(disk, &path, &survey) {
                    // Not even its length can be read.
                    Err(error) if is_of_the_medium(&error) => {
                        tracing::error!(segment = %what, %error, "the disk can not read a segment: it is left out");
                        continue;
                    }
                    salvaged => salvaged.map_err(io_error(&what))?,
                };
                if let Some((number, segment, state, file)) = salvaged {
                    tracing::error!(segment = %what, %error, "a segment is read without its header");
                    survey.segments.insert(number, segment);
                    survey.producers.push(state.producer);
                    survey.lane.get_or_insert(state.lane);
                    survey.oldest.get_or_insert_with(|| state.clone());
                    survey.newest = Some((state, file));
                    continue;
                }
                tracing::error!(segment = %what, %error, "a segment can not be read and is set aside");
                let aside = dir.join(format!("{name}.broken"));
                disk.rename(&path, &aside).map_err(io_error(&what))?;
            }
        }
    }
    Ok(survey)
}

type Salvaged = (u64, Segment, LogState, Arc<dyn DiskFile>);

/// A segment whose header is damaged, by its first whole frame. `None`: there is none in it.
fn salvage(disk: &dyn Disk, path: &Path, survey: &Survey) -> io::Result<Option<Salvaged>> {
    let file = disk.open(path)?;
    let len = file.len()?;
    let mut reader = SegmentReader::new(file.clone(), 0, len, None);
    // Where the first whole entry is, and its number.
    let mut first = None;
    let frame = loop {
        let at = reader.offset();
        match reader.next() {
            Ok(Some(entry)) => {
                first.get_or_insert((at, entry.number()));
                if let Entry::Frame(frame) = entry {
                    break frame;
                }
            }
            Ok(None) => return Ok(None),
            Err(_) => {
                if !matches!(reader.resync(), Ok(true)) {
                    return Ok(None);
                }
            }
        }
    };
    let before = survey.newest.as_ref().map(|(state, _)| state);
    let producer = Producer {
        id: frame.batch.producer_id() - i64::from(frame.lane.0),
        previous: before.and_then(|state| state.producer.previous),
        epoch: frame.batch.producer_epoch(),
    };
    // Of the inbox the batches do not say who keeps them.
    let producer = match (frame.origin, before) {
        (None, _) => producer,
        (Some(_), Some(before)) => before.producer,
        (Some(_), None) => return Ok(None),
    };
    let (data_start, number) = first.unwrap_or((0, frame.number));
    let state = LogState {
        lane: frame.lane,
        next_number: number,
        next_position: frame.position,
        producer,
        last: before.map_or(Stamp::NONE, |state| state.last),
        dropped: before.map_or((0, 0), |state| state.dropped),
        sequences: HashMap::new(),
        origins: before
            .map(|state| state.origins.clone())
            .unwrap_or_default(),
    };
    let segment = Segment {
        path: path.to_owned(),
        first_position: frame.position,
        producer,
        last: state.last,
        dropped: state.dropped,
        data_start,
        len,
    };
    Ok(Some((number, segment, state, file)))
}

/// The incarnation after all that are known: of the ledger, and of each log, oldest first. Its id is `fresh_id` where there is none yet or
/// the epochs are used up.
pub(crate) fn next_incarnation(
    ledger: Option<Producer>,
    logs: &[&[Producer]],
    fresh_id: i64,
) -> Producer {
    let known = || logs.iter().flat_map(|log| log.iter()).chain(&ledger);
    // An id that another one took the place of is older, whatever its epoch.
    let is_replaced = |id: i64| {
        let named = known().any(|other| other.previous == Some(id));
        let in_the_ledger = ledger.is_some_and(|newest| newest.id != id);
        let in_a_log = logs.iter().any(|log| {
            let mut behind = log.iter().skip_while(|one| one.id != id);
            behind.any(|one| one.id != id)
        });
        (named, in_the_ledger, in_a_log)
    };
    // The more of that speaks for an id the better: what stands in the ledger may be as old as what stands in a segment.
    let newest = known().max_by_key(|one| {
        let (named, in_the_ledger, in_a_log) = is_replaced(one.id);
        (!named, !in_the_ledger, !in_a_log, one.epoch)
    });
    match newest {
        None => Producer {
            id: fresh_id,
            previous: None,
            epoch: 0,
        },
        Some(newest) => match newest.epoch.checked_add(1) {
            Some(epoch) => Producer { epoch, ..*newest },
            None => Producer {
                id: fresh_id,
                previous: Some(newest.id),
                epoch: 0,
            },
        },
    }
}

pub(crate) struct Recovered {
    pub state: LogState,
    pub segments: BTreeMap<u64, Segment>,
    pub active: Arc<dyn DiskFile>,
    /// Bytes that were cut off the newest segment: a write that was never acknowledged, or damage.
    pub cut: u64,
    /// Where the log ended, if the ledger knew of a later end.
    pub lost_from: Option<End>,
    /// What the oldest segment began with, if there was one.
    pub oldest: Option<LogState>,
}

/// Entry numbers and positions skipped after a loss: more than can have been given since the ledger was last written.
pub(crate) const SKIP: u64 = 1 << 32;

/// Makes a log of what was found, and begins a segment for the new incarnation. `known` is an end that was durable once.
pub(crate) fn recover(
    disk: &dyn Disk,
    survey: Survey,
    id: LogId,
    known: Option<End>,
    producer: Producer,
) -> Result<Recovered, OpenError> {
    let Survey {
        dir,
        mut segments,
        newest,
        oldest,
        ..
    } = survey;
    let mut cut = 0;
    let mut state = LogState {
        lane: match id {
            LogId::Outbox(lane) => lane,
            LogId::Inbox => Lane::DEFAULT,
        },
        next_number: 1,
        next_position: 0,
        producer,
        last: Stamp::NONE,
        dropped: (0, 0),
        sequences: HashMap::new(),
        origins: HashMap::new(),
    };
    if let Some((found, file)) = newest {
        let first = found.next_number;
        state = found;
        if let Some(segment) = segments.get_mut(&first) {
            cut = scan_newest(&file, segment, &mut state)
                .map_err(io_error(segment.path.display()))?;
        }
    }
    if cut > 0 {
        tracing::warn!(log = %id, bytes = cut, "cut an incomplete write off the newest segment");
    }
    let end = state.end();
    let lost_from = known
        .filter(|known| known.number > end.number)
        .map(|known| {
            state.next_number = known.number + SKIP;
            state.next_position = end.position.max(known.position) + SKIP;
            end
        });
    // Sequences of an incarnation begin at 0, whatever came before it.
    state.producer = producer;
    state.sequences.clear();
    let (active, segment) =
        create_segment(disk, &dir, id.kind(), &state).map_err(io_error(dir.display()))?;
    segments.insert(state.next_number, segment);
    Ok(Recovered {
        state,
        segments,
        active,
        cut,
        lost_from,
        oldest,
    })
}

/// Reads the newest segment to its last whole entry and cuts off what stands behind it. Returns how many bytes that were.
///
/// The last write may be torn anywhere, with whole entries behind the tear: it was never acknowledged and is cut off from the tear on.
/// A tear that is older is damage to what was acknowledged, and stays where it is.
fn scan_newest(
    file: &Arc<dyn DiskFile>,
    segment: &mut Segment,
    state: &mut LogState,
) -> io::Result<u64> {
    // What the last write begins with, and all tears.
    let mut reader = SegmentReader::new(file.clone(), segment.data_start, segment.len, None);
    let mut last_group = 0;
    let mut tears: Vec<Tear> = Vec::new();
    let mut at = (state.next_number, reader.offset());
    loop {
        match reader.next() {
            Ok(Some(entry)) => {
                at = (entry.number() + 1, reader.offset());
                last_group = reader.group();
            }
            Ok(None) => break,
            Err(ReadEntryError::Io(error)) => return Err(error),
            Err(ReadEntryError::Damage(_)) => {
                tears.push(Tear {
                    number: at.0,
                    offset: at.1,
                });
                match reader.resync() {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(ReadEntryError::Io(error)) => return Err(error),
                    Err(ReadEntryError::Damage(_)) => break,
                }
            }
        }
    }
    let cut = tears.iter().find(|tear| tear.number >= last_group);
    let whole = cut.map_or(at.1, |tear| tear.offset);
    let was = segment.len;
    if whole < was {
        segment.len = whole;
        file.truncate(whole)?;
    }
    // Also where nothing is cut off: a process that was killed leaves what it had not synced, and from here on that counts as durable.
    file.sync()?;
    let mut reader = SegmentReader::new(file.clone(), segment.data_start, segment.len, None);
    loop {
        match reader.next() {
            Ok(Some(entry)) => state.pass(&entry),
            Ok(None) => return Ok(was - segment.len),
            Err(ReadEntryError::Io(error)) => return Err(error),
            Err(ReadEntryError::Damage(_)) => match reader.resync() {
                Ok(true) => {}
                _ => return Ok(was - segment.len),
            },
        }
    }
}

/// Where whole entries end before something that is none.
struct Tear {
    /// The entry number that should have come.
    number: u64,
    offset: u64,
}

/// Gives every entry from `from` on that can be read to `visit`, in order.
pub(crate) fn replay(
    disk: &dyn Disk,
    segments: &BTreeMap<u64, Segment>,
    from: u64,
    visit: &mut dyn FnMut(Entry),
) -> Result<(), OpenError> {
    let first = segments
        .range(..=from)
        .next_back()
        .map_or(from, |(n, _)| *n);
    for segment in segments.range(first..).map(|(_, segment)| segment) {
        let what = segment.path.display().to_string();
        let file = disk.open(&segment.path).map_err(io_error(&what))?;
        let mut reader = SegmentReader::new(file, segment.data_start, segment.len, None);
        loop {
            match reader.next() {
                Ok(Some(entry)) if entry.number() >= from => visit(entry),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(ReadEntryError::Io(error)) => return Err(io_error(&what)(error)),
                Err(ReadEntryError::Damage(damage)) => {
                    tracing::error!(segment = %what, %damage, "damage in a segment: what can not be read is passed over");
                    if !matches!(reader.resync(), Ok(true)) {
                        break;
                    }
                }
            }
        }
    }
    Ok(())
}
