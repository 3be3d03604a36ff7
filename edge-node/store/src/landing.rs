//! The first whole entry behind a hole, and what the core must know to take it.

use std::collections::HashMap;
use std::io;

use record::StreamName;

use crate::frame::Entry;
use crate::log::{End, Shared};
use crate::segment::{Producer, ReadEntryError, SegmentReader, read_header};

/// See the module.
pub(crate) struct Landing {
    pub next: End,
    pub producer: Producer,
    pub sequences: Vec<(StreamName, i32)>,
    /// When its first record was stamped, or the last one before it; -1 = not known.
    pub time: i64,
}

/// Reads on from the entry `number`. Streams of which nothing comes in the rest of its segment are in the header of the next one, if that
/// is of the same incarnation; if not, what comes there begins at 0 anyway.
pub(crate) fn landing(shared: &Shared, number: u64) -> io::Result<Landing> {
    let (first, segment, next) = {
        let index = shared.index.lock();
        let found = index.segments.range(..=number).next_back();
        let found = found.or_else(|| index.segments.iter().next());
        let (first, segment) = found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let next = index.segments.range(first + 1..).next();
        (*first, segment.clone(), next.map(|(_, s)| s.clone()))
    };
    let kind = shared.config.id.kind();
    let file = shared.disk.open(&segment.path)?;
    if first == number
        && let Ok((state, _)) = read_header(&*file, kind)
    {
        return Ok(Landing {
            next: state.end(),
            producer: state.producer,
            sequences: state.sequences.into_iter().collect(),
            time: state.last.ms,
        });
    }
    let mut sequences: HashMap<StreamName, i32> = HashMap::new();
    let mut position = None;
    let mut time = segment.last.ms;
    let mut reader = SegmentReader::new(file, segment.data_start, segment.len, None);
    loop {
        match reader.next() {
            Ok(Some(Entry::Frame(frame))) if frame.number >= number => {
                if position.is_none() {
                    position = Some(frame.position);
                    time = frame.batch.base_timestamp();
                }
                let first = frame.batch.base_sequence();
                sequences.entry(frame.stream).or_insert(first);
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(ReadEntryError::Io(error)) => return Err(error),
            Err(ReadEntryError::Damage(_)) => match reader.resync() {
                Ok(true) => {}
                Ok(false) => break,
                Err(ReadEntryError::Io(error)) => return Err(error),
                Err(ReadEntryError::Damage(_)) => break,
            },
        }
    }
    if let Some(next) = next {
        position = position.or(Some(next.first_position));
        let header = shared.disk.open(&next.path);
        let header = header.map(|file| read_header(&*file, kind));
        if let Ok(Ok((state, _))) = header
            && state.producer == segment.producer
        {
            for (stream, next) in state.sequences {
                sequences.entry(stream).or_insert(next);
            }
        }
    }
    Ok(Landing {
        next: End {
            number,
            position: position.unwrap_or_else(|| shared.end.borrow().position),
        },
        producer: segment.producer,
        sequences: sequences.into_iter().collect(),
        time,
    })
}
