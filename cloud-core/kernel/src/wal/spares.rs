//! Files that are ready to become the next file of the WAL: allocated in full, and with a salt of their own. A dead file becomes a spare
//! again, so that in the long run the WAL writes to blocks that it has already: files that die together, as they do when a segment is sealed,
//! are kept up to a share of the WAL's room. Two are made where there are none: one is the next file; the other is there for the day on
//! which the disk is full: in its room goes the checkpoint that lets dead files go.
//!
//! How a file changes without a crash ever showing it half changed: a dead file is renamed to a spare, and the directory is synced, before
//! its header is written; a spare gets its new salt, durably, before it is renamed to the file that the WAL goes on in.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use super::frame::encode_file_header;
use super::{DIRECTORY, path, spare_path};
use crate::limits::{WAL_SPARES, WAL_SPARES_SHARE};
use crate::ports::{Disk, DiskFile};

/// A file that is ready.
pub(crate) struct Spare {
    path: String,
    pub file: Arc<dyn DiskFile>,
    pub salt: u64,
}

#[derive(Default)]
struct Inner {
    ready: Vec<Spare>,
    /// Being made or recycled now.
    preparing: usize,
    next_number: u64,
}

pub(crate) struct Spares {
    disk: Arc<dyn Disk>,
    /// Size of a file.
    file_bytes: u64,
    /// Dead files that are kept at most.
    most: usize,
    inner: Mutex<Inner>,
}

impl Spares {
    /// For a WAL of `wal_bytes` in files of `file_bytes`.
    pub fn new(disk: Arc<dyn Disk>, file_bytes: u64, wal_bytes: u64) -> Spares {
        let share = wal_bytes / file_bytes.max(1) / WAL_SPARES_SHARE;
        Spares {
            disk,
            file_bytes,
            most: usize::try_from(share).unwrap_or(usize::MAX).max(WAL_SPARES),
            inner: Mutex::default(),
        }
    }

    /// Size of a file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Spares that are ready, and that are being made.
    pub fn count(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.ready.len(), inner.preparing)
    }

    /// A spare, if more than `leave` are ready.
    pub fn take(&self, leave: usize) -> Option<Spare> {
        let mut inner = self.inner.lock();
        if inner.ready.len() > leave {
            inner.ready.pop()
        } else {
            None
        }
    }

    /// Gives the spare its place in the WAL; durable when it returns. When that fails the spare is lost until the next start.
    pub fn become_file(&self, spare: &Spare, first_index: u64) -> io::Result<()> {
        self.disk.rename(&spare.path, &path(first_index))?;
        self.disk.sync_dir(DIRECTORY)
    }

    /// Makes a new file.
    pub fn make(&self) -> io::Result<Spare> {
        let path = self.new_path();
        let file = self.disk.create(&path)?;
        let prepared = file.allocate(self.file_bytes);
        match prepared.and_then(|()| prepare(&*file)) {
            Ok(salt) => Ok(Spare { path, file, salt }),
            Err(error) => {
                self.disk.remove(&path)?;
                Err(error)
            }
        }
    }

    /// Makes a new spare, unless there are enough, or will be.
    pub fn top_up(&self) -> io::Result<()> {
        if !self.begin(WAL_SPARES) {
            return Ok(());
        }
        let made = self.make();
        self.end(made)
    }

    /// What becomes of a file of `bytes` bytes that left the WAL: a spare, if that is wanted and there are not enough, or nothing.
    pub fn retire(&self, path: &str, bytes: u64, wanted: bool) -> io::Result<()> {
        if !wanted || bytes != self.file_bytes || !self.begin(self.most) {
            return self.disk.remove(path);
        }
        let recycled = self.recycle(path);
        self.end(recycled)
    }

    fn recycle(&self, from: &str) -> io::Result<Spare> {
        let path = self.new_path();
        self.disk.rename(from, &path)?;
        self.disk.sync_dir(DIRECTORY)?;
        let file = self.disk.open(&path, true)?;
        let salt = prepare(&*file)?;
        Ok(Spare { path, file, salt })
    }

    /// Takes in the spares that an earlier run left, by their numbers. Nobody else uses this yet.
    pub fn find(&self, numbers: &[u64]) -> io::Result<()> {
        self.inner.lock().next_number = numbers.iter().max().copied().unwrap_or(0);
        for number in numbers {
            let path = spare_path(*number);
            let bytes = self.disk.open(&path, false)?.len()?;
            // It may have been cut short anywhere on its way, so it is begun anew.
            self.retire(&path, bytes, true)?;
        }
        Ok(())
    }

    /// Gives all spares back to the disk; true if there were any.
    pub fn release(&self) -> io::Result<bool> {
        let ready = std::mem::take(&mut self.inner.lock().ready);
        for spare in &ready {
            self.disk.remove(&spare.path)?;
        }
        Ok(!ready.is_empty())
    }

    fn begin(&self, most: usize) -> bool {
        let mut inner = self.inner.lock();
        let may = inner.ready.len() + inner.preparing < most;
        inner.preparing += usize::from(may);
        may
    }

    fn end(&self, prepared: io::Result<Spare>) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.preparing -= 1;
        inner.ready.push(prepared?);
        Ok(())
    }

    fn new_path(&self) -> String {
        let mut inner = self.inner.lock();
        inner.next_number += 1;
        spare_path(inner.next_number)
    }
}

/// Random bits of an identity: drawn where those of streams are.
pub(super) fn new_salt() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    high ^ low.rotate_left(32)
}

/// Gives a file a new salt, durably: from now on nothing that is in it is a frame.
fn prepare(file: &dyn DiskFile) -> io::Result<u64> {
    let salt = new_salt();
    file.write_at(0, &[&encode_file_header(salt)])?;
    file.sync()?;
    Ok(salt)
}
