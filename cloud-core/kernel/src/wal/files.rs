//! The WAL files that hold entries: how large they are, and reading from them. A bounded number of them is open at a time.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::frame::{Format, FrameHeader};
use super::path;
use crate::ports::{Disk, DiskFile};
use crate::state::partition::BatchRef;

/// Most files held open for reading.
const OPEN_FILES: usize = 64;

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

    /// The body of the frame that holds a batch; both checksums are verified.
    pub fn body(&self, batch: &BatchRef) -> Result<Bytes, FrameError> {
        let (first, file) = self.holding(batch.index).ok_or(FrameError::Gone)?;
        let read = self.body_in(first, file, batch);
        // It may have become another file while it was read. Before its bytes change it is taken out, so what was found sound is.
        if read.is_err()
            && self
                .holding(batch.index)
                .is_none_or(|(now, _)| now != first)
        {
            return Err(FrameError::Gone);
        }
        read
    }

    fn body_in(&self, first: u64, file: WalFile, batch: &BatchRef) -> Result<Bytes, FrameError> {
        let corrupt = |reason: &str| FrameError::Corrupt(reason.to_owned());
        let format = file
            .format
            .ok_or_else(|| corrupt("the header of its file is damaged"))?;
        let opened = self.opened(first).map_err(FrameError::Io)?;
        let mut buffer = vec![0; format.header_len() + batch.body_len as usize];
        opened
            .read_at(u64::from(batch.frame_at), &mut buffer)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => corrupt("the file ends early"),
                _ => FrameError::Io(error),
            })?;
        let mut body = Bytes::from(buffer);
        let front = body.split_to(format.header_len());
        let header = FrameHeader::decode(&front, format)
            .ok_or_else(|| corrupt("the frame header is damaged"))?;
        if header.index != batch.index {
            return Err(FrameError::Corrupt(format!(
                "entry {} stands where entry {} should",
                header.index, batch.index
            )));
        }
        if !header.covers(&body) {
            return Err(FrameError::Corrupt(format!(
                "the checksum of entry {} does not match",
                batch.index
            )));
        }
        Ok(body)
    }
}
