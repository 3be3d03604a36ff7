//! What a reader of the cold store may count on, and what the store is spared.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::cache::{ColdCache, FetchError, Part};
use crate::config::KernelConfig;
use crate::ports::cold::{
    ALONE_BYTES, ColdError, ColdFuture, ColdObject, ColdStore, Spawner, Upload,
};
use crate::ports::{MemoryColdStore, Ports, SystemDisk};
use crate::wal::writer::Written;

const CHUNK: u32 = 1000;
const OBJECT: &str = "log/segments/1";

/// A store in memory that is far away: it can be held up, damaged and broken.
#[derive(Default)]
struct Far {
    inner: MemoryColdStore,
    requests: Mutex<Vec<Range<u64>>>,
    /// Answers to damage, first ones first.
    damage: AtomicU64,
    broken: AtomicBool,
    /// When set, every request takes a permit.
    gate: Option<Semaphore>,
    /// It is not far away.
    near: bool,
    most_at_a_time: AtomicU64,
    at_a_time: AtomicU64,
}

impl ColdStore for Far {
    fn create(&self, key: &str, bytes: Bytes) -> ColdFuture<'_, ()> {
        self.inner.create(key, bytes)
    }
    fn upload(&self, key: &str) -> ColdFuture<'_, Box<dyn Upload>> {
        self.inner.upload(key)
    }
    fn get(&self, key: &str, range: Range<u64>) -> ColdFuture<'_, Bytes> {
        let key = key.to_owned();
        Box::pin(async move {
            self.requests.lock().push(range.clone());
            let now = self.at_a_time.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_at_a_time.fetch_max(now, Ordering::Relaxed);
            if let Some(gate) = &self.gate {
                gate.acquire().await.unwrap().forget();
            }
            self.at_a_time.fetch_sub(1, Ordering::Relaxed);
            if self.broken.load(Ordering::Relaxed) {
                return Err(ColdError::Unavailable("broken".to_owned()));
            }
            let bytes = self.inner.get(&key, range).await?;
            let damaged = |left: u64| left.checked_sub(1);
            match self
                .damage
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, damaged)
            {
                Ok(_) => {
                    let mut bytes = bytes.to_vec();
                    bytes[0] ^= 1;
                    Ok(bytes.into())
                }
                Err(_) => Ok(bytes),
            }
        })
    }
    fn size(&self, key: &str) -> ColdFuture<'_, u64> {
        self.inner.size(key)
    }
    fn list(&self, prefix: &str) -> ColdFuture<'_, Vec<ColdObject>> {
        self.inner.list(prefix)
    }
    fn delete(&self, key: &str) -> ColdFuture<'_, ()> {
        self.inner.delete(key)
    }
    fn is_local(&self) -> bool {
        self.near
    }
    fn location(&self) -> String {
        "far away".to_owned()
    }
}

struct Setup {
    store: Arc<Far>,
    cache: Arc<ColdCache>,
    object: Arc<str>,
    parts: Vec<Part>,
    whole: Bytes,
    ports: Ports,
    folder: tempfile::TempDir,
}

fn config() -> KernelConfig {
    KernelConfig {
        cold_cache_memory_bytes: 100 * CHUNK as usize,
        cold_cache_disk_bytes: 0,
        cold_readahead_bytes: AHEAD,
        ..KernelConfig::default()
    }
}

async fn setup(store: Far, config: &KernelConfig) -> Setup {
    let whole: Bytes = (0..200 * CHUNK)
        .map(|at| (at / CHUNK) as u8 ^ (at % 251) as u8)
        .collect::<Vec<u8>>()
        .into();
    store.create(OBJECT, whole.clone()).await.unwrap();
    let store = Arc::new(store);
    let folder = tempfile::tempdir().unwrap();
    let ports = Ports::system(folder.path(), store.clone()).unwrap();
    let parts = (0..200_u32).map(|number| {
        let from = (number * CHUNK) as usize;
        Part {
            position: from as u64,
            length: CHUNK,
            crc: crc32c::crc32c(&whole[from..from + CHUNK as usize]),
        }
    });
    Setup {
        cache: ColdCache::open(&ports, config, &Arc::default()),
        store,
        object: OBJECT.into(),
        parts: parts.collect(),
        whole,
        ports,
        folder,
    }
}

impl Setup {
    async fn read(&self, number: usize) {
        let part = self.parts[number];
        let bytes = self.cache.get(&self.object, part).await.unwrap();
        let from = part.position as usize;
        assert!(bytes == self.whole[from..from + CHUNK as usize], "{number}");
    }

    fn requests(&self) -> usize {
        self.store.requests.lock().len()
    }

    /// Lets everything run that was spawned, until nothing changes.
    async fn settle(&self, until: impl Fn(&Setup) -> bool) {
        while !until(self) {
            tokio::task::yield_now().await;
        }
    }
}

/// What the settings allow ahead of one reader.
const AHEAD: usize = 80 * CHUNK as usize;

#[tokio::test]
async fn what_was_read_is_in_memory_until_others_need_the_room() {
    let s = setup(Far::default(), &config()).await;
    for _ in 0..3 {
        for number in 0..100 {
            s.read(number).await;
        }
    }
    assert_eq!(s.requests(), 100);
    assert_eq!(s.cache.stats().memory_hits, 200);
    assert_eq!(s.cache.stats().memory_bytes, 100 * u64::from(CHUNK));
    // 0 is used again, so 1 is the oldest.
    s.read(0).await;
    s.read(100).await;
    assert_eq!(s.cache.stats().memory_bytes, 100 * u64::from(CHUNK));
    s.read(0).await;
    assert_eq!(s.requests(), 101);
    s.read(1).await;
    assert_eq!(s.requests(), 102);
}

#[tokio::test]
async fn readers_of_one_chunk_make_one_request() {
    let store = Far {
        gate: Some(Semaphore::new(0)),
        ..Far::default()
    };
    let s = Arc::new(setup(store, &config()).await);
    let readers = (0..50).map(|_| {
        let s = s.clone();
        tokio::spawn(async move { s.read(7).await })
    });
    let readers: Vec<_> = readers.collect();
    s.settle(|s| s.cache.stats().joined == 49).await;
    s.store.gate.as_ref().unwrap().add_permits(1);
    for reader in readers {
        reader.await.unwrap();
    }
    assert_eq!(s.requests(), 1);
}

#[tokio::test]
async fn a_reader_that_goes_away_leaves_its_request_to_the_others() {
    let store = Far {
        gate: Some(Semaphore::new(0)),
        ..Far::default()
    };
    let s = Arc::new(setup(store, &config()).await);
    let read = |s: &Arc<Setup>| {
        let s = s.clone();
        tokio::spawn(async move { s.read(7).await })
    };
    let first = read(&s);
    s.settle(|s| s.requests() == 1).await;
    let second = read(&s);
    s.settle(|s| s.cache.stats().joined == 1).await;
    first.abort();
    s.settle(|s| s.requests() == 2).await;
    s.store.gate.as_ref().unwrap().add_permits(2);
    second.await.unwrap();
}

#[tokio::test]
async fn reading_ahead_joins_neighbours_and_stops_at_its_bound() {
    let s = setup(Far::default(), &config()).await;
    s.cache
        .readahead(&s.object, s.parts[1..21].iter().copied(), AHEAD);
    s.settle(|s| s.cache.stats().bytes == 20 * u64::from(CHUNK))
        .await;
    assert_eq!(s.store.requests.lock().first(), Some(&(1000..21_000)));
    assert_eq!(s.requests(), 1);
    for number in 1..21 {
        s.read(number).await;
    }
    assert_eq!(s.requests(), 1);
    // Only what is missing is asked for, around what is there.
    s.read(25).await;
    s.cache
        .readahead(&s.object, s.parts[15..30].iter().copied(), AHEAD);
    s.settle(|s| s.requests() == 4).await;
    let mut asked = s.store.requests.lock()[2..].to_vec();
    asked.sort_by_key(|range| range.start);
    assert_eq!(asked, [21_000..25_000, 26_000..30_000]);
}

/// A spawner that runs nothing.
struct Idle;

impl Spawner for Idle {
    fn spawn(&self, _: Pin<Box<dyn Future<Output = ()> + Send>>) {}
}

#[tokio::test]
async fn nobody_waits_for_what_is_only_planned() {
    let s = setup(Far::default(), &config()).await;
    let ports = Ports {
        spawner: Arc::new(Idle),
        ..s.ports.clone()
    };
    let cache = ColdCache::open(&ports, &config(), &Arc::default());
    cache.readahead(&s.object, s.parts.iter().copied(), AHEAD);
    assert!(cache.get(&s.object, s.parts[0]).await.is_ok());
}

#[tokio::test]
async fn a_request_that_may_still_grow_waits_for_its_reader() {
    let config = KernelConfig {
        cold_cache_memory_bytes: 400 * CHUNK as usize,
        ..config()
    };
    let s = setup(Far::default(), &config).await;
    // The bound allows for four requests of a quarter each; the next part might join the last of them.
    s.cache.readahead(&s.object, s.parts.iter().copied(), AHEAD);
    s.settle(|s| s.cache.stats().bytes == 60 * u64::from(CHUNK))
        .await;
    let mut asked = s.store.requests.lock().clone();
    asked.sort_by_key(|range| range.start);
    assert_eq!(asked, [0..20_000, 20_000..40_000, 40_000..60_000]);
}

#[tokio::test]
async fn a_reader_waits_for_what_is_on_its_way() {
    let store = Far {
        gate: Some(Semaphore::new(0)),
        ..Far::default()
    };
    let s = Arc::new(setup(store, &config()).await);
    s.cache
        .readahead(&s.object, s.parts[..4].iter().copied(), AHEAD);
    s.settle(|s| s.requests() == 1).await;
    let reader = {
        let s = s.clone();
        tokio::spawn(async move { s.read(2).await })
    };
    s.settle(|s| s.cache.stats().joined == 1 && s.requests() == 1)
        .await;
    s.store.gate.as_ref().unwrap().add_permits(1);
    reader.await.unwrap();
    assert_eq!(s.requests(), 1);
}

#[tokio::test]
async fn what_failed_ahead_is_asked_for_again_by_its_reader() {
    let store = Far {
        gate: Some(Semaphore::new(0)),
        ..Far::default()
    };
    let s = Arc::new(setup(store, &config()).await);
    s.store.broken.store(true, Ordering::Relaxed);
    s.cache
        .readahead(&s.object, s.parts[..4].iter().copied(), AHEAD);
    s.settle(|s| s.requests() == 1).await;
    let reader = {
        let s = s.clone();
        tokio::spawn(async move { s.cache.get(&s.object, s.parts[0]).await })
    };
    s.settle(|s| s.cache.stats().joined == 1 && s.requests() == 1)
        .await;
    s.store.gate.as_ref().unwrap().add_permits(10);
    // Its own request fails, too, and that it is told.
    let error = reader.await.unwrap().unwrap_err();
    assert!(matches!(error, FetchError::Cold(ColdError::Unavailable(_))));
    assert_eq!(s.requests(), 2);
    s.store.broken.store(false, Ordering::Relaxed);
    s.read(0).await;
}

#[tokio::test]
async fn requests_at_a_time_are_bounded() {
    let config = KernelConfig {
        cold_cache_memory_bytes: 400 * CHUNK as usize,
        cold_readahead_bytes: 200 * CHUNK as usize,
        ..config()
    };
    let store = Far {
        gate: Some(Semaphore::new(0)),
        ..Far::default()
    };
    let s = Arc::new(setup(store, &config).await);
    // Every other, so that there are no neighbours.
    let parts = s.parts.iter().copied().step_by(2);
    s.cache
        .readahead(&s.object, parts, config.cold_readahead_bytes);
    s.settle(|s| s.requests() == crate::limits::COLD_REQUESTS_AHEAD)
        .await;
    // A reader finds a request free beside those.
    let reader = {
        let s = s.clone();
        tokio::spawn(async move { s.read(1).await })
    };
    s.settle(|s| s.requests() == crate::limits::COLD_REQUESTS_AHEAD + 1)
        .await;
    s.store.gate.as_ref().unwrap().add_permits(1000);
    reader.await.unwrap();
    s.settle(|s| s.cache.stats().bytes == 101 * u64::from(CHUNK))
        .await;
    let most = s.store.most_at_a_time.load(Ordering::Relaxed);
    assert!(most <= crate::limits::COLD_REQUESTS as u64, "{most}");
}

#[tokio::test]
async fn damage_on_the_way_is_repaired_and_damage_in_the_store_is_told() {
    let s = setup(Far::default(), &config()).await;
    s.store.damage.store(1, Ordering::Relaxed);
    s.read(0).await;
    assert_eq!((s.requests(), s.cache.stats().damaged), (2, 1));
    s.store.damage.store(2, Ordering::Relaxed);
    let error = s.cache.get(&s.object, s.parts[1]).await.unwrap_err();
    assert_eq!(
        error,
        FetchError::Corrupt {
            object: OBJECT.to_owned(),
            position: 1000,
            length: CHUNK
        }
    );
    // It is not kept: who repairs the store is not told of old damage.
    s.read(1).await;
}

fn with_disk(chunks: u64) -> KernelConfig {
    KernelConfig {
        cold_cache_memory_bytes: 0,
        cold_cache_disk_bytes: chunks * u64::from(CHUNK),
        ..config()
    }
}

fn cached_files(s: &Setup) -> Vec<std::path::PathBuf> {
    let found = std::fs::read_dir(s.folder.path().join("cache")).unwrap();
    found.map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn the_disk_keeps_what_memory_does_not_within_its_bound() {
    let s = setup(Far::default(), &with_disk(10)).await;
    for number in 0..15 {
        s.read(number).await;
        s.settle(|s| s.cache.stats().disk_writes == number as u64 + 1)
            .await;
        assert_eq!(cached_files(&s).len(), (number + 1).min(10));
    }
    for number in 5..15 {
        s.read(number).await;
    }
    let stats = s.cache.stats();
    assert_eq!(
        (s.requests(), stats.disk_hits, stats.disk_bytes),
        (15, 10, 10_000)
    );
    s.read(0).await;
    assert_eq!(s.requests(), 16);
}

#[tokio::test]
async fn damaged_files_are_fetched_again_and_foreign_ones_are_removed_at_the_start() {
    let s = setup(Far::default(), &with_disk(10)).await;
    s.read(0).await;
    s.settle(|s| cached_files(s).len() == 1 && s.cache.stats().disk_bytes == 1000)
        .await;
    std::fs::write(&cached_files(&s)[0], b"something else").unwrap();
    s.read(0).await;
    assert_eq!((s.requests(), s.cache.stats().disk_hits), (2, 0));

    std::fs::write(s.folder.path().join("cache/foreign"), b"x").unwrap();
    let again = ColdCache::open(&s.ports, &with_disk(10), &Arc::default());
    assert_eq!(cached_files(&s), Vec::<std::path::PathBuf>::new());
    assert_eq!(again.stats().disk_bytes, 0);
}

#[tokio::test]
async fn a_disk_that_fails_only_keeps_nothing() {
    let s = setup(Far::default(), &with_disk(10)).await;
    std::fs::remove_dir(s.folder.path().join("cache")).unwrap();
    for number in 0..5 {
        s.read(number).await;
        s.read(number).await;
    }
    assert_eq!(s.requests(), 10);
    s.settle(|s| s.cache.stats().disk_bytes == 0).await;

    // And one that cannot even be opened.
    std::fs::write(s.folder.path().join("cache"), b"a file").unwrap();
    let ports = Ports {
        disk: Arc::new(SystemDisk::new(s.folder.path()).unwrap()),
        ..s.ports.clone()
    };
    let cache = ColdCache::open(&ports, &with_disk(10), &Arc::default());
    assert!(cache.get(&s.object, s.parts[0]).await.is_ok());
}

/// A sync of the log waits for all that its device was asked for before.
#[tokio::test]
async fn a_directory_is_read_in_small_pieces_while_the_log_is_written() {
    const PART: usize = 512 * 1024;
    let store = Far {
        near: true,
        gate: Some(Semaphore::new(0)),
        ..Far::default()
    };
    let whole: Vec<u8> = (0..4 * PART).map(|at| (at % 251) as u8).collect();
    store.create(OBJECT, whole.clone().into()).await.unwrap();
    let store = Arc::new(store);
    let folder = tempfile::tempdir().unwrap();
    let ports = Ports::system(folder.path(), store.clone()).unwrap();
    let config = KernelConfig {
        cold_cache_memory_bytes: whole.len(),
        ..config()
    };
    let log = Arc::new(Written::default());
    let cache = ColdCache::open(&ports, &config, &log);
    let object: Arc<str> = OBJECT.into();
    let read = |number: usize| {
        let (cache, object) = (cache.clone(), object.clone());
        let bytes = whole[number * PART..][..PART].to_vec();
        tokio::spawn(async move {
            let part = Part {
                position: (number * PART) as u64,
                length: PART as u32,
                crc: crc32c::crc32c(&bytes),
            };
            assert!(cache.get(&object, part).await.unwrap() == bytes);
        })
    };
    log.begun_us.store(u64::MAX, Ordering::Relaxed);
    let readers = [read(0), read(1), read(2)];
    // Each waits until the one before it is answered, so all are seen here that can be on their way.
    for done in 0..3 * PART as u64 / ALONE_BYTES {
        while store.requests.lock().len() as u64 == done {
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(store.requests.lock().len() as u64, done + 1);
        store.gate.as_ref().unwrap().add_permits(1);
    }
    for reader in readers {
        reader.await.unwrap();
    }
    let asked = std::mem::take(&mut *store.requests.lock());
    assert!(asked.iter().all(|r| r.end - r.start == ALONE_BYTES));
    // Nobody writes: nobody is in the way.
    log.begun_us.store(0, Ordering::Relaxed);
    store.gate.as_ref().unwrap().add_permits(1);
    read(3).await.unwrap();
    assert_eq!(store.requests.lock().len(), 1);
}
