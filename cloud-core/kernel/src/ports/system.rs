//! The production disk and clock: the only place of the kernel that touches the file system or reads the time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::cold::{ColdStore, Spawner};
use super::{Clock, Disk, DiskFile, Ports, private_below, private_directory, private_file};

/// Parts in one vectored write; Linux takes at most 1024 (UIO_MAXIOV).
const MAX_PARTS: usize = 1024;
/// Bytes in one vectored write. The device has the pieces of a large write to do while the next ones are copied, and the page cache takes them in pages
/// of that size at most: a larger one has to be found, and is often memory that the machine has not used before, which costs several times the copy.
const WRITE_PIECE: usize = 512 * 1024;
/// Zeros written at a time where the file system cannot reserve room.
const ZEROS: usize = 1024 * 1024;

impl Ports {
    /// Files below `root`, which is made (for its owner only, as all in it) if it is missing, the system's clock, tasks of the tokio runtime, and a cold store.
    pub fn system(root: impl Into<PathBuf>, cold: Arc<dyn ColdStore>) -> io::Result<Ports> {
        Ok(Ports {
            disk: Arc::new(SystemDisk::new(root)?),
            clock: Arc::new(SystemClock::default()),
            cold,
            spawner: Arc::new(TokioSpawner),
        })
    }
}

/// A directory of the file system.
#[derive(Debug)]
pub struct SystemDisk {
    root: PathBuf,
}

impl SystemDisk {
    /// Uses `root`, which is made if it is missing.
    pub fn new(root: impl Into<PathBuf>) -> io::Result<SystemDisk> {
        let root = root.into();
        private_directory(&root)?;
        Ok(SystemDisk { root })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(Path::new(path))
    }
}

impl Disk for SystemDisk {
    fn create_dir(&self, path: &str) -> io::Result<()> {
        private_below(&self.root, &self.path(path))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path(dir))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                // A name that is not UTF-8 is none of ours.
                if let Ok(name) = entry.file_name().into_string() {
                    names.push(name);
                }
            }
        }
        Ok(names)
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = private_file()
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.path(path))?;
        Ok(Arc::new(SystemFile { file }))
    }

    fn open(&self, path: &str, write: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(write)
            .open(self.path(path))?;
        Ok(Arc::new(SystemFile { file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.path(path))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        File::open(self.path(dir))?.sync_all()
    }

    fn lock(&self, path: &str) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let file = private_file()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.path(path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[derive(Debug)]
struct SystemFile {
    file: File,
}

impl DiskFile for SystemFile {
    fn write_at(&self, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        write_in_pieces(&self.file, position, parts)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        loop {
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return self.write_zeros(len),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, position)
    }

    fn next_data(&self, position: u64) -> io::Result<u64> {
        // All reads and writes say where; nobody uses the position that this moves.
        match rustix::fs::seek(&self.file, SeekFrom::Data(position)) {
            Ok(data) => Ok(data),
            Err(Errno::NXIO) => Ok(position.max(self.len()?)),
            // The file system cannot tell.
            Err(_) => Ok(position),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// What is left of a write.
struct Parts<'a, 'b> {
    parts: &'b [&'a [u8]],
    /// How much of the first part is written.
    written: usize,
}

impl<'a> Parts<'a, '_> {
    /// Puts what is written next into `piece`, and says how many bytes that is.
    fn next_piece(&mut self, piece: &mut Vec<IoSlice<'a>>) -> u64 {
        piece.clear();
        let mut room = WRITE_PIECE;
        while let Some((part, later)) = self.parts.split_first() {
            if room == 0 || piece.len() == MAX_PARTS {
                break;
            }
            let left = part.get(self.written..).unwrap_or_default();
            let taken = left.get(..room).unwrap_or(left);
            if !taken.is_empty() {
                piece.push(IoSlice::new(taken));
            }
            room -= taken.len();
            if taken.len() < left.len() {
                self.written += taken.len();
            } else {
                self.parts = later;
                self.written = 0;
            }
        }
        (WRITE_PIECE - room) as u64
    }
}

/// Writes parts one behind the other, so that the device has what is written to do while the rest is copied. They are not durable yet.
pub fn write_in_pieces(file: &File, position: u64, parts: &[&[u8]]) -> io::Result<()> {
    let (mut position, mut begun) = (position, position);
    let mut rest = Parts { parts, written: 0 };
    let mut piece = Vec::with_capacity(parts.len().min(MAX_PARTS));
    loop {
        let bytes = rest.next_piece(&mut piece);
        write_piece(file, position, &mut piece)?;
        if rest.parts.is_empty() {
            return Ok(());
        }
        position += bytes;
        // Many small parts make a short piece.
        if position - begun >= WRITE_PIECE as u64 {
            begin_writing(file, begun, position - begun)?;
            begun = position;
        }
    }
}

fn write_piece(file: &File, position: u64, piece: &mut [IoSlice<'_>]) -> io::Result<()> {
    let mut position = position;
    let mut rest = piece;
    while !rest.is_empty() {
        match rustix::io::pwritev(file, rest, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                position += written as u64;
                IoSlice::advance_slices(&mut rest, written);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl SystemFile {
    /// Makes the file `len` bytes long by writing them.
    fn write_zeros(&self, len: u64) -> io::Result<()> {
        let zeros = vec![0; ZEROS];
        let mut position = self.len()?;
        while position < len {
            let wanted = usize::try_from(len - position).map_or(ZEROS, |left| left.min(ZEROS));
            let part = zeros.get(..wanted).unwrap_or(&zeros);
            self.file.write_all_at(part, position)?;
            position += wanted as u64;
        }
        Ok(())
    }
}

/// Asks the system to hand these bytes of a file to the device now, and does not wait for it: that is what a sync is for, which has less to do then.
/// Says nothing about durability.
#[allow(unsafe_code)]
fn begin_writing(file: &File, position: u64, bytes: u64) -> io::Result<()> {
    let (Ok(from), Ok(len)) = (i64::try_from(position), i64::try_from(bytes)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // SAFETY: the call is given numbers only and touches no memory of this process; `file` keeps the descriptor open meanwhile.
    let result =
        unsafe { libc::sync_file_range(file.as_raw_fd(), from, len, libc::SYNC_FILE_RANGE_WRITE) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // A system that does not know or allow it, or a kind of file that it is not for.
        Some(libc::ENOSYS | libc::EPERM | libc::EINVAL | libc::ESPIPE) => Ok(()),
        _ => Err(error),
    }
}

/// The system's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock {
            start: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        // A clock before 1970 reads as 1970.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Tasks of the tokio runtime that the caller runs in.
#[derive(Debug)]
pub struct TokioSpawner;

impl Spawner for TokioSpawner {
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        // Outside of a runtime nothing is run beside: what is spawned is only ever work ahead of time.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(task);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_pieces_is_all_there_in_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let disk = SystemDisk::new(dir.path()).unwrap();
        let byte = |n: usize| u8::try_from(n % 251).unwrap();
        let bytes: Vec<u8> = (0..5 * WRITE_PIECE + 77).map(byte).collect();
        // Sizes of parts, used over and over: one large, pieces exactly, some empty, more than one call takes.
        let sizes: [&[usize]; 5] = [
            &[bytes.len()],
            &[WRITE_PIECE],
            &[0, WRITE_PIECE - 1, 0, 1, 3],
            &[700],
            &[64, 65_536, 0, 2 * WRITE_PIECE + 1],
        ];
        for (number, sizes) in sizes.iter().enumerate() {
            let mut parts = Vec::new();
            let mut left = bytes.as_slice();
            for size in sizes.iter().cycle() {
                let (part, later) = left.split_at((*size).min(left.len()));
                parts.push(part);
                left = later;
                if left.is_empty() {
                    break;
                }
            }
            let file = disk.create(&number.to_string()).unwrap();
            file.write_at(3, &parts).unwrap();
            file.write_at(3, &[]).unwrap();
            file.write_at(3, &[&[], &[]]).unwrap();
            assert_eq!(file.len().unwrap(), 3 + bytes.len() as u64, "{sizes:?}");
            let mut read = vec![0; bytes.len()];
            file.read_at(3, &mut read).unwrap();
            assert!(read == bytes, "{sizes:?}");
        }
    }

    #[test]
    fn a_kind_of_file_that_cannot_be_written_ahead_is_none_the_worse() {
        let (_reader, writer) = io::pipe().unwrap();
        let pipe = File::from(std::os::fd::OwnedFd::from(writer));
        begin_writing(&pipe, 0, 1).unwrap();
    }
}
