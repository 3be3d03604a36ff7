//! A cold store in memory that fails when it is told to, and whose objects can be damaged.
#![allow(dead_code)]

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use bytes::Bytes;
use kernel::ports::MemoryColdStore;
use kernel::ports::cold::{ColdError, ColdFuture, ColdObject, ColdStore, Upload};

/// Operations until it fails, and how often then.
#[derive(Default)]
struct Faults {
    after: u32,
    times: u32,
    /// What fails has been done all the same, where the port allows that.
    done: bool,
}

impl Faults {
    fn operate(&mut self) -> Result<(), ColdError> {
        if self.times == 0 {
            return Ok(());
        }
        if self.after > 0 {
            self.after -= 1;
            return Ok(());
        }
        self.times -= 1;
        Err(ColdError::Unavailable("it was told to fail".to_owned()))
    }
}

/// Clones are the same store.
#[derive(Clone, Default)]
pub struct FaultyCold {
    store: MemoryColdStore,
    faults: Arc<Mutex<Faults>>,
    /// Reads are not answered.
    held: Arc<AtomicBool>,
}

struct FaultyUpload {
    upload: Box<dyn Upload>,
    finished: bool,
    faults: Arc<Mutex<Faults>>,
}

impl FaultyCold {
    /// Lets so many operations pass, then fails some.
    pub fn fail_after(&self, after: u32, times: u32) {
        *self.faults.lock().unwrap() = Faults {
            after,
            times,
            done: false,
        };
    }

    /// Of creations, ends of uploads and deletions only the answer is lost.
    pub fn lose_answers(&self, lose: bool) {
        self.faults.lock().unwrap().done = lose;
    }

    /// Reads wait for their answer as long as it holds them back.
    pub fn hold_reads(&self, hold: bool) {
        self.held.store(hold, Ordering::Relaxed);
    }

    pub fn heal(&self) {
        self.fail_after(0, 0);
    }

    /// Keys of the objects of all logs whose key has a part.
    pub fn keys(&self, part: &str) -> Vec<String> {
        let objects = ready(self.store.list("")).unwrap();
        let mut keys: Vec<String> = objects.into_iter().map(|o| o.key).collect();
        keys.retain(|key| key.contains(part));
        keys.sort();
        keys
    }

    pub fn segments(&self) -> Vec<String> {
        self.keys("/segments/")
    }

    pub fn put(&self, key: &str, bytes: &'static [u8]) {
        ready(self.store.create(key, Bytes::from_static(bytes))).unwrap();
    }

    pub fn bytes(&self, key: &str) -> Bytes {
        let size = ready(self.store.size(key)).unwrap();
        ready(self.store.get(key, 0..size)).unwrap()
    }

    /// Changes an object at rest.
    pub fn damage(&self, key: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.bytes(key).to_vec();
        change(&mut bytes);
        ready(self.store.delete(key)).unwrap();
        ready(self.store.create(key, bytes.into())).unwrap();
    }

    pub fn drop_object(&self, key: &str) {
        ready(self.store.delete(key)).unwrap();
    }

    fn operate(&self) -> Result<(), ColdError> {
        self.faults.lock().unwrap().operate()
    }
}

/// The store in memory answers at once.
fn ready<T>(mut future: ColdFuture<'_, T>) -> Result<T, ColdError> {
    sim::stepped::poll(future.as_mut()).expect("an answer at once")
}

/// Does it and forgets to say so, if that is how it shall fail.
macro_rules! or_lose {
    ($self:ident, $call:expr) => {
        match $self.operate() {
            Ok(()) => $call,
            Err(error) => {
                if $self.faults.lock().unwrap().done {
                    // Whether it worked nobody is told.
                    drop(ready($call));
                }
                Box::pin(std::future::ready(Err(error)))
            }
        }
    };
}

macro_rules! or_fail {
    ($self:ident, $call:expr) => {
        match $self.operate() {
            Ok(()) => $call,
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    };
}

impl ColdStore for FaultyCold {
    fn create(&self, key: &str, bytes: Bytes) -> ColdFuture<'_, ()> {
        or_lose!(self, self.store.create(key, bytes.clone()))
    }

    fn upload(&self, key: &str) -> ColdFuture<'_, Box<dyn Upload>> {
        if let Err(error) = self.operate() {
            return Box::pin(std::future::ready(Err(error)));
        }
        let upload = ready(self.store.upload(key));
        let faults = self.faults.clone();
        Box::pin(std::future::ready(upload.map(|upload| {
            Box::new(FaultyUpload {
                upload,
                finished: false,
                faults,
            }) as Box<dyn Upload>
        })))
    }

    fn get(&self, key: &str, range: Range<u64>) -> ColdFuture<'_, Bytes> {
        if let Err(error) = self.operate() {
            return Box::pin(std::future::ready(Err(error)));
        }
        let mut got = self.store.get(key, range);
        // Whoever drives it polls again.
        Box::pin(std::future::poll_fn(move |context| {
            if self.held.load(Ordering::Relaxed) {
                Poll::Pending
            } else {
                got.as_mut().poll(context)
            }
        }))
    }

    fn size(&self, key: &str) -> ColdFuture<'_, u64> {
        or_fail!(self, self.store.size(key))
    }

    fn list(&self, prefix: &str) -> ColdFuture<'_, Vec<ColdObject>> {
        or_fail!(self, self.store.list(prefix))
    }

    fn delete(&self, key: &str) -> ColdFuture<'_, ()> {
        or_lose!(self, self.store.delete(key))
    }

    fn is_local(&self) -> bool {
        true
    }

    fn location(&self) -> String {
        "memory:".to_owned()
    }
}

impl FaultyUpload {
    fn operate(&self) -> Result<(), ColdError> {
        self.faults.lock().unwrap().operate()
    }
}

impl Upload for FaultyUpload {
    fn part(&mut self, bytes: Vec<Bytes>) -> ColdFuture<'_, ()> {
        or_fail!(self, self.upload.part(bytes))
    }

    fn finish(&mut self) -> ColdFuture<'_, ()> {
        if self.finished {
            return Box::pin(std::future::ready(self.operate()));
        }
        let failed = self.operate();
        if failed.is_ok() || self.faults.lock().unwrap().done {
            self.finished = true;
            ready(self.upload.finish()).unwrap();
        }
        Box::pin(std::future::ready(failed))
    }

    fn abort(&mut self) -> ColdFuture<'_, ()> {
        or_fail!(self, self.upload.abort())
    }
}
