//! A disk in memory that keeps its promises and no more. What was not synced may be lost at a power cut, wholly, in part or with holes, sector
//! by sector and name by name; syncs fail, writes and syncs do not come back, room runs out, bits flip, and every operation may be the last.

mod file;
mod hang;
mod names;

use std::io;
use std::sync::Arc;

use kernel::ports::{Disk, DiskFile};
use parking_lot::{Mutex, MutexGuard};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use file::Cut;
pub use file::SECTOR;
use hang::Gate;
pub use hang::Hang;
use names::{File, Tree};

use crate::clock::SimClock;
use crate::trace::Trace;

/// What a failed sync leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncFailure {
    /// Every later sync fails, too.
    ForEver,
    /// Later syncs say they worked, but what this one should have written is not written by them. The process still reads it.
    Once,
    /// Like `Once`, and the process reads what was there before.
    OnceAndForgets,
}

struct Inner {
    tree: Tree,
    /// Operations until the power goes; `None` = it stays.
    fuse: Option<u64>,
    off: bool,
    /// Syncs that work until one fails, and how.
    sync_fuse: Option<(u64, SyncFailure)>,
    /// Operations until one fails for no reason, once.
    error_fuse: Option<u64>,
    /// Bytes that the files together may have; `None` = enough.
    capacity: Option<u64>,
    /// The lock file is taken.
    locked: bool,
    /// Bytes written and operations begun since the disk was made.
    written: u64,
    operations: u64,
    /// File and lowest position of the last sync that had something to write.
    last_synced: Option<(File, u64)>,
    /// How long an operation that writes takes at most, in microseconds of virtual time.
    slow: Option<(SimClock, u64)>,
    rng: StdRng,
    trace: Trace,
}

/// A disk; clones are the same one.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Inner>>, Arc<Gate>);

struct SimFile {
    disk: SimDisk,
    path: String,
    contents: File,
    write: bool,
}

struct Lock(SimDisk);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.0.lock().locked = false;
    }
}

impl Default for SimDisk {
    fn default() -> Self {
        SimDisk::new(0, Trace::default())
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new(seed: u64, trace: Trace) -> SimDisk {
        SimDisk::found(Tree::default(), seed, trace)
    }

    fn found(tree: Tree, seed: u64, trace: Trace) -> SimDisk {
        let inner = Inner {
            tree,
            fuse: None,
            off: false,
            sync_fuse: None,
            error_fuse: None,
            capacity: None,
            locked: false,
            written: 0,
            operations: 0,
            last_synced: None,
            slow: None,
            rng: StdRng::seed_from_u64(seed),
            trace,
        };
        SimDisk(Arc::new(Mutex::new(inner)), Arc::default())
    }

    /// The power goes after so many operations.
    pub fn crash_after(&self, operations: u64) {
        self.0.lock().fuse = Some(operations);
    }

    /// The power stays.
    pub fn never_crash(&self) {
        self.0.lock().fuse = None;
    }

    /// Whether the power went.
    pub fn is_off(&self) -> bool {
        self.0.lock().off
    }

    /// No room for more bytes than there are, or room again.
    pub fn fill(&self, full: bool) {
        let mut inner = self.0.lock();
        inner.capacity = full.then(|| inner.used());
    }

    /// Room for so many bytes in all; `None` = enough.
    pub fn limit(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.0.lock().used()
    }

    /// Bytes of the files in a directory.
    pub fn used_in(&self, directory: &str) -> u64 {
        let inner = self.0.lock();
        let files = inner.tree.now.files.iter();
        files
            .filter(|(path, _)| names::parent(path) == directory)
            .map(|(_, file)| file.lock().now.len() as u64)
            .sum()
    }

    /// The sync after so many others fails, and all later ones.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.fail_sync(syncs, SyncFailure::ForEver);
    }

    /// The sync after so many others fails.
    pub fn fail_sync(&self, after: u64, how: SyncFailure) {
        self.0.lock().sync_fuse = Some((after, how));
    }

    /// The operation after so many others fails, once.
    pub fn fail_operation(&self, after: u64) {
        self.0.lock().error_fuse = Some(after);
    }

    /// From now on operations of that kind do not come back; the thread that asked is held until [`SimDisk::answer`].
    pub fn hang(&self, what: Hang) {
        self.1.close(what);
    }

    /// Returns when an operation hangs.
    pub fn wait_hanging(&self) {
        self.1.wait_for_one();
    }

    /// What hangs goes on, as if it had only been slow.
    pub fn answer(&self) {
        self.1.open();
    }

    /// The faults that were set do not happen.
    pub fn be_healthy(&self) {
        let mut inner = self.0.lock();
        inner.fuse = None;
        inner.sync_fuse = None;
        inner.error_fuse = None;
        inner.capacity = None;
    }

    /// Writes and syncs take up to so many microseconds.
    pub fn slow(&self, clock: SimClock, us: u64) {
        self.0.lock().slow = (us > 0).then_some((clock, us));
    }

    /// Bytes written and operations begun since this disk was made or found.
    pub fn totals(&self) -> (u64, u64) {
        let inner = self.0.lock();
        (inner.written, inner.operations)
    }

    /// What the next process finds after the power went.
    pub fn after_crash(&self, seed: u64) -> SimDisk {
        self.0.lock().off = true;
        self.would_leave(seed)
    }

    /// What the next process would find if the power went now; it does not.
    pub fn would_leave(&self, seed: u64) -> SimDisk {
        let mut rng = StdRng::seed_from_u64(seed);
        let inner = self.0.lock();
        let names = inner.tree.after_power_cut(&mut rng);
        let same = rng.random_bool(0.3).then(|| Cut::any(&mut rng));
        let tree = Tree::rebuilt(&names, |file| {
            let cut = same.unwrap_or_else(|| Cut::any(&mut rng));
            file.lock().after_power_cut(cut, &mut rng)
        });
        drop(names);
        SimDisk::found(tree, rng.random(), inner.trace.clone())
    }

    /// What the next process finds when only the process died: everything as it was, also what was not synced.
    pub fn after_kill(&self, seed: u64) -> SimDisk {
        let mut inner = self.0.lock();
        inner.off = true;
        SimDisk::found(inner.tree.clone(), seed, inner.trace.clone())
    }

    /// Another disk with the same files, as somebody makes a copy who copies while nobody looks: this one goes on.
    pub fn copy(&self, seed: u64) -> SimDisk {
        let inner = self.0.lock();
        let tree = Tree::rebuilt(&inner.tree.now, |file| file.lock().copy());
        SimDisk::found(tree, seed, inner.trace.clone())
    }

    /// How many bytes more there is room for.
    pub fn room(&self) -> u64 {
        self.0.lock().room() as u64
    }

    /// Names of the directories in a directory.
    pub fn directories(&self, directory: &str) -> Vec<String> {
        self.0.lock().tree.now.directories_in(directory)
    }

    /// Paths of the files in a directory.
    pub fn names(&self, directory: &str) -> Vec<String> {
        let inner = self.0.lock();
        let files = inner.tree.now.files.keys();
        files
            .filter(|path| names::parent(path) == directory)
            .cloned()
            .collect()
    }

    /// Changes a file at rest, as a failing disk does.
    pub fn damage(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let inner = self.0.lock();
        inner.tree.now.files[path].lock().damage(change);
    }

    /// A file as a process reads it.
    pub fn bytes(&self, path: &str) -> Vec<u8> {
        self.0.lock().tree.now.files[path].lock().now.clone()
    }

    /// Path and lowest position of what the last sync that wrote anything made durable, if the file is still there.
    pub fn last_synced(&self) -> Option<(String, u64)> {
        let inner = self.0.lock();
        let (file, from) = inner.last_synced.as_ref()?;
        let mut names = inner.tree.now.files.iter();
        let (path, _) = names.find(|(_, found)| Arc::ptr_eq(found, file))?;
        Some((path.clone(), *from))
    }

    /// Begins an operation: the power may go, an error may come.
    fn operate(&self, line: std::fmt::Arguments<'_>) -> io::Result<MutexGuard<'_, Inner>> {
        let mut inner = self.0.lock();
        inner.operations += 1;
        if !inner.off {
            inner.trace.note(line);
        }
        match inner.fuse {
            Some(0) if !inner.off => {
                inner.off = true;
                inner.trace.note(format_args!("the power is off"));
            }
            Some(0) | None => {}
            Some(left) => inner.fuse = Some(left - 1),
        }
        if inner.off {
            return Err(io::Error::other("the power is off"));
        }
        match inner.error_fuse {
            Some(0) => {
                inner.error_fuse = None;
                inner.trace.note(format_args!("it fails"));
                return Err(io::Error::other("the disk failed"));
            }
            Some(left) => inner.error_fuse = Some(left - 1),
            None => {}
        }
        Ok(inner)
    }
}

impl Inner {
    fn used(&self) -> u64 {
        let files = self.tree.now.files.values();
        files.map(|file| file.lock().now.len() as u64).sum()
    }

    /// How many bytes more there is room for.
    fn room(&self) -> usize {
        match self.capacity {
            Some(capacity) => usize::try_from(capacity.saturating_sub(self.used())).unwrap_or(0),
            None => usize::MAX,
        }
    }

    fn find(&self, path: &str) -> io::Result<File> {
        let found = self.tree.now.files.get(path).cloned();
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn take_time(&mut self) {
        if let Some((clock, us)) = &self.slow {
            clock.advance(self.rng.random_range(0..=*us));
        }
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, path: &str) -> io::Result<()> {
        let mut inner = self.operate(format_args!("disk create_dir {path}"))?;
        inner.tree.make(path);
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let inner = self.operate(format_args!("disk list {dir}"))?;
        if !inner.tree.now.has_directory(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let paths = inner.tree.now.files.keys();
        let inside = paths.filter(|path| names::parent(path) == dir);
        Ok(inside
            .filter_map(|path| path.rsplit('/').next().map(str::to_owned))
            .collect())
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.operate(format_args!("disk create {path}"))?;
        if inner.tree.now.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !inner.tree.now.has_directory(names::parent(path)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let contents = inner.tree.create(path);
        drop(inner);
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            path: path.to_owned(),
            contents,
            write: true,
        }))
    }

    fn open(&self, path: &str, write: bool) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.operate(format_args!("disk open {path} {write}"))?;
        let contents = inner.find(path)?;
        drop(inner);
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            path: path.to_owned(),
            contents,
            write,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.operate(format_args!("disk rename {from} {to}"))?;
        let file = inner.find(from)?;
        inner.tree.rename(from, to, file);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut inner = self.operate(format_args!("disk remove {path}"))?;
        let file = inner.find(path)?;
        inner.tree.remove(path, file);
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut inner = self.operate(format_args!("disk sync_dir {dir}"))?;
        inner.take_time();
        inner.tree.sync(dir);
        Ok(())
    }

    fn lock(&self, path: &str) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let mut inner = self.operate(format_args!("disk lock {path}"))?;
        if std::mem::replace(&mut inner.locked, true) {
            return Ok(None);
        }
        Ok(Some(Box::new(Lock(self.clone()))))
    }
}

impl SimFile {
    fn operate(&self, line: std::fmt::Arguments<'_>) -> io::Result<MutexGuard<'_, Inner>> {
        self.disk.operate(line)
    }

    fn may_write(&self) -> io::Result<()> {
        if self.write {
            Ok(())
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.may_write()?;
        let bytes = parts.concat();
        let from = usize::try_from(position).map_err(io::Error::other)?;
        let len = bytes.len();
        self.disk.1.pass(Hang::Write);
        match self.operate(format_args!("disk write {} {from} {len}", self.path)) {
            Ok(mut inner) => {
                inner.take_time();
                let room = inner.room();
                let mut contents = self.contents.lock();
                let grows = (from + len).saturating_sub(contents.now.len());
                // What there is no room for is cut off at the end; the rest gets there.
                let fits = if grows <= room {
                    len
                } else {
                    len.saturating_sub(grows - room)
                };
                contents.write(from, &bytes[..fits]);
                inner.written += fits as u64;
                if fits < len {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Ok(())
            }
            Err(error) => {
                // Some of it got there.
                let mut inner = self.disk.0.lock();
                let most = len.min(inner.room());
                let some = inner.rng.random_range(0..=most);
                self.contents.lock().write(from, &bytes[..some]);
                Err(error)
            }
        }
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.may_write()?;
        let inner = self.operate(format_args!("disk allocate {} {len}", self.path))?;
        let room = inner.room();
        let mut contents = self.contents.lock();
        let len = usize::try_from(len).map_err(io::Error::other)?;
        if len.saturating_sub(contents.now.len()) > room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        contents.extend(len);
        Ok(())
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        let len = buffer.len();
        let _inner = self.operate(format_args!("disk read {} {position} {len}", self.path))?;
        let contents = self.contents.lock();
        let from = usize::try_from(position).map_err(io::Error::other)?;
        let found = from
            .checked_add(len)
            .and_then(|to| contents.now.get(from..to));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let _inner = self.operate(format_args!("disk len {}", self.path))?;
        Ok(self.contents.lock().now.len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.may_write()?;
        let _inner = self.operate(format_args!("disk truncate {} {len}", self.path))?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut contents = self.contents.lock();
        if len > contents.now.len() {
            contents.extend(len);
        } else {
            contents.truncate(len);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.1.pass(Hang::Sync);
        let mut inner = self.operate(format_args!("disk sync {}", self.path))?;
        inner.take_time();
        let mut contents = self.contents.lock();
        if let Some((left, how)) = inner.sync_fuse {
            if left == 0 {
                inner.trace.note(format_args!("it fails: {how:?}"));
                if how != SyncFailure::ForEver {
                    inner.sync_fuse = None;
                    contents.fail_sync(&mut inner.rng, how == SyncFailure::OnceAndForgets);
                }
                return Err(io::Error::other("the disk failed to sync"));
            }
            inner.sync_fuse = Some((left - 1, how));
        }
        if let Some(from) = contents.sync() {
            inner.last_synced = Some((self.contents.clone(), from));
        }
        Ok(())
    }
}
