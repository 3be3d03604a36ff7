//! What stands on the disk after a stop of any kind, made into a log that can be written again.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};
use crate::frame::Entry;
use crate::log::{End, LogId, Segment};
use crate::segment::{HeaderError, LogState, Producer, ReadEntryError, SegmentReader, read_header};
use crate::writer::create_segment;

/// Why a store does not open.
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
    #[error(transparent)]
    Ledger(#[from] crate::ledger::LedgerError),
}

pub(crate) fn io_error(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> OpenError {
    let what = what.to_string();
    move |error| OpenError::Io { what, error }
}

/// What the ledger says of a log: a point that was durable once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub producer: Producer,
    pub end: End,
}

pub(crate) struct Recovered {
    pub state: LogState,
    pub segments: BTreeMap<u64, Segment>,
    pub active: Arc<dyn DiskFile>,
    /// Segments that could not be read and were set aside.
    pub set_aside: u32,
    /// Bytes that were cut off the newest segment: a write that was never acknowledged, or damage.
    pub cut: u64,
    /// Whether the producer's epoch was raised since sequences may have been lost.
    pub epoch_raised: bool,
}

/// Entry numbers and positions skipped after a loss: more than can have been given since the ledger was last written.
const SKIP: u64 = 1 << 32;

/// Opens a log. `fresh_id` is the producer id if there is none yet.
pub(crate) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    id: LogId,
    known: Option<Known>,
    fresh_id: i64,
) -> Result<Recovered, OpenError> {
    disk.create_dir(dir).map_err(io_error(dir.display()))?;
    let mut names = disk.list(dir).map_err(io_error(dir.display()))?;
    names.retain(|name| name.ends_with(".seg"));
    names.sort();

    let mut segments = BTreeMap::new();
    let mut newest: Option<(u64, LogState, Arc<dyn DiskFile>)> = None;
    let mut set_aside = 0;
    let last = names.last().cloned();
    for name in names {
        let path = dir.join(&name);
        let what = path.display().to_string();
        let file = disk.open(&path).map_err(io_error(&what))?;
        match read_header(&*file, id.kind()) {
            Ok((state, data_start)) => {
                let segment = Segment {
                    path,
                    first_position: state.next_position,
                    data_start,
                    len: file.len().map_err(io_error(&what))?,
                };
                segments.insert(state.next_number, segment);
                newest = Some((state.next_number, state, file));
            }
            Err(HeaderError::Torn) if Some(&name) == last.as_ref() => {
                disk.remove(&path).map_err(io_error(&what))?;
            }
            Err(HeaderError::Newer(version)) => {
                return Err(OpenError::Newer {
                    file: what,
                    reason: HeaderError::Newer(version).to_string(),
                });
            }
            Err(HeaderError::Io(error)) => return Err(io_error(&what)(error)),
            Err(error @ (HeaderError::Torn | HeaderError::Damaged)) => {
                tracing::error!(segment = %what, %error, "a segment can not be read and is set aside");
                let aside = dir.join(format!("{name}.broken"));
                disk.rename(&path, &aside).map_err(io_error(&what))?;
                set_aside += 1;
            }
        }
    }

    let mut cut = 0;
    let (state, active) = match newest {
        Some((first, mut state, file)) => {
            if let Some(segment) = segments.get_mut(&first) {
                cut = scan_newest(&file, segment, &mut state)
                    .map_err(io_error(segment.path.display()))?;
            }
            (Some(state), Some(file))
        }
        None => (None, None),
    };
    if cut > 0 {
        tracing::warn!(
            log = id.name(),
            bytes = cut,
            "cut an incomplete write off the newest segment"
        );
    }

    let behind = match (&state, known) {
        (Some(state), Some(known)) => known.end.number > state.next_number,
        (None, Some(_)) => true,
        (_, None) => false,
    };
    let epoch_raised = set_aside > 0 || behind;
    if let (Some(state), Some(active), false) = (&state, &active, epoch_raised) {
        return Ok(Recovered {
            state: state.clone(),
            segments,
            active: active.clone(),
            set_aside,
            cut,
            epoch_raised,
        });
    }

    let fresh = Producer {
        id: fresh_id,
        epoch: 0,
    };
    let mut next = state.unwrap_or_else(|| LogState {
        next_number: 1,
        next_position: 0,
        producer: known.map_or(fresh, |known| known.producer),
        sequences: HashMap::new(),
        origins: HashMap::new(),
    });
    if epoch_raised {
        // Sequences may have been given that nothing here remembers: begin an epoch in which none has been.
        let end = known.map(|known| known.end).unwrap_or_default();
        next.next_number = next.next_number.max(end.number) + SKIP;
        next.next_position = next.next_position.max(end.position) + SKIP;
        next.sequences.clear();
        if let Some(known) = known {
            next.producer.epoch = next.producer.epoch.max(known.producer.epoch);
        }
        next.producer = match next.producer.epoch.checked_add(1) {
            Some(epoch) => Producer {
                epoch,
                ..next.producer
            },
            None => fresh,
        };
    }
    let (active, segment) =
        create_segment(disk, dir, id.kind(), &next).map_err(io_error(dir.display()))?;
    segments.insert(next.next_number, segment);
    Ok(Recovered {
        state: next,
        segments,
        active,
        set_aside,
        cut,
        epoch_raised,
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
