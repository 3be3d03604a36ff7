//! Frames that the core will never take: kept apart, bounded, so that they block nothing and can be looked at.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::Disk;
use crate::frame::{Entry, Frame};
use crate::limits;
use crate::segment::read_len;

pub(crate) struct Quarantine {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Frames put here since the start.
    pub frames: AtomicU64,
}

impl Quarantine {
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> io::Result<Quarantine> {
        disk.create_dir(dir)?;
        Ok(Quarantine {
            disk,
            dir: dir.to_owned(),
            frames: AtomicU64::new(0),
        })
    }

    /// Stores a frame durably, as one entry a file. The oldest ones go when there are too many.
    pub fn put(&self, frame: &Frame) -> io::Result<()> {
        // The number before the lane: the names sort about as they came.
        let name = format!("{:020}-{}.frame", frame.number, frame.lane.0);
        let path = self.dir.join(&name);
        let mut bytes = Vec::new();
        Entry::Frame(frame.clone()).encode(0, &mut bytes);
        let file = match self.disk.create(&path) {
            // Refused once more after a restart, or left half written.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.remove(&path)?;
                self.disk.create(&path)?
            }
            result => result?,
        };
        file.append(&bytes)?;
        file.sync()?;
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bound(&name)
    }

    /// Stores a copy of a whole segment durably.
    pub fn keep_segment(&self, name: &str, segment: &Path) -> io::Result<()> {
        let path = self.dir.join(name);
        let from = self.disk.open(segment)?;
        let to = match self.disk.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.remove(&path)?;
                self.disk.create(&path)?
            }
            result => result?,
        };
        let mut chunk = vec![0; limits::READ_CHUNK];
        let mut at = 0;
        loop {
            let read = from.read_at(&mut chunk, at)?;
            if read == 0 {
                break;
            }
            to.append(chunk.get(..read).unwrap_or_default())?;
            at += read as u64;
        }
        to.sync()?;
        self.bound(name)
    }

    /// Makes the names durable, and lets the oldest go where there are too many bytes. `name` stays.
    fn bound(&self, name: &str) -> io::Result<()> {
        self.disk.sync_dir(&self.dir)?;
        let mut names = self.disk.list(&self.dir)?;
        names.sort();
        let mut kept = 0;
        for found in names.iter().rev() {
            let path = self.dir.join(found);
            kept += read_len(&*self.disk, &path)?;
            if kept > limits::QUARANTINE && *found != name {
                tracing::error!(file = %path.display(), "too many refused batches are kept: the oldest is deleted");
                self.disk.remove(&path)?;
            }
        }
        Ok(())
    }
}
