//! Where disk, time, the cold store and background tasks enter. Production has one implementation of each; tests have others, that
//! lose unsynced writes, tear them, fail, and stop time.

pub mod cold;
mod memory_cold;
mod private;
mod system;

use std::fmt;
use std::io;
use std::sync::Arc;

pub use cold::{ColdStore, Spawner};
pub use memory_cold::MemoryColdStore;
pub use private::{private_below, private_directory, private_file};
pub use system::{SystemClock, SystemDisk, TokioSpawner, write_in_pieces};

/// Everything the kernel needs from outside.
#[derive(Clone)]
pub struct Ports {
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Objects: where sealed segments go.
    pub cold: Arc<dyn ColdStore>,
    /// Runs what nobody waits for.
    pub spawner: Arc<dyn Spawner>,
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ports")
    }
}

/// A directory tree of files. Paths are relative, with `/` between the parts.
///
/// Durability: bytes of a file survive a crash after [`DiskFile::sync`]; a creation, rename or removal of a file survives
/// after [`Disk::sync_dir`] of its directory.
pub trait Disk: Send + Sync {
    /// Makes a directory and its parents; one that exists is no error.
    fn create_dir(&self, path: &str) -> io::Result<()>;
    /// Names (not paths) of the files in a directory, in any order.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Creates a file that must not exist, for writing and reading.
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file that exists, for reading, and for writing when `write`.
    fn open(&self, path: &str, write: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name; an existing file of that name is replaced in one step.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Makes creations, renames and removals in a directory durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Takes the file as a lock until the value is dropped; `None` when another process has it.
    fn lock(&self, path: &str) -> io::Result<Option<Box<dyn Send + Sync>>>;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Writes all parts, in order, from `position`; the file grows if that goes past its end. After an error any part of it may be
    /// there. One thread writes a file at a time.
    fn write_at(&self, position: u64, parts: &[&[u8]]) -> io::Result<()>;
    /// Reserves room on the disk for the first `len` bytes, so that writing there does not fail for want of room. The file is at least
    /// that long afterwards, and reads as zeros where nothing was written.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Reads exactly `buffer.len()` bytes from `position`; less is `UnexpectedEof`. Does not move anything.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// The first position at or after one where there may be something: what is before it was never written and reads as zeros; the size of the
    /// file if that is all that follows. Whoever does not know says that there is something at `position`.
    fn next_data(&self, position: u64) -> io::Result<u64> {
        Ok(position)
    }
    /// Size in bytes.
    fn len(&self) -> io::Result<u64>;
    /// True for a file of no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts the file.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Makes the bytes (and the size) durable: fdatasync. After an error nothing is known about what was written.
    fn sync(&self) -> io::Result<()>;
}

/// Wall time and a stop watch.
pub trait Clock: Send + Sync {
    /// Milliseconds since the epoch.
    fn now_ms(&self) -> i64;
    /// Microseconds since an arbitrary moment; never goes back.
    fn monotonic_us(&self) -> u64;
}
