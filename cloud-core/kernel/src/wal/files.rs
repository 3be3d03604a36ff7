//! The WAL files that hold entries: how large they are, and reading from them. A bounded number of them is open at a time.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use record::{Batch, BatchError};

use super::frame::{Format, FrameHeader};
use super::path;
use crate::ports::{Disk, DiskFile};
use crate::state::partition::BatchRef;

/// Most files held open for reading.
const OPEN_FILES: usize = 64;
/// Most bytes read at once, unless one frame is larger.
const READ_SPAN: u64 = 1024 * 1024;
/// Bytes of other partitions that are read along to save a call.
const READ_GAP: u64 = 32 * 1024;

/// A file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WalFile {
    /// What it takes on the disk.
    pub bytes: u64,
    /// `None` = its header is damaged.
    pub format: Option<Format>,
}

pub(crate) struct WalFiles {
    disk: Arc<dyn Disk>,
    /// By first index.
    files: RwLock<BTreeMap<u64, WalFile>>,
    open: Mutex<VecDeque<(u64, Arc<dyn DiskFile>)>>,
}

/// Why a frame could not be had.
pub(crate) enum FrameError {
    Io(io::Error),
    Corrupt(String),
    /// The file left the WAL meanwhile: nothing refers to its entries any more.
    Gone,
}

impl WalFiles {
    pub fn new(disk: Arc<dyn Disk>) -> WalFiles {
        WalFiles {
            disk,
            files: RwLock::default(),
            open: Mutex::default(),
        }
    }

    /// Adds a file, or says what it is now.
    pub fn put(&self, first_index: u64, file: WalFile) {
        self.files.write().insert(first_index, file);
    }

    /// Files and their bytes.
    pub fn totals(&self) -> (u64, u64) {
        let files = self.files.read();
        (files.len() as u64, files.values().map(|f| f.bytes).sum())
    }

    /// First indexes, in order.
    pub fn firsts(&self) -> Vec<u64> {
        self.files.read().keys().copied().collect()
    }

    /// Takes a file out that nothing refers to any more; after that, its bytes may change. Readers that have it open find out.
    pub fn take(&self, first_index: u64) -> Option<WalFile> {
        let taken = self.files.write().remove(&first_index);
        self.open.lock().retain(|(first, _)| *first != first_index);
        taken
    }

    /// The file that an entry is in.
    fn holding(&self, index: u64) -> Option<(u64, WalFile)> {
        let files = self.files.read();
        let (first, file) = files.range(..=index).next_back()?;
        Some((*first, *file))
    }

    /// How far to read when the first of these batches ends at `end`: over those that follow it in its file at no great distance.
    fn read_ahead(&self, first: u64, format: Format, wanted: &[BatchRef], end: u64) -> u64 {
        let next = {
            let files = self.files.read();
            let mut later = files.range(first + 1..);
            later.next().map(|(first, _)| *first)
        };
        let begin = wanted.first().map_or(0, |batch| u64::from(batch.frame_at));
        let mut until = end;
        for batch in wanted.iter().skip(1) {
            let (from, end) = extent(format, batch);
            let elsewhere = next.is_some_and(|next| batch.index >= next);
            if elsewhere || from > until + READ_GAP || end > begin + READ_SPAN {
                break;
            }
            until = until.max(end);
        }
        until
    }

    /// Where the frame of a batch is, for people: path, and its bytes if they are known.
    pub fn place_of(&self, batch: &BatchRef) -> Option<(String, Option<u64>)> {
        let (first, file) = self.holding(batch.index)?;
        let bytes = file.format.map(|f| f.frame_len(batch.body_len));
        Some((path(first), bytes))
    }

    fn opened(&self, first: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut open = self.open.lock();
        if let Some(position) = open.iter().position(|(f, _)| *f == first)
            && let Some(found) = open.remove(position)
        {
            let file = found.1.clone();
            open.push_back(found);
            return Ok(file);
        }
        drop(open);
        let file = self.disk.open(&path(first), false)?;
        let mut open = self.open.lock();
        if open.len() >= OPEN_FILES {
            open.pop_front();
        }
        open.push_back((first, file.clone()));
        Ok(file)
    }

    /// For reading one batch after another.
    pub fn reader(&self) -> Reader<'_> {
        Reader {
            files: self,
            span: None,
            last: None,
        }
    }
}

/// Reads frames that lie near to each other with one call to the system.
pub(crate) struct Reader<'a> {
    files: &'a WalFiles,
    span: Option<Span>,
    /// The entry that the last batch was in.
    last: Option<(u64, Body)>,
}

/// The body of a frame.
#[derive(Clone)]
struct Body {
    bytes: Bytes,
    /// Its checksum holds. If not, a batch in it can be sound all the same: it has a checksum of its own.
    is_sound: bool,
}

/// Bytes of a file.
struct Span {
    first_index: u64,
    from: u64,
    bytes: Bytes,
}

impl Reader<'_> {
    /// The first of these batches, which are in the order of the log; those after it are read ahead. It is as it was written: whatever else is
    /// damaged.
    pub fn batch(&mut self, wanted: &[BatchRef]) -> Result<Batch, FrameError> {
        let wants = wanted.first().ok_or(FrameError::Gone)?;
        let body = match self.last.take() {
            Some((index, body)) if index == wants.index => body,
            _ => self.body(wants, wanted)?,
        };
        let (_, body) = self.last.insert((wants.index, body));
        let corrupt = |error: BatchError| {
            FrameError::Corrupt(format!(
                "the batch in entry {} is damaged: {error}",
                wants.index
            ))
        };
        let from = wants.batch_at as usize;
        let bytes = from
            .checked_add(wants.batch_len as usize)
            .filter(|to| *to <= body.bytes.len())
            .map(|to| body.bytes.slice(from..to))
            .ok_or_else(|| FrameError::Corrupt("the index points past the entry".to_owned()))?;
        let batch = Batch::from_trusted(bytes).map_err(corrupt)?;
        if !body.is_sound {
            // What its checksum does not cover, the index knows: its place, its length, its offset.
            batch.check_crc().map_err(corrupt)?;
        }
        Ok(batch)
    }

    fn body(&mut self, batch: &BatchRef, wanted: &[BatchRef]) -> Result<Body, FrameError> {
        let (first, file) = self.files.holding(batch.index).ok_or(FrameError::Gone)?;
        let read = self.body_in(first, file, batch, wanted);
        // It may have become another file while it was read. Before its bytes change it is taken out, so what was found sound is.
        let now = || self.files.holding(batch.index).map(|(now, _)| now);
        if read.is_err() && now() != Some(first) {
            return Err(FrameError::Gone);
        }
        read
    }

    fn body_in(
        &mut self,
        first: u64,
        file: WalFile,
        batch: &BatchRef,
        wanted: &[BatchRef],
    ) -> Result<Body, FrameError> {
        let corrupt = |reason: &str| FrameError::Corrupt(reason.to_owned());
        let format = file
            .format
            .ok_or_else(|| corrupt("the header of its file is damaged"))?;
        let mut body = match self.read(first, format, batch, wanted) {
            Ok(frame) => frame,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(corrupt("the file ends early"));
            }
            Err(error) => return Err(FrameError::Io(error)),
        };
        let front = body.split_to(format.header_len());
        let header = FrameHeader::decode(&front, format)
            .ok_or_else(|| corrupt("the frame header is damaged"))?;
        if header.index != batch.index {
            return Err(FrameError::Corrupt(format!(
                "entry {} stands where entry {} should",
                header.index, batch.index
            )));
        }
        Ok(Body {
            is_sound: header.covers(&body),
            bytes: body,
        })
    }

    /// A frame, header and body, as it is in the file.
    fn read(
        &mut self,
        first: u64,
        format: Format,
        batch: &BatchRef,
        wanted: &[BatchRef],
    ) -> io::Result<Bytes> {
        let (from, end) = extent(format, batch);
        if let Some(found) = self.span.as_ref().and_then(|s| s.slice(first, from, end)) {
            return Ok(found);
        }
        let file = self.files.opened(first)?;
        let until = self.files.read_ahead(first, format, wanted, end);
        let mut bytes = read_range(&*file, from, until);
        if bytes.is_err() && until > end {
            // What is wrong may be wrong with those that were not asked for.
            bytes = read_range(&*file, from, end);
        }
        let span = Span {
            first_index: first,
            from,
            bytes: bytes?,
        };
        let found = span.slice(first, from, end);
        self.span = Some(span);
        found.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Span {
    fn slice(&self, first_index: u64, from: u64, end: u64) -> Option<Bytes> {
        let begin = usize::try_from(from.checked_sub(self.from)?).ok()?;
        let end = usize::try_from(end.checked_sub(self.from)?).ok()?;
        (self.first_index == first_index && begin <= end && end <= self.bytes.len())
            .then(|| self.bytes.slice(begin..end))
    }
}

/// Where the frame of a batch begins and ends.
fn extent(format: Format, batch: &BatchRef) -> (u64, u64) {
    let from = u64::from(batch.frame_at);
    (from, from + format.frame_len(batch.body_len))
}

fn read_range(file: &dyn DiskFile, from: u64, until: u64) -> io::Result<Bytes> {
    let len = usize::try_from(until - from).map_err(io::Error::other)?;
    let mut buffer = vec![0; len];
    file.read_at(from, &mut buffer)?;
    Ok(buffer.into())
}
