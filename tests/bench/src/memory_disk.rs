//! Files in memory, as simple as can be: for counting instructions and allocations without a disk in it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use kernel::Ports;
use kernel::ports::{Clock, Disk, DiskFile, MemoryColdStore, TokioSpawner};
use parking_lot::Mutex;

/// Files in memory; clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    files: Arc<Mutex<BTreeMap<String, MemoryFile>>>,
}

#[derive(Debug, Clone, Default)]
struct MemoryFile {
    contents: Arc<Mutex<Contents>>,
}

#[derive(Debug, Default)]
struct Contents {
    /// As far as it was written.
    bytes: Vec<u8>,
    /// The file is longer: zeros follow, which take no memory.
    len: usize,
}

/// Ports of a kernel that touches nothing outside of the process.
pub fn ports() -> Ports {
    Ports {
        disk: Arc::new(MemoryDisk::default()),
        clock: Arc::new(StoppedClock),
        cold: Arc::new(MemoryColdStore::default()),
        spawner: Arc::new(TokioSpawner),
    }
}

impl Disk for MemoryDisk {
    fn create_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let files = self.files.lock();
        let names = files
            .keys()
            .filter_map(|path| path.strip_prefix(dir)?.strip_prefix('/'));
        Ok(names.map(str::to_owned).collect())
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = self.files.lock();
        if files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = MemoryFile::default();
        files.insert(path.to_owned(), file.clone());
        Ok(Arc::new(file))
    }

    fn open(&self, path: &str, _: bool) -> io::Result<Arc<dyn DiskFile>> {
        match self.files.lock().get(path) {
            Some(file) => Ok(Arc::new(file.clone())),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        match self.files.lock().remove(path) {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn sync_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _: &str) -> io::Result<Option<Box<dyn Send + Sync>>> {
        Ok(Some(Box::new(())))
    }
}

impl DiskFile for MemoryFile {
    fn write_at(&self, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut contents = self.contents.lock();
        let mut at = usize::try_from(position).map_err(io::Error::other)?;
        for part in parts {
            if contents.bytes.len() < at {
                contents.bytes.resize(at, 0);
            }
            // What is there is written over, what is left of the part comes behind it.
            let (over, behind) = part.split_at(part.len().min(contents.bytes.len() - at));
            contents.bytes[at..at + over.len()].copy_from_slice(over);
            contents.bytes.extend_from_slice(behind);
            at += part.len();
        }
        contents.len = contents.len.max(at);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut contents = self.contents.lock();
        let more = len.saturating_sub(contents.bytes.len());
        contents.bytes.reserve_exact(more);
        contents.len = contents.len.max(len);
        Ok(())
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        let contents = self.contents.lock();
        let from = usize::try_from(position).map_err(io::Error::other)?;
        let end = from.saturating_add(buffer.len());
        if end > contents.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let written = contents.bytes.len();
        let found = &contents.bytes[from.min(written)..end.min(written)];
        let (first, rest) = buffer.split_at_mut(found.len());
        first.copy_from_slice(found);
        rest.fill(0);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.contents.lock().len as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut contents = self.contents.lock();
        contents.bytes.truncate(len);
        contents.len = len;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A clock that stands still.
#[derive(Debug)]
struct StoppedClock;

impl Clock for StoppedClock {
    fn now_ms(&self) -> i64 {
        1_760_000_000_000
    }

    fn monotonic_us(&self) -> u64 {
        0
    }
}
