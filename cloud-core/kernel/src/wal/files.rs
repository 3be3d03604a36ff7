//! The WAL files, for reading: a bounded number of them is open at a time.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::frame::{FRAME_HEADER, FrameHeader};
use super::path;
use crate::ports::{Disk, DiskFile};
use crate::state::partition::BatchRef;

/// Most files held open for reading.
const OPEN_FILES: usize = 64;

pub(crate) struct WalFiles {
    disk: Arc<dyn Disk>,
    /// First index -> bytes.
    sizes: RwLock<BTreeMap<u64, u64>>,
    open: Mutex<VecDeque<(u64, Arc<dyn DiskFile>)>>,
}

/// Why a frame could not be had.
pub(crate) enum FrameError {
    Io(io::Error),
    Corrupt(String),
}

impl WalFiles {
    pub fn new(disk: Arc<dyn Disk>) -> WalFiles {
        WalFiles {
            disk,
            sizes: RwLock::default(),
            open: Mutex::default(),
        }
    }

    pub fn set_size(&self, first_index: u64, bytes: u64) {
        self.sizes.write().insert(first_index, bytes);
    }

    /// Files and their bytes.
    pub fn totals(&self) -> (u64, u64) {
        let sizes = self.sizes.read();
        (sizes.len() as u64, sizes.values().sum())
    }

    /// First indexes, in order.
    pub fn firsts(&self) -> Vec<u64> {
        self.sizes.read().keys().copied().collect()
    }

    /// Removes a file that nothing refers to any more. Readers that have it open finish undisturbed.
    pub fn remove(&self, first_index: u64) -> io::Result<()> {
        self.disk.remove(&path(first_index))?;
        self.sizes.write().remove(&first_index);
        self.open.lock().retain(|(first, _)| *first != first_index);
        Ok(())
    }

    fn file_with(&self, index: u64) -> io::Result<Arc<dyn DiskFile>> {
        let first = self
            .sizes
            .read()
            .range(..=index)
            .next_back()
            .map(|(first, _)| *first);
        let first = first.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
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
        let file = self.file_with(batch.index).map_err(FrameError::Io)?;
        let mut buffer = vec![0; FRAME_HEADER + batch.body_len as usize];
        file.read_at(u64::from(batch.frame_at), &mut buffer)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    FrameError::Corrupt("the file ends early".to_owned())
                }
                _ => FrameError::Io(error),
            })?;
        let mut body = Bytes::from(buffer);
        let front = body.split_to(FRAME_HEADER);
        let header = FrameHeader::decode(&front)
            .ok_or_else(|| FrameError::Corrupt("the frame header is damaged".to_owned()))?;
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
