//! The disk, as a trait: production has [`RealDisk`], tests have one that loses what was not synced.

mod real;
#[cfg(any(test, feature = "simulated-disk"))]
mod simulated;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub use real::RealDisk;
#[cfg(any(test, feature = "simulated-disk"))]
pub use simulated::SimulatedDisk;

/// Files by path. Names become durable by [`Disk::sync_dir`] only, contents by [`DiskFile::sync`] only.
pub trait Disk: Send + Sync + 'static {
    /// Makes an empty file; an error if there is one of that name.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Names of the files of a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Names of the directories in a directory, in no order.
    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes a directory and those above it, durably.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that are free on the file system of a directory.
    fn room(&self, dir: &Path) -> io::Result<u64>;
}

/// Whether the error belongs to this file's place on the disk, so that trying again would not help (EIO, EBADMSG, EUCLEAN).
pub(crate) fn is_of_the_medium(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EBADMSG | libc::EUCLEAN)
    )
}

/// An open file. One writer, any number of readers.
pub trait DiskFile: Send + Sync {
    /// Writes at the end. After an error a part of it may stand there: [`DiskFile::truncate`] before going on.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;
    /// Resolves when content and length are durable. After an error nothing is known about what is: never repeated.
    fn sync(&self) -> io::Result<()>;
    /// Reads up to `buffer.len()` bytes; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    fn truncate(&self, len: u64) -> io::Result<()>;
}
