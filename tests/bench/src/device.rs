//! What the machine gives without us: sequential writes with fdatasync, page cache, memory copies, sequential reads.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::timing::cpu_time;

/// Bytes of a file that is written over and over.
const RING: u64 = 256 << 20;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// At its end: every fdatasync has to bring the new size to disk, too.
    Growing,
    /// Into room that was allocated before and never written: every fdatasync has to bring to disk that it is written now.
    Allocated,
    /// Over blocks that have been written before: fdatasync has only data to bring to disk.
    Recycled,
}

impl Layout {
    /// All of them.
    pub const ALL: [Layout; 3] = [Layout::Growing, Layout::Allocated, Layout::Recycled];

    /// In the table.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Growing => "growing file",
            Layout::Allocated => "allocated file",
            Layout::Recycled => "recycled file",
        }
    }
}

/// A file for raw writes; removed when dropped.
#[derive(Debug)]
pub struct RawFile {
    path: PathBuf,
    file: File,
    layout: Layout,
    position: u64,
}

impl RawFile {
    /// Makes the file; a recycled one is written once as a whole.
    pub fn new(dir: &Path, layout: Layout) -> io::Result<RawFile> {
        let path = dir.join(format!("raw-{layout:?}").to_lowercase());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        let mut raw = RawFile {
            path,
            file,
            layout,
            position: RING,
        };
        if layout == Layout::Recycled {
            let block = noise(1 << 20);
            for at in (0..RING).step_by(block.len()) {
                raw.file.write_all_at(&block, at)?;
            }
            raw.file.sync_all()?;
        }
        raw.make_room(RING)?;
        Ok(raw)
    }

    /// Begins anew where the file has no room for so many bytes.
    fn make_room(&mut self, len: u64) -> io::Result<()> {
        if self.position + len <= RING {
            return Ok(());
        }
        if self.layout != Layout::Recycled {
            self.file.set_len(0)?;
        }
        if self.layout == Layout::Allocated {
            rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), 0, RING)?;
        }
        self.file.sync_all()?;
        self.position = 0;
        Ok(())
    }

    /// Writes and syncs once; how long both together took.
    pub fn write_synced(&mut self, bytes: &[u8]) -> io::Result<Duration> {
        self.make_room(bytes.len() as u64)?;
        let start = Instant::now();
        self.write(bytes)?;
        self.file.sync_data()?;
        Ok(start.elapsed())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.position)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Writes `total` bytes in writes of `size`, each synced; how long it took.
    pub fn sequential(&mut self, size: usize, total: u64) -> io::Result<Duration> {
        let block = noise(size);
        let mut time = Duration::ZERO;
        for _ in 0..total.div_ceil(size as u64) {
            time += self.write_synced(&block)?;
        }
        Ok(time)
    }

    /// Writes `total` bytes into the page cache in writes of `size`; the time on the CPU that it took.
    pub fn cached(&mut self, size: usize, total: u64) -> io::Result<Duration> {
        let block = noise(size);
        let mut spent = Duration::ZERO;
        for _ in 0..total.div_ceil(size as u64) {
            self.make_room(size as u64)?;
            let before = cpu_time();
            self.write(&block)?;
            spent += cpu_time() - before;
        }
        Ok(spent)
    }
}

impl Drop for RawFile {
    fn drop(&mut self) {
        // It is gone with its directory at the latest.
        let _ = fs::remove_file(&self.path);
    }
}

/// Bytes that do not compress, the same every time.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

/// Memory to copy to, larger than the processor's cache, touched once.
#[derive(Debug)]
pub struct CopyTarget(Vec<u8>);

impl Default for CopyTarget {
    fn default() -> Self {
        CopyTarget(vec![1; 256 << 20])
    }
}

impl CopyTarget {
    /// Copies `total` bytes in pieces of `size`; the time on the CPU that it took.
    pub fn copy(&mut self, size: usize, total: u64) -> Duration {
        let from = noise(size);
        let before = cpu_time();
        let mut left = total;
        while left > 0 {
            for piece in self.0.chunks_exact_mut(size) {
                piece.copy_from_slice(&from);
                left = left.saturating_sub(size as u64);
                if left == 0 {
                    break;
                }
            }
        }
        let spent = cpu_time() - before;
        std::hint::black_box(&self.0);
        spent
    }
}

/// Brings the files below a directory to disk and asks the system to forget what it has of them in memory.
pub fn drop_cached(dir: &Path) -> io::Result<()> {
    for path in files(dir)? {
        let file = File::open(&path)?;
        file.sync_data()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

/// Reads the files below a directory one after the other in pieces of `size`: bytes and time.
pub fn read_all(dir: &Path, size: usize) -> io::Result<(u64, Duration)> {
    let paths = files(dir)?;
    let mut buffer = vec![0_u8; size];
    let start = Instant::now();
    let mut total = 0;
    for path in &paths {
        let file = File::open(path)?;
        let mut at = 0;
        loop {
            let read = file.read_at(&mut buffer, at)? as u64;
            if read == 0 {
                break;
            }
            at += read;
        }
        total += at;
    }
    Ok((total, start.elapsed()))
}

/// All files below a directory, by name.
pub fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What a device was given to write.
#[derive(Debug)]
pub struct WriteCounter {
    /// Of the device that a directory is on; `None` where it is on none of its own.
    stat: Option<PathBuf>,
}

impl WriteCounter {
    /// For the device below `dir`.
    pub fn of(dir: &Path) -> io::Result<WriteCounter> {
        let device = fs::metadata(dir)?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let stat = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"));
        Ok(WriteCounter {
            stat: stat.exists().then_some(stat),
        })
    }

    /// Where the figures come from.
    pub fn source(&self) -> &'static str {
        match self.stat {
            Some(_) => "sectors written to the device, by its own count",
            None => "write_bytes of /proc/self/io",
        }
    }

    /// Bytes so far. The device's own count has the journal of the file system in it, and what other programs write. What the system says of
    /// this process (less what was never written) counts memory instead: a large folio that is changed in one place counts whole.
    pub fn bytes(&self) -> io::Result<u64> {
        match &self.stat {
            Some(stat) => {
                let text = fs::read_to_string(stat)?;
                let sectors = text.split_whitespace().nth(6);
                let sectors = sectors.and_then(|s| s.parse::<u64>().ok());
                Ok(sectors.ok_or(io::ErrorKind::InvalidData)? * 512)
            }
            None => {
                let text = fs::read_to_string("/proc/self/io")?;
                let field = |name: &str| {
                    text.lines()
                        .find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
                        .unwrap_or(0)
                };
                Ok(field("write_bytes:").saturating_sub(field("cancelled_write_bytes:")))
            }
        }
    }
}
