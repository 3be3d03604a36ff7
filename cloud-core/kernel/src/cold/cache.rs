//! Reads from the cold store: verified, kept in bounded memory (and on a bounded part of the disk where the store is far away), asked for
//! once however many want it, and ahead of a reader that goes on.
//!
//! Knows nothing of segments: a [`Part`] is some bytes of an object and the checksum they must have.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::disk_tier::DiskTier;
use super::memory_tier::MemoryTier;
use crate::config::KernelConfig;
use crate::limits;
use crate::ports::cold::{ALONE_BYTES, ColdError, ColdStore, Spawner};
use crate::ports::{Clock, Ports};
use crate::wal::writer::Written;

/// Some bytes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Where they begin.
    pub position: u64,
    /// How many they are.
    pub length: u32,
    /// CRC-32C that they must have.
    pub crc: u32,
}

impl Part {
    fn end(&self) -> u64 {
        self.position + u64::from(self.length)
    }

    /// Whether these are the bytes.
    pub fn fits(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.length as usize && crc32c::crc32c(bytes) == self.crc
    }
}

/// Object and position: what a part is known by. Objects never change, so neither do parts.
pub(crate) type PartKey = (Arc<str>, u64);

/// Why a part could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchError {
    /// The store failed.
    #[error(transparent)]
    Cold(#[from] ColdError),
    /// The store has other bytes than were written, twice.
    #[error("object {object} is damaged at {position}, {length} bytes: their checksum is wrong")]
    Corrupt {
        /// The object.
        object: String,
        /// Where the damaged part begins.
        position: u64,
        /// How many bytes it has.
        length: u32,
    },
}

type Fetched = Result<Bytes, FetchError>;
/// `None` until it is there. When the sender is gone without an answer, whoever waits asks again.
type Answer = Option<Fetched>;

/// What the cache has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ColdCacheStats {
    /// Chunks asked for that were in memory.
    pub memory_hits: u64,
    /// Chunks that were on the disk.
    pub disk_hits: u64,
    /// Chunks that somebody else was already fetching, most often ahead of their reader.
    pub joined: u64,
    /// Chunks that a reader had to wait for because nobody had asked for them before.
    pub misses: u64,
    /// Requests to the store.
    pub requests: u64,
    /// Bytes that the store gave.
    pub bytes: u64,
    /// Chunks whose checksum was wrong at the first attempt, from the disk or from the store.
    pub damaged: u64,
    /// Bytes in memory now.
    pub memory_bytes: u64,
    /// Bytes on the disk now.
    pub disk_bytes: u64,
    /// Chunks written to the disk.
    pub disk_writes: u64,
}

#[derive(Default)]
struct Counters {
    memory_hits: AtomicU64,
    disk_hits: AtomicU64,
    joined: AtomicU64,
    misses: AtomicU64,
    requests: AtomicU64,
    bytes: AtomicU64,
    damaged: AtomicU64,
}

struct Now {
    memory: MemoryTier,
    /// What is being fetched.
    flights: HashMap<PartKey, watch::Receiver<Answer>>,
    /// Bytes being fetched ahead of readers.
    ahead_bytes: usize,
}

/// The cache of one kernel.
pub(crate) struct ColdCache {
    cold: Arc<dyn ColdStore>,
    spawner: Arc<dyn Spawner>,
    /// Where the store may share a device with the log: to make way for it.
    beside: Option<BesideLog>,
    now: Mutex<Now>,
    disk: Option<Arc<DiskTier>>,
    requests: Semaphore,
    /// Fewer than `requests`, so that those who wait find one free beside what is fetched ahead.
    ahead: Semaphore,
    /// Most bytes fetched ahead at a time, over all readers: no more than the memory holds beside what is being read.
    ahead_bound: usize,
    /// Most bytes of one request that joins neighbours.
    coalesce_bytes: usize,
    counters: Counters,
}

/// What to know of the log for not being in its way. A sync waits for all that the device was asked for before.
struct BesideLog {
    log: Arc<Written>,
    clock: Arc<dyn Clock>,
    one: Semaphore,
}

impl BesideLog {
    fn is_in_use(&self) -> bool {
        self.log.is_in_use(self.clock.monotonic_us())
    }
}

impl Now {
    fn knows(&self, key: &PartKey) -> bool {
        self.memory.contains(key) || self.flights.contains_key(key)
    }
}

enum Look {
    Here(Bytes),
    Wait(watch::Receiver<Answer>),
    Fetch(Run),
}

impl ColdCache {
    /// Nothing is kept from an earlier run.
    pub fn open(ports: &Ports, config: &KernelConfig, log: &Arc<Written>) -> Arc<ColdCache> {
        let local = ports.cold.is_local();
        let disk = (!local && config.cold_cache_disk_bytes > 0)
            .then(|| DiskTier::open(ports, config))
            .flatten();
        let memory_bytes = config.cold_cache_memory_bytes;
        let (requests, ahead) = match local {
            true => (limits::LOCAL_REQUESTS, limits::LOCAL_REQUESTS_AHEAD),
            false => (limits::COLD_REQUESTS, limits::COLD_REQUESTS_AHEAD),
        };
        Arc::new(ColdCache {
            cold: ports.cold.clone(),
            spawner: ports.spawner.clone(),
            beside: local.then(|| BesideLog {
                log: log.clone(),
                clock: ports.clock.clone(),
                one: Semaphore::new(1),
            }),
            now: Mutex::new(Now {
                memory: MemoryTier::new(memory_bytes),
                flights: HashMap::new(),
                ahead_bytes: 0,
            }),
            disk,
            requests: Semaphore::new(requests),
            ahead: Semaphore::new(ahead),
            ahead_bound: memory_bytes / 2,
            // A request to a directory costs next to nothing, so there is nothing to win by joining, and a copy to lose.
            coalesce_bytes: match local {
                true => 0,
                false => limits::COLD_COALESCE_BYTES.min(config.cold_readahead_bytes / 4),
            },
            counters: Counters::default(),
        })
    }

    /// The bytes of a part, verified.
    pub async fn get(self: &Arc<Self>, object: &Arc<str>, part: Part) -> Fetched {
        loop {
            let look = self.look(object, part);
            let mut flight = match look {
                Look::Here(bytes) => return Ok(bytes),
                Look::Wait(flight) => flight,
                Look::Fetch(run) => return run.fetch().await,
            };
            // An error is that the fetch was given up: then it is our turn.
            if let Ok(answer) = flight.wait_for(Option::is_some).await
                && let Some(fetched) = &*answer
            {
                return fetched.clone();
            }
        }
    }

    fn look(self: &Arc<Self>, object: &Arc<str>, part: Part) -> Look {
        let key = (object.clone(), part.position);
        let mut now = self.now.lock();
        if let Some(bytes) = now.memory.get(&key) {
            count(&self.counters.memory_hits, 1);
            return Look::Here(bytes);
        }
        if let Some(flight) = now.flights.get(&key) {
            count(&self.counters.joined, 1);
            return Look::Wait(flight.clone());
        }
        let mut run = Run::new(self, object, false);
        run.add(&mut now, part);
        Look::Fetch(run)
    }

    /// Fetches parts, in the order in which they will be read, before anybody asks: the first `bytes` of them, less what is here or on its
    /// way. Nobody is told of failures: whoever asks for the part then tries again.
    pub fn readahead(
        self: &Arc<Self>,
        object: &Arc<str>,
        parts: impl Iterator<Item = Part>,
        bytes: usize,
    ) {
        for group in self.plan_ahead(object, parts, bytes) {
            let (cache, object) = (self.clone(), object.clone());
            self.spawner
                .spawn(Box::pin(async move { cache.ahead(&object, group).await }));
        }
    }

    /// What is missing, in groups that are fetched beside each other.
    fn plan_ahead(
        &self,
        object: &Arc<str>,
        parts: impl Iterator<Item = Part>,
        most: usize,
    ) -> Vec<Vec<Part>> {
        let mut groups: Vec<Vec<Part>> = Vec::new();
        let mut bytes = 0;
        let mut open = false;
        let now = self.now.lock();
        for part in parts {
            bytes += part.length as usize;
            if bytes > most {
                // The last request may still grow: it is made when the reader has come nearer. Else every request would be for one part.
                if open && self.coalesce_bytes > 0 {
                    groups.pop();
                }
                break;
            }
            let key = (object.clone(), part.position);
            if now.knows(&key) {
                continue;
            }
            let on_disk = self.disk.as_ref().is_some_and(|disk| disk.contains(&key));
            match groups.last_mut() {
                Some(group)
                    if open && !on_disk && self.joins(group.first(), group.last(), &part) =>
                {
                    group.push(part);
                }
                _ => groups.push(vec![part]),
            }
            open = !on_disk;
        }
        groups
    }

    /// Whether a part can be asked for together with those from `first` to `last`.
    fn joins(&self, first: Option<&Part>, last: Option<&Part>, next: &Part) -> bool {
        let (Some(first), Some(last)) = (first, last) else {
            return false;
        };
        last.end() == next.position && next.end() - first.position <= self.coalesce_bytes as u64
    }

    /// Fetches a group. Only now it is announced as being on its way: a spawner may let tasks wait, and a reader shall not wait for that.
    async fn ahead(self: &Arc<Self>, object: &Arc<str>, group: Vec<Part>) {
        let mut runs: Vec<Run> = Vec::new();
        {
            let mut now = self.now.lock();
            for part in group {
                if now.knows(&(object.clone(), part.position)) {
                    continue;
                }
                if now.ahead_bytes + part.length as usize > self.ahead_bound {
                    break;
                }
                now.ahead_bytes += part.length as usize;
                match runs.last_mut() {
                    Some(run) if run.takes(&part) => run.add(&mut now, part),
                    _ => {
                        let mut run = Run::new(self, object, true);
                        run.add(&mut now, part);
                        runs.push(run);
                    }
                }
            }
        }
        for run in runs {
            run.ahead().await;
        }
    }

    /// What was done so far.
    pub fn stats(&self) -> ColdCacheStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let disk = self.disk.as_ref().map(|disk| disk.figures());
        let (disk_bytes, disk_writes) = disk.unwrap_or_default();
        ColdCacheStats {
            memory_hits: read(&counters.memory_hits),
            disk_hits: read(&counters.disk_hits),
            joined: read(&counters.joined),
            misses: read(&counters.misses),
            requests: read(&counters.requests),
            bytes: read(&counters.bytes),
            damaged: read(&counters.damaged),
            memory_bytes: self.now.lock().memory.bytes() as u64,
            disk_bytes,
            disk_writes,
        }
    }

    /// Reads in pieces, one at a time over all readers, for as long as the log is in use.
    async fn get_beside_log(
        &self,
        beside: &BesideLog,
        object: &str,
        from: u64,
        to: u64,
    ) -> Result<Bytes, ColdError> {
        let mut all = BytesMut::with_capacity((to - from) as usize);
        let mut at = from;
        while at < to {
            let end = match beside.is_in_use() {
                true => to.min(at + ALONE_BYTES),
                false => to,
            };
            // Never closed.
            let _permit = beside.one.acquire().await;
            all.extend_from_slice(&self.cold.get(object, at..end).await?);
            at = end;
        }
        Ok(all.freeze())
    }

    /// One request.
    async fn request(&self, object: &str, from: u64, to: u64) -> Result<Bytes, ColdError> {
        // The semaphores are never closed; without a permit the request would only come too early.
        let _permit = self.requests.acquire().await;
        count(&self.counters.requests, 1);
        let bytes = match &self.beside {
            Some(beside) if beside.is_in_use() => {
                self.get_beside_log(beside, object, from, to).await?
            }
            _ => self.cold.get(object, from..to).await?,
        };
        count(&self.counters.bytes, bytes.len() as u64);
        if bytes.len() as u64 == to - from {
            Ok(bytes)
        } else {
            Err(ColdError::Unavailable(format!(
                "{object}: {} bytes came for {from}..{to}",
                bytes.len()
            )))
        }
    }
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// Neighbouring parts that are fetched with one request. Dropped before it is done, it leaves its parts to whoever asks next.
struct Run {
    cache: Arc<ColdCache>,
    object: Arc<str>,
    /// What is still to be answered, in the order of positions.
    parts: Vec<(Part, watch::Sender<Answer>)>,
    /// Nobody waits for it yet.
    is_ahead: bool,
}

impl Run {
    fn new(cache: &Arc<ColdCache>, object: &Arc<str>, is_ahead: bool) -> Run {
        Run {
            cache: cache.clone(),
            object: object.clone(),
            parts: Vec::new(),
            is_ahead,
        }
    }

    fn add(&mut self, now: &mut Now, part: Part) {
        let (sender, receiver) = watch::channel(None);
        now.flights
            .insert((self.object.clone(), part.position), receiver);
        self.parts.push((part, sender));
    }

    fn takes(&self, next: &Part) -> bool {
        let first = self.parts.first().map(|(part, _)| part);
        let last = self.parts.last().map(|(part, _)| part);
        self.cache.joins(first, last, next)
    }

    async fn ahead(mut self) {
        let cache = self.cache.clone();
        if self.ask_disk().await.is_some() {
            return;
        }
        let _permit = cache.ahead.acquire().await;
        let _ = self.ask_store().await;
    }

    async fn fetch(mut self) -> Fetched {
        if let Some(bytes) = self.ask_disk().await {
            count(&self.cache.counters.disk_hits, 1);
            return Ok(bytes);
        }
        count(&self.cache.counters.misses, 1);
        match self.ask_store().await {
            Ok(Some(fetched)) => fetched,
            // A run that somebody waits for has a part.
            Ok(None) => Err(ColdError::Unavailable("nothing was asked for".to_owned()).into()),
            Err(error) => {
                let failed = Err(FetchError::Cold(error));
                while !self.parts.is_empty() {
                    self.answer(failed.clone());
                }
                failed
            }
        }
    }

    /// A part on the disk is a run of its own.
    async fn ask_disk(&mut self) -> Option<Bytes> {
        let disk = self.cache.disk.clone()?;
        let (part, _) = self.parts.first().filter(|_| self.parts.len() == 1)?;
        let part = *part;
        let key = (self.object.clone(), part.position);
        let read = disk.read(&key).await?;
        if !part.fits(&read) {
            count(&self.cache.counters.damaged, 1);
            disk.forget(&key).await;
            return None;
        }
        self.answer(Ok(read.clone()));
        Some(read)
    }

    /// Answers every part, and gives the first; an error answers none.
    async fn ask_store(&mut self) -> Result<Option<Fetched>, ColdError> {
        let (Some((first, _)), Some((last, _))) = (self.parts.first(), self.parts.last()) else {
            return Ok(None);
        };
        let (from, to, alone) = (first.position, last.end(), self.parts.len() == 1);
        let cache = self.cache.clone();
        let mut all = cache.request(&self.object, from, to).await?;
        let mut given = None;
        while let Some((part, _)) = self.parts.first() {
            let part = *part;
            let bytes = all.split_to((part.length as usize).min(all.len()));
            let fetched = if part.fits(&bytes) {
                // A piece would keep the whole answer in memory for as long as it is cached.
                Ok(if alone {
                    bytes
                } else {
                    Bytes::copy_from_slice(&bytes)
                })
            } else {
                self.once_more(part).await
            };
            if let (Ok(bytes), Some(disk)) = (&fetched, &cache.disk) {
                let key = (self.object.clone(), part.position);
                disk.keep(&cache.spawner, key, bytes.clone());
            }
            if given.is_none() {
                given = Some(fetched.clone());
            }
            self.answer(fetched);
        }
        Ok(given)
    }

    /// The network may have damaged it; what comes wrong twice is wrong in the store.
    async fn once_more(&self, part: Part) -> Fetched {
        count(&self.cache.counters.damaged, 1);
        let request = self.cache.request(&self.object, part.position, part.end());
        let bytes = request.await?;
        if part.fits(&bytes) {
            Ok(bytes)
        } else {
            Err(FetchError::Corrupt {
                object: self.object.to_string(),
                position: part.position,
                length: part.length,
            })
        }
    }

    /// Answers the first part that waits.
    fn answer(&mut self, fetched: Fetched) {
        if self.parts.is_empty() {
            return;
        }
        let (part, sender) = self.parts.remove(0);
        let key = (self.object.clone(), part.position);
        {
            let mut now = self.cache.now.lock();
            self.leave(&mut now, &key, part);
            if let Ok(bytes) = &fetched {
                now.memory.insert(key, bytes.clone());
            }
        }
        // Nobody may be waiting.
        let _ = sender.send(Some(fetched));
    }

    fn leave(&self, now: &mut Now, key: &PartKey, part: Part) {
        now.flights.remove(key);
        if self.is_ahead {
            now.ahead_bytes = now.ahead_bytes.saturating_sub(part.length as usize);
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.parts.is_empty() {
            return;
        }
        let mut now = self.cache.now.lock();
        for (part, _) in &self.parts {
            self.leave(&mut now, &(self.object.clone(), part.position), *part);
        }
    }
}
