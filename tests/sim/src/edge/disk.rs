//! The simulated disk as the edge's store sees it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use kernel::ports;
use store::disk::{Disk, DiskFile};

use crate::disk::SimDisk;

/// See the module.
pub struct EdgeDisk(pub SimDisk);

struct EdgeFile(Arc<dyn ports::DiskFile>);

fn text(path: &Path) -> io::Result<&str> {
    path.to_str()
        .ok_or_else(|| io::Error::other("a path that is no text"))
}

impl Disk for EdgeDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = ports::Disk::create(&self.0, text(path)?)?;
        Ok(Arc::new(EdgeFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = ports::Disk::open(&self.0, text(path)?, true)?;
        Ok(Arc::new(EdgeFile(file)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        ports::Disk::list(&self.0, text(dir)?)
    }

    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        Ok(self.0.directories(text(dir)?))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        ports::Disk::create_dir(&self.0, text(dir)?)?;
        let parent = dir.parent().map(text).transpose()?;
        ports::Disk::sync_dir(&self.0, parent.unwrap_or_default())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        ports::Disk::remove(&self.0, text(path)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        ports::Disk::rename(&self.0, text(from)?, text(to)?)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        ports::Disk::sync_dir(&self.0, text(dir)?)
    }

    fn room(&self, _dir: &Path) -> io::Result<u64> {
        Ok(self.0.room())
    }
}

impl DiskFile for EdgeFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let end = self.0.len()?;
        self.0.write_at(end, &[bytes])
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = self.0.len()?.saturating_sub(offset);
        let taken = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        if taken > 0 {
            self.0.read_at(offset, &mut buffer[..taken])?;
        }
        Ok(taken)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
}
