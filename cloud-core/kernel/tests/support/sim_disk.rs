//! A disk in memory that keeps its promises and no more: what was not synced may be lost at a crash, wholly, in part, or with holes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use kernel::ports::{Clock, Disk, DiskFile};
use rand::{RngExt, SeedableRng, rngs::StdRng};

const SECTOR: usize = 512;

#[derive(Default)]
struct Contents {
    now: Vec<u8>,
    /// What is on the platter for sure.
    durable: Vec<u8>,
}

type File = Arc<Mutex<Contents>>;

#[derive(Default)]
struct Tree {
    /// Names as the process sees them, and as they are after a crash.
    now: BTreeMap<String, File>,
    durable: BTreeMap<String, File>,
    /// Operations until the power goes; `None` = it stays.
    fuse: Option<u64>,
    /// Operations until a sync fails.
    sync_fuse: Option<u64>,
    off: bool,
    full: bool,
}

impl Tree {
    fn operate(&mut self) -> io::Result<()> {
        if let Some(fuse) = &mut self.fuse {
            if *fuse == 0 {
                self.off = true;
            } else {
                *fuse -= 1;
            }
        }
        if self.off {
            Err(io::Error::other("the power is off"))
        } else {
            Ok(())
        }
    }
}

#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<Tree>>);

struct SimFile {
    tree: Arc<Mutex<Tree>>,
    contents: File,
}

impl SimDisk {
    /// The power goes after so many operations.
    pub fn crash_after(&self, operations: u64) {
        self.0.lock().unwrap().fuse = Some(operations);
    }

    /// No room for more bytes, or room again.
    pub fn fill(&self, full: bool) {
        self.0.lock().unwrap().full = full;
    }

    /// The sync after so many others fails.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.0.lock().unwrap().sync_fuse = Some(syncs);
    }

    /// What the next process finds after the power went: every unsynced sector is there or not, as chance has it.
    pub fn after_crash(&self, seed: u64) -> SimDisk {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut tree = self.0.lock().unwrap();
        tree.off = true;
        let mut found = Tree::default();
        // A directory that was not synced may have its changes or not; here: either all or none, but a synced one has them all.
        let names = if rng.random_bool(0.5) {
            &tree.now
        } else {
            &tree.durable
        };
        for (name, file) in names {
            let contents = file.lock().unwrap();
            let mut bytes = contents.durable.clone();
            if contents.now != contents.durable {
                let keep = rng.random_range(0..=contents.now.len().max(bytes.len()));
                let whole = rng.random_bool(0.3);
                bytes.resize(
                    contents
                        .now
                        .len()
                        .min(keep)
                        .max(contents.durable.len().min(contents.now.len())),
                    0,
                );
                for (at, chunk) in contents.now.chunks(SECTOR).enumerate() {
                    let from = at * SECTOR;
                    if (whole || rng.random_bool(0.6)) && from < bytes.len() {
                        let to = (from + chunk.len()).min(bytes.len());
                        bytes[from..to].copy_from_slice(&chunk[..to - from]);
                    }
                }
            }
            let file = Arc::new(Mutex::new(Contents {
                now: bytes.clone(),
                durable: bytes,
            }));
            found.now.insert(name.clone(), file.clone());
            found.durable.insert(name.clone(), file);
        }
        SimDisk(Arc::new(Mutex::new(found)))
    }

    pub fn names(&self, dir: &str) -> Vec<String> {
        let tree = self.0.lock().unwrap();
        tree.now
            .keys()
            .filter(|name| name.starts_with(&format!("{dir}/")))
            .cloned()
            .collect()
    }

    /// Changes a file at rest, as a failing disk does.
    pub fn damage(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let file = self.0.lock().unwrap().now[path].clone();
        let mut contents = file.lock().unwrap();
        change(&mut contents.now);
        contents.durable = contents.now.clone();
    }

    pub fn bytes(&self, path: &str) -> Vec<u8> {
        self.0.lock().unwrap().now[path].lock().unwrap().now.clone()
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for SimDisk {
    fn create_dir(&self, _: &str) -> io::Result<()> {
        self.0.lock().unwrap().operate()
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.0.lock().unwrap().operate()?;
        let prefix = format!("{dir}/");
        Ok(self
            .names(dir)
            .iter()
            .map(|name| name[prefix.len()..].to_owned())
            .collect())
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut tree = self.0.lock().unwrap();
        tree.operate()?;
        if tree.now.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let contents = File::default();
        tree.now.insert(path.to_owned(), contents.clone());
        Ok(Arc::new(SimFile {
            tree: self.0.clone(),
            contents,
        }))
    }

    fn open(&self, path: &str, _: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut tree = self.0.lock().unwrap();
        tree.operate()?;
        let contents = tree.now.get(path).cloned().ok_or_else(not_found)?;
        Ok(Arc::new(SimFile {
            tree: self.0.clone(),
            contents,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut tree = self.0.lock().unwrap();
        tree.operate()?;
        let file = tree.now.remove(from).ok_or_else(not_found)?;
        tree.now.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut tree = self.0.lock().unwrap();
        tree.operate()?;
        tree.now.remove(path).map(|_| ()).ok_or_else(not_found)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut tree = self.0.lock().unwrap();
        tree.operate()?;
        let inside = |name: &String| dir.is_empty() || name.starts_with(&format!("{dir}/"));
        let now: Vec<_> = tree
            .now
            .iter()
            .filter(|(name, _)| inside(name))
            .map(|(n, f)| (n.clone(), f.clone()))
            .collect();
        tree.durable.retain(|name, _| !inside(name));
        tree.durable.extend(now);
        Ok(())
    }

    fn lock(&self, _: &str) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.0.lock().unwrap().operate()?;
        Ok(Some(Box::new(())))
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, position: u64, parts: &[Bytes]) -> io::Result<()> {
        let (worked, full) = {
            let mut tree = self.tree.lock().unwrap();
            (tree.operate(), tree.full)
        };
        let mut contents = self.contents.lock().unwrap();
        let mut bytes = parts.concat();
        let from = position as usize;
        // There is room where something is, or was allocated.
        let no_room = full && from + bytes.len() > contents.now.len();
        if no_room {
            // A part of it may get there.
            bytes.truncate(parts.first().map_or(0, |first| first.len() / 2));
        }
        let end = contents.now.len().max(from + bytes.len());
        contents.now.resize(end, 0);
        // When the power goes all of it is on its way; the crash decides how much gets there.
        contents.now[from..from + bytes.len()].copy_from_slice(&bytes);
        worked?;
        if no_room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let full = {
            let mut tree = self.tree.lock().unwrap();
            tree.operate()?;
            tree.full
        };
        let mut contents = self.contents.lock().unwrap();
        let len = contents.now.len().max(len as usize);
        if full && len > contents.now.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        contents.now.resize(len, 0);
        Ok(())
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.tree.lock().unwrap().operate()?;
        let contents = self.contents.lock().unwrap();
        let from = position as usize;
        let found = contents
            .now
            .get(from..from + buffer.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.tree.lock().unwrap().operate()?;
        Ok(self.contents.lock().unwrap().now.len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.tree.lock().unwrap().operate()?;
        self.contents.lock().unwrap().now.truncate(len as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut tree = self.tree.lock().unwrap();
        tree.operate()?;
        if let Some(fuse) = &mut tree.sync_fuse {
            if *fuse == 0 {
                return Err(io::Error::other("the disk failed to sync"));
            }
            *fuse -= 1;
        }
        drop(tree);
        let mut contents = self.contents.lock().unwrap();
        contents.durable = contents.now.clone();
        Ok(())
    }
}

/// A clock that moves when it is told to.
#[derive(Default)]
pub struct SimClock(pub Mutex<i64>);

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        *self.0.lock().unwrap()
    }

    fn monotonic_us(&self) -> u64 {
        0
    }
}
