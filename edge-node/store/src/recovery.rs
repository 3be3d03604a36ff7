//! What stands on the disk after a stop of any kind, made into a log that can be written again.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};
use crate::frame::{Entry, Lane};
use crate::log::{End, LogId, Segment};
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
        if path.extension().is_none_or(|end| end != "seg") {
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
                    data_start,
                    len,
                };
                survey.segments.insert(state.next_number, segment);
                if survey.producers.last() != Some(&state.producer) {
                    survey.producers.push(state.producer);
                }
                survey.lane = Some(state.lane);
                survey.newest = Some((state, file));
            }
            Err(HeaderError::Newer(version)) => {
                return Err(OpenError::Newer {
                    file: what,
                    reason: HeaderError::Newer(version).to_string(),
                });
            }
            Err(HeaderError::Io(error)) if is_of_the_medium(&error) => {
                tracing::error!(segment = %what, %error, "the disk can not read a segment: it is left out");
                survey.set_aside += 1;
            }
            Err(HeaderError::Io(error)) => return Err(io_error(&what)(error)),
            Err(error @ (HeaderError::Torn | HeaderError::Damaged)) => {
                tracing::error!(segment = %what, %error, "a segment can not be read and is set aside");
                let aside = dir.join(format!("{name}.broken"));
                disk.rename(&path, &aside).map_err(io_error(&what))?;
                survey.set_aside += 1;
            }
        }
    }
    Ok(survey)
}

/// Whether the error belongs to this file's place on the disk, so that trying again would not help (EIO, EBADMSG, EUCLEAN).
pub(crate) fn is_of_the_medium(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EBADMSG | libc::EUCLEAN)
    )
}

/// The incarnation after all that are known; its id is `fresh_id` where there is none yet or the epochs are used up.
pub(crate) fn next_incarnation(known: &[Producer], fresh_id: i64) -> Producer {
    // An id that another one took the place of is older, whatever its epoch.
    let newest = known
        .iter()
        .filter(|one| !known.iter().any(|other| other.previous == Some(one.id)))
        .max_by_key(|one| one.epoch);
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
}

/// Entry numbers and positions skipped after a loss: more than can have been given since the ledger was last written.
const SKIP: u64 = 1 << 32;

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
    })
}

/// Reads the newest segment to its last whole entry and cuts off what stands behind it. Returns how many bytes that were.
fn scan_newest(
    file: &Arc<dyn DiskFile>,
    segment: &mut Segment,
    state: &mut LogState,
) -> io::Result<u64> {
    let first = state.next_number;
    let mut reader = SegmentReader::new(file.clone(), segment.data_start, segment.len, Some(first));
    loop {
        match reader.next() {
            Ok(Some(entry)) => state.pass(&entry),
            Ok(None) => return Ok(0),
            Err(ReadEntryError::Io(error)) => return Err(error),
            Err(ReadEntryError::Damage(_)) => {
                let cut = segment.len - reader.offset();
                segment.len = reader.offset();
                file.truncate(segment.len)?;
                file.sync()?;
                return Ok(cut);
            }
        }
    }
}

/// Gives every entry from `from` on to `visit`, in order. Damage ends a segment early.
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
                    tracing::error!(segment = %what, %damage, "damage in a segment: what follows in it can not be read");
                    break;
                }
            }
        }
    }
    Ok(())
}
