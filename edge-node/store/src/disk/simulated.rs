//! A disk in memory whose power can be cut: of what was not synced, any part may be there afterwards.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, DiskFile};

#[derive(Default)]
struct Content {
    /// What a power cut leaves for certain.
    durable: Vec<u8>,
    /// What a reader sees.
    visible: Vec<u8>,
    /// Writes since the last sync: where, and what.
    unsynced: Vec<(usize, Vec<u8>)>,
}

type Inode = Arc<Mutex<Content>>;

#[derive(Default)]
struct State {
    names: HashMap<PathBuf, Inode>,
    durable_names: HashMap<PathBuf, Inode>,
    /// Goes up with every cut; files opened before it are dead.
    generation: u64,
    /// Bytes that may still be written; `None` = without end.
    room: Option<u64>,
    syncs_fail: bool,
    /// Sectors that can not be read, by their first byte.
    broken: Vec<(PathBuf, u64)>,
}

/// See the module. Clones share one disk.
#[derive(Clone, Default)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

struct SimulatedFile {
    inode: Inode,
    path: PathBuf,
    generation: u64,
    state: Arc<Mutex<State>>,
}

/// Bytes of a sector that can not be read.
const SECTOR: u64 = 4096;

/// A small generator, so that a seed means the same run for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

impl SimulatedDisk {
    pub fn new() -> SimulatedDisk {
        SimulatedDisk::default()
    }

    /// Cuts the power. Each write since the last sync is kept, lost, or torn; each name change since the last sync of the
    /// directory is kept or lost. Files that are open are dead: the process died with the power.
    pub fn cut_power(&self, seed: u64) {
        let mut random = Random(seed);
        let mut state = self.0.lock();
        state.generation += 1;
        let mut paths: Vec<PathBuf> = state
            .names
            .keys()
            .chain(state.durable_names.keys())
            .cloned()
            .collect();
        paths.sort();
        paths.dedup();
        let mut survivors = HashMap::new();
        for path in paths {
            let now = state.names.get(&path).cloned();
            let before = state.durable_names.get(&path).cloned();
            let kept = if random.below(2) == 0 { now } else { before };
            if let Some(inode) = kept {
                survivors.insert(path, inode);
            }
        }
        let mut sorted: Vec<_> = survivors.iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(b.0));
        for (_, inode) in sorted {
            let mut content = inode.lock();
            let mut bytes = std::mem::take(&mut content.durable);
            for (at, write) in std::mem::take(&mut content.unsynced) {
                let keep = match random.below(3) {
                    0 => 0,
                    1 => write.len(),
                    _ => random.below(write.len() as u64 + 1) as usize,
                };
                if keep == 0 {
                    continue;
                }
                // A write that was lost before one that was kept reads as zeros.
                if bytes.len() < at + keep {
                    bytes.resize(at + keep, 0);
                }
                bytes[at..at + keep].copy_from_slice(&write[..keep]);
            }
            content.visible = bytes.clone();
            content.durable = bytes;
        }
        state.durable_names = survivors.clone();
        state.names = survivors;
    }

    /// From now on this many bytes can be written, then the disk is full.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.0.lock().room = bytes;
    }

    pub fn fail_syncs(&self, fail: bool) {
        self.0.lock().syncs_fail = fail;
    }

    /// Flips one bit of a file, on the medium.
    pub fn flip_bit(&self, path: &Path, byte: usize) {
        if let Some(inode) = self.0.lock().names.get(path) {
            let mut content = inode.lock();
            if let Some(b) = content.visible.get_mut(byte) {
                *b ^= 1;
            }
            if let Some(b) = content.durable.get_mut(byte) {
                *b ^= 1;
            }
        }
    }

    /// From now on the sector that holds a byte can not be read.
    pub fn break_sector(&self, path: &Path, byte: u64) {
        let first = byte - byte % SECTOR;
        self.0.lock().broken.push((path.to_owned(), first));
    }

    fn handle(&self, path: &Path, inode: Inode, generation: u64) -> Arc<dyn DiskFile> {
        Arc::new(SimulatedFile {
            inode,
            path: path.to_owned(),
            generation,
            state: self.0.clone(),
        })
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, path.display().to_string())
}

impl Disk for SimulatedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = Inode::default();
        state.names.insert(path.to_owned(), inode.clone());
        Ok(self.handle(path, inode, state.generation))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.0.lock();
        let inode = state.names.get(path).ok_or_else(|| not_found(path))?;
        Ok(self.handle(path, inode.clone(), state.generation))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        Ok(state
            .names
            .keys()
            .filter(|path| path.parent() == Some(dir))
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect())
    }

    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        let inside = state.names.keys().filter_map(|path| path.parent());
        let inside = inside.filter(|path| path.parent() == Some(dir));
        let mut names: Vec<String> = inside
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = self.0.lock().names.remove(path);
        removed.map(|_| ()).ok_or_else(|| not_found(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let inode = state.names.remove(from).ok_or_else(|| not_found(from))?;
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let State {
            names,
            durable_names,
            ..
        } = &mut *state;
        durable_names.retain(|path, _| path.parent() != Some(dir));
        for (path, inode) in names.iter().filter(|(path, _)| path.parent() == Some(dir)) {
            durable_names.insert(path.clone(), inode.clone());
        }
        Ok(())
    }

    fn room(&self, _dir: &Path) -> io::Result<u64> {
        Ok(self.0.lock().room.unwrap_or(u64::MAX))
    }
}

impl SimulatedFile {
    fn alive(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let state = self.state.lock();
        if state.generation != self.generation {
            return Err(io::Error::other("the power was cut"));
        }
        Ok(state)
    }
}

impl DiskFile for SimulatedFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.alive()?;
        let taken = match &mut state.room {
            Some(room) => {
                let taken = (*room).min(bytes.len() as u64);
                *room -= taken;
                taken as usize
            }
            None => bytes.len(),
        };
        let mut content = self.inode.lock();
        let at = content.visible.len();
        content.visible.extend_from_slice(&bytes[..taken]);
        content.unsynced.push((at, bytes[..taken].to_vec()));
        if taken < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let state = self.alive()?;
        if state.syncs_fail {
            return Err(io::Error::other("the sync failed"));
        }
        let mut content = self.inode.lock();
        content.durable = content.visible.clone();
        content.unsynced.clear();
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.alive()?;
        let content = self.inode.lock();
        let from = (offset as usize).min(content.visible.len());
        let mut taken = buffer.len().min(content.visible.len() - from);
        let broken = state.broken.iter().filter(|(path, _)| *path == self.path);
        for (_, first) in broken {
            if (*first..first + SECTOR).contains(&offset) {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            if *first > offset {
                taken = taken.min((first - offset) as usize);
            }
        }
        buffer[..taken].copy_from_slice(&content.visible[from..from + taken]);
        Ok(taken)
    }

    fn len(&self) -> io::Result<u64> {
        let _state = self.alive()?;
        Ok(self.inode.lock().visible.len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let _state = self.alive()?;
        let mut content = self.inode.lock();
        content.visible.truncate(len as usize);
        content.unsynced.retain_mut(|(at, write)| {
            write.truncate((len as usize).saturating_sub(*at));
            !write.is_empty()
        });
        // A truncation that was not synced may or may not be there; keeping it is the simpler half, and what is cut
        // was never acknowledged either way.
        let keep = content.durable.len().min(len as usize);
        content.durable.truncate(keep);
        Ok(())
    }
}
