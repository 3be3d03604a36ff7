//! A cold store in memory that keeps its promises and no more. What was acknowledged stays, through every crash; what was not may be there or
//! not. Answers come late, or say that it failed when it was done; listings lag; the store is out for a while; bits of objects flip.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kernel::PartitionId;
use kernel::inspect::SegmentFile;
use kernel::ports::Clock;
use kernel::ports::cold::{ColdError, ColdFuture, ColdObject, ColdStore, Upload};
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::clock::SimClock;
use crate::disk::SimDisk;
use crate::trace::Trace;

/// How a store is.
#[derive(Debug, Clone, Copy, Default)]
pub struct ColdWeather {
    /// How often a request fails, before or after it was done.
    pub error: f64,
    /// How long a request takes at most, each way, in microseconds of virtual time.
    pub slow_us: u64,
    /// How long an object may be missing from listings, in microseconds.
    pub lag_us: u64,
    /// Reads cost nothing, as in a local directory.
    pub local: bool,
}

/// What becomes of an object at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    Flip,
    Truncate,
    Remove,
}

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    /// By the clock of the store, in ms since the epoch.
    written_at: i64,
    /// By the stop watch.
    written_us: u64,
    /// It was in a listing, and so is in all later ones.
    listed: bool,
    damaged: bool,
}

struct Inner {
    objects: BTreeMap<String, Object>,
    weather: ColdWeather,
    /// Nothing fails.
    calm: bool,
    out_until_us: u64,
    /// What the clock of the store is ahead, in ms.
    skew_ms: i64,
    /// What the process that asks runs on: without power it asks no more.
    machine: Option<SimDisk>,
    /// What nobody may do to objects, and somebody did.
    wrong: Option<String>,
    rng: StdRng,
    trace: Trace,
    clock: SimClock,
}

/// A cold store; clones are the same one.
#[derive(Clone)]
pub struct SimCold(Arc<Mutex<Inner>>);

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Works,
    /// It fails, and nothing was done.
    Fails,
    /// It is done, and the answer says that it failed.
    DoneAndFails,
    /// The process has no power to ask.
    Never,
}

type Effect<T> = Box<dyn FnOnce(&mut Inner) -> Result<T, ColdError> + Send>;

/// A request on its way. If whoever sent it goes before the answer, it may arrive or not.
struct Request<T> {
    effect: Option<Effect<T>>,
    /// It changes something.
    writes: bool,
    cold: SimCold,
}

impl<T> Request<T> {
    fn arrive(&mut self) -> Result<T, ColdError> {
        match self.effect.take() {
            Some(effect) => effect(&mut self.cold.0.lock()),
            None => Err(unavailable("nobody asks")),
        }
    }
}

impl<T> Drop for Request<T> {
    fn drop(&mut self) {
        if self.effect.is_none() || !self.writes {
            return;
        }
        let arrives = {
            let mut inner = self.cold.0.lock();
            let arrives = inner.rng.random_bool(0.5);
            inner
                .trace
                .note(format_args!("cold: a request without sender, {arrives}"));
            arrives
        };
        if arrives {
            // Nobody is there to be told.
            let _ = self.arrive();
        }
    }
}

fn unavailable(why: &str) -> ColdError {
    ColdError::Unavailable(why.to_owned())
}

/// A key without the name of the log, which is another one in each run.
fn plain(key: &str) -> &str {
    key.split_once('/').map_or(key, |(_, rest)| rest)
}

impl SimCold {
    /// An empty store.
    pub fn new(weather: ColdWeather, seed: u64, clock: SimClock, trace: Trace) -> SimCold {
        let mut rng = StdRng::seed_from_u64(seed);
        SimCold(Arc::new(Mutex::new(Inner {
            objects: BTreeMap::new(),
            weather,
            calm: false,
            out_until_us: 0,
            skew_ms: rng.random_range(-100_000..100_000),
            machine: None,
            wrong: None,
            rng,
            trace,
            clock,
        })))
    }

    /// Another store with the same objects, where nothing fails.
    pub fn fork(&self, seed: u64) -> SimCold {
        let inner = self.0.lock();
        let weather = ColdWeather {
            local: inner.weather.local,
            ..ColdWeather::default()
        };
        let fork = SimCold::new(weather, seed, inner.clock.clone(), inner.trace.clone());
        fork.0.lock().objects = inner.objects.clone();
        fork
    }

    /// The keys with that in them.
    pub fn keys(&self, part: &str) -> Vec<String> {
        let inner = self.0.lock();
        let keys = inner.objects.keys().filter(|key| key.contains(part));
        keys.cloned().collect()
    }

    /// Harms an object.
    pub fn harm(&self, key: &str, harm: Harm) {
        let inner = &mut *self.0.lock();
        inner
            .trace
            .note(format_args!("cold: {harm:?} {}", plain(key)));
        let Some(object) = inner.objects.get_mut(key) else {
            return;
        };
        let mut bytes = BytesMut::from(&object.bytes[..]);
        let at = inner.rng.random_range(0..bytes.len().max(1));
        match harm {
            Harm::Flip => bytes[at] ^= 1 << inner.rng.random_range(0..8),
            Harm::Truncate => bytes.truncate(at),
            Harm::Remove => {}
        }
        object.damaged = true;
        object.bytes = bytes.freeze();
        if harm == Harm::Remove {
            inner.objects.remove(key);
        }
    }

    /// The next requests come from a process on that machine.
    pub fn serve(&self, machine: &SimDisk) {
        self.0.lock().machine = Some(machine.clone());
    }

    /// While it is calm, nothing fails.
    pub fn calm(&self, calm: bool) {
        self.0.lock().calm = calm;
    }

    /// Nothing works for so long, in microseconds.
    pub fn be_out(&self, us: u64) {
        let mut inner = self.0.lock();
        inner.out_until_us = inner.clock.monotonic_us() + us;
        inner.trace.note(format_args!("cold: out for {us} us"));
    }

    /// What was done that nobody may do.
    pub fn wrong(&self) -> Option<String> {
        self.0.lock().wrong.clone()
    }

    /// Flips a bit of a segment that is sound; returns the offsets that cannot be read any more, first and last.
    pub fn damage(&self) -> Vec<(PartitionId, i64, i64)> {
        let inner = &mut *self.0.lock();
        let sound = inner.objects.iter_mut();
        let sound = sound.filter(|(key, object)| key.ends_with(".segment") && !object.damaged);
        let mut sound: Vec<(&String, &mut Object)> = sound.collect();
        if sound.is_empty() {
            return Vec::new();
        }
        let place = inner.rng.random_range(0..sound.len());
        let (key, object) = &mut sound[place];
        let at = inner.rng.random_range(0..object.bytes.len());
        let bit = inner.rng.random_range(0..8);
        inner.trace.note(format_args!(
            "cold: bit {bit} of byte {at} of {} flips",
            plain(key)
        ));
        let mut bytes = BytesMut::from(&object.bytes[..]);
        bytes[at] ^= 1 << bit;
        object.damaged = true;
        let whole = std::mem::replace(&mut object.bytes, bytes.freeze());
        offsets_at(whole, at as u64)
    }

    fn request<T: Send + 'static>(
        &self,
        what: &'static str,
        key: &str,
        writes: bool,
        effect: impl FnOnce(&mut Inner) -> Result<T, ColdError> + Send + 'static,
    ) -> ColdFuture<'static, T> {
        let (fate, there_us, back_us) = self.0.lock().draw();
        let effect: Effect<T> = Box::new(effect);
        let (cold, key) = (self.clone(), plain(key).to_owned());
        Box::pin(async move {
            if fate == Fate::Never {
                std::future::pending::<()>().await;
            }
            let clock = cold.0.lock().clock.clone();
            let note = |result: &str| {
                let trace = cold.0.lock().trace.clone();
                trace.note(format_args!("cold: {what} {key}: {result}"));
            };
            let mut request = Request {
                effect: (fate != Fate::Fails).then_some(effect),
                writes,
                cold: cold.clone(),
            };
            clock.sleep(there_us).await;
            if cold.0.lock().is_out() {
                request.effect = None;
                note("out");
                return Err(unavailable("it is out"));
            }
            let done = match fate {
                Fate::Fails | Fate::Never => {
                    note("fails");
                    Err(unavailable("it failed"))
                }
                Fate::Works => {
                    let done = request.arrive();
                    note(if done.is_ok() { "done" } else { "refused" });
                    done
                }
                Fate::DoneAndFails => {
                    let done = request.arrive();
                    note("done, the answer is lost");
                    done.and(Err(unavailable("the answer is lost")))
                }
            };
            clock.sleep(back_us).await;
            done
        })
    }
}

impl Inner {
    /// What becomes of the next request, and how long it takes there and back, in microseconds.
    fn draw(&mut self) -> (Fate, u64, u64) {
        if self.machine.as_ref().is_some_and(SimDisk::is_off) {
            return (Fate::Never, 0, 0);
        }
        let slow_us = self.weather.slow_us;
        let times = (
            self.rng.random_range(0..=slow_us),
            self.rng.random_range(0..=slow_us),
        );
        let fate = if self.calm || !self.rng.random_bool(self.weather.error) {
            Fate::Works
        } else if self.rng.random_bool(0.5) {
            Fate::Fails
        } else {
            Fate::DoneAndFails
        };
        (fate, times.0, times.1)
    }

    fn is_out(&self) -> bool {
        !self.calm && self.clock.monotonic_us() < self.out_until_us
    }

    fn put(&mut self, key: String, bytes: Bytes) {
        let object = Object {
            bytes,
            written_at: self.clock.now_ms() + self.skew_ms,
            written_us: self.clock.monotonic_us(),
            listed: false,
            damaged: false,
        };
        self.objects.insert(key, object);
    }

    fn find(&self, key: &str) -> Result<&Object, ColdError> {
        let object = self.objects.get(key);
        object.ok_or_else(|| ColdError::NotFound(key.to_owned()))
    }

    fn list(&mut self, prefix: &str) -> Vec<ColdObject> {
        let now_us = self.clock.monotonic_us();
        let mut listed = Vec::new();
        for (key, object) in self.objects.iter_mut() {
            if !key.starts_with(prefix) {
                continue;
            }
            let is_new = now_us - object.written_us < self.weather.lag_us;
            object.listed |= !is_new || self.rng.random_bool(0.5);
            if object.listed {
                listed.push(ColdObject {
                    key: key.clone(),
                    bytes: object.bytes.len() as u64,
                    written_at: object.written_at,
                });
            }
        }
        listed
    }
}

/// The offsets that a segment cannot give without that byte.
fn offsets_at(segment: Bytes, at: u64) -> Vec<(PartitionId, i64, i64)> {
    let Ok(file) = SegmentFile::open(segment) else {
        return Vec::new();
    };
    let mut offsets = Vec::new();
    for part in &file.footer().parts {
        if at >= file.footer_at() {
            offsets.push((part.partition, part.base_offset, part.next_offset - 1));
            continue;
        }
        for (place, chunk) in part.chunks.iter().enumerate() {
            if chunk.range().contains(&at) {
                let last = part.chunk_end(place) - 1;
                offsets.push((part.partition, chunk.base_offset, last));
            }
        }
    }
    offsets
}

impl ColdStore for SimCold {
    fn create(&self, key: &str, bytes: Bytes) -> ColdFuture<'_, ()> {
        let object = key.to_owned();
        self.request("create", key, true, move |inner| {
            if inner.objects.contains_key(&object) {
                return Err(ColdError::Exists(object));
            }
            inner.put(object, bytes);
            Ok(())
        })
    }

    fn upload(&self, key: &str) -> ColdFuture<'_, Box<dyn Upload>> {
        let upload = SimUpload {
            cold: self.clone(),
            key: key.to_owned(),
            parts: Arc::default(),
            acknowledged: 0,
        };
        self.request("upload", key, false, move |_| {
            Ok(Box::new(upload) as Box<dyn Upload>)
        })
    }

    fn get(&self, key: &str, range: Range<u64>) -> ColdFuture<'_, Bytes> {
        let object = key.to_owned();
        self.request("get", key, false, move |inner| {
            let bytes = &inner.find(&object)?.bytes;
            let wanted = range.start as usize..range.end as usize;
            if wanted.start > wanted.end || wanted.end > bytes.len() {
                let why = format!("{object} has {} bytes, not {range:?}", bytes.len());
                return Err(ColdError::Refused(why));
            }
            Ok(bytes.slice(wanted))
        })
    }

    fn size(&self, key: &str) -> ColdFuture<'_, u64> {
        let object = key.to_owned();
        self.request("size", key, false, move |inner| {
            Ok(inner.find(&object)?.bytes.len() as u64)
        })
    }

    fn list(&self, prefix: &str) -> ColdFuture<'_, Vec<ColdObject>> {
        let wanted = prefix.to_owned();
        self.request("list", prefix, false, move |inner| Ok(inner.list(&wanted)))
    }

    fn delete(&self, key: &str) -> ColdFuture<'_, ()> {
        let object = key.to_owned();
        self.request("delete", key, true, move |inner| {
            inner.objects.remove(&object);
            if object.contains("/epochs/") {
                inner.wrong = Some(format!("{object} was deleted"));
            }
            Ok(())
        })
    }

    fn is_local(&self) -> bool {
        self.0.lock().weather.local
    }

    fn location(&self) -> String {
        "sim:".to_owned()
    }
}

impl fmt::Debug for SimCold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimCold")
    }
}

/// An upload. It is gone with the process.
struct SimUpload {
    cold: SimCold,
    key: String,
    parts: Arc<Mutex<BTreeMap<usize, Vec<Bytes>>>>,
    acknowledged: usize,
}

impl Upload for SimUpload {
    fn part(&mut self, bytes: Vec<Bytes>) -> ColdFuture<'_, ()> {
        let (parts, number) = (self.parts.clone(), self.acknowledged);
        let sent = self.cold.request("part", &self.key, true, move |_| {
            parts.lock().insert(number, bytes);
            Ok(())
        });
        Box::pin(async move {
            sent.await?;
            self.acknowledged += 1;
            Ok(())
        })
    }

    fn finish(&mut self) -> ColdFuture<'_, ()> {
        let (key, parts) = (self.key.clone(), self.parts.clone());
        self.cold.request("finish", &self.key, true, move |inner| {
            let mut whole = BytesMut::new();
            for part in parts.lock().values().flatten() {
                whole.extend_from_slice(part);
            }
            let whole = whole.freeze();
            match inner.objects.get(&key) {
                // It was done before, and the answer was lost.
                Some(object) if object.damaged || object.bytes == whole => {}
                Some(_) if key.ends_with(".segment") => {
                    inner.wrong = Some(format!("{key} was written twice"));
                }
                _ => inner.put(key, whole),
            }
            Ok(())
        })
    }

    fn abort(&mut self) -> ColdFuture<'_, ()> {
        let parts = self.parts.clone();
        self.cold.request("abort", &self.key, true, move |_| {
            parts.lock().clear();
            Ok(())
        })
    }
}
