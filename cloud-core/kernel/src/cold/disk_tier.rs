//! Parts on the disk, for stores that are far away: one file a part, least recently used gone first.
//!
//! Nothing depends on it: the directory is emptied at each start, files are verified by whoever reads them, and an error of the disk means
//! only that nothing is kept for a while.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::cache::PartKey;
use crate::config::KernelConfig;
use crate::limits;
use crate::pool::Pool;
use crate::ports::cold::Spawner;
use crate::ports::{Clock, Disk, Ports};

/// The directory, in the data directory.
const DIRECTORY: &str = "cache";

struct Kept {
    used: u64,
    file: u64,
    length: usize,
}

#[derive(Default)]
struct Index {
    parts: HashMap<PartKey, Kept>,
    /// By the time of the last use.
    order: BTreeMap<u64, PartKey>,
    uses: u64,
    /// Bytes of the parts that are there.
    bytes: u64,
    /// Bytes of the files that are being written.
    writing: u64,
    /// Bytes that wait to be written.
    waiting: usize,
    next_file: u64,
    /// Parts written so far.
    written: u64,
    /// After an error nothing is written until then, by [`Clock::monotonic_us`].
    pause_until: u64,
}

/// A bounded number of bytes on the disk.
pub(crate) struct DiskTier {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    /// Threads of its own: the disk may be slow, and those who read the log do not wait for it.
    pool: Pool,
    limit: u64,
    index: Mutex<Index>,
}

impl DiskTier {
    /// `None`, with a line in the log, when the disk does not want it.
    pub fn open(ports: &Ports, config: &KernelConfig) -> Option<Arc<DiskTier>> {
        let open = || -> io::Result<Pool> {
            ports.disk.create_dir(DIRECTORY)?;
            for name in ports.disk.list(DIRECTORY)? {
                ports.disk.remove(&format!("{DIRECTORY}/{name}"))?;
            }
            let inline = config.reader_threads == 0;
            Pool::start(if inline {
                0
            } else {
                limits::COLD_CACHE_THREADS
            })
        };
        match open() {
            Ok(pool) => Some(Arc::new(DiskTier {
                disk: ports.disk.clone(),
                clock: ports.clock.clone(),
                pool,
                limit: config.cold_cache_disk_bytes,
                index: Mutex::new(Index::default()),
            })),
            Err(error) => {
                tracing::warn!(%error, "nothing of the cold store is cached on the disk: the directory {DIRECTORY} cannot be used");
                None
            }
        }
    }

    /// Bytes that are there now, and parts written so far.
    pub fn figures(&self) -> (u64, u64) {
        let index = self.index.lock();
        (index.bytes, index.written)
    }

    pub fn contains(&self, key: &PartKey) -> bool {
        self.index.lock().parts.contains_key(key)
    }

    /// The bytes of a part as they are on the disk, not verified.
    pub async fn read(self: &Arc<Self>, key: &PartKey) -> Option<Bytes> {
        let (file, length) = self.index.lock().touch(key)?;
        let tier = self.clone();
        let read = self.pool.run(move || {
            let mut buffer = vec![0; length];
            let file = tier.disk.open(&path(file), false)?;
            file.read_at(0, &mut buffer)?;
            io::Result::Ok(buffer)
        });
        match read.await? {
            Ok(buffer) => Some(buffer.into()),
            // It may just have been removed to make room.
            Err(error) => {
                tracing::debug!(%error, "cannot read from the cache of the cold store");
                self.forget(key).await;
                None
            }
        }
    }

    /// Removes a part that turned out to be unreadable.
    pub async fn forget(self: &Arc<Self>, key: &PartKey) {
        let Some(file) = self.index.lock().take(key) else {
            return;
        };
        let tier = self.clone();
        self.pool.run(move || tier.remove(file)).await;
    }

    /// Keeps a part, some time, unless more waits to be written than the disk can take.
    pub fn keep(self: &Arc<Self>, spawner: &Arc<dyn Spawner>, key: PartKey, bytes: Bytes) {
        let length = bytes.len();
        let now = self.clock.monotonic_us();
        {
            let mut index = self.index.lock();
            if length as u64 > self.limit
                || index.waiting + length > limits::COLD_CACHE_WAITING_BYTES
                || now < index.pause_until
                || index.parts.contains_key(&key)
            {
                return;
            }
            index.waiting += length;
        }
        let waiting = Waiting {
            tier: self.clone(),
            length,
        };
        let tier = self.clone();
        spawner.spawn(Box::pin(async move {
            let writing = tier.clone();
            tier.pool.run(move || writing.write(key, bytes)).await;
            drop(waiting);
        }));
    }

    fn write(&self, key: PartKey, bytes: Bytes) {
        let length = bytes.len();
        let (file, victims) = {
            let mut index = self.index.lock();
            let victims = index.make_room(self.limit, length as u64);
            index.writing += length as u64;
            index.next_file += 1;
            (index.next_file, victims)
        };
        for victim in victims {
            self.remove(victim);
        }
        let write = || -> io::Result<()> {
            let file = self.disk.create(&path(file))?;
            file.write_at(0, &[&bytes])?;
            // Not for its durability: so that what is cached never piles up in front of the log's own syncs.
            file.sync()
        };
        let written = write();
        let mut index = self.index.lock();
        index.writing -= length as u64;
        // Somebody else may have written the same part meanwhile.
        if written.is_ok() && !index.parts.contains_key(&key) {
            index.put(key, file, length);
            return;
        }
        if let Err(error) = written {
            tracing::warn!(%error, "the cache of the cold store cannot be written; it pauses");
            index.pause_until = self.clock.monotonic_us() + limits::COLD_CACHE_PAUSE_US;
        }
        drop(index);
        self.remove(file);
    }

    fn remove(&self, file: u64) {
        if let Err(error) = self.disk.remove(&path(file)) {
            // It is removed at the next start.
            tracing::debug!(%error, "cannot remove a file of the cache of the cold store");
        }
    }
}

/// Room in the queue of what waits, given back however it ends.
struct Waiting {
    tier: Arc<DiskTier>,
    length: usize,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.tier.index.lock().waiting -= self.length;
    }
}

impl Index {
    fn touch(&mut self, key: &PartKey) -> Option<(u64, usize)> {
        self.uses += 1;
        let kept = self.parts.get_mut(key)?;
        if let Some(key) = self.order.remove(&kept.used) {
            self.order.insert(self.uses, key);
        }
        kept.used = self.uses;
        Some((kept.file, kept.length))
    }

    fn take(&mut self, key: &PartKey) -> Option<u64> {
        let kept = self.parts.remove(key)?;
        self.order.remove(&kept.used);
        self.bytes -= kept.length as u64;
        Some(kept.file)
    }

    /// Files to be removed before `length` bytes are written.
    fn make_room(&mut self, limit: u64, length: u64) -> Vec<u64> {
        let mut victims = Vec::new();
        while self.bytes + self.writing + length > limit {
            let Some(key) = self.order.values().next().cloned() else {
                break;
            };
            victims.extend(self.take(&key));
        }
        victims
    }

    fn put(&mut self, key: PartKey, file: u64, length: usize) {
        self.uses += 1;
        self.bytes += length as u64;
        self.written += 1;
        self.order.insert(self.uses, key.clone());
        let kept = Kept {
            used: self.uses,
            file,
            length,
        };
        self.parts.insert(key, kept);
    }
}

fn path(file: u64) -> String {
    format!("{DIRECTORY}/{file:016x}.part")
}
