//! How many bytes a log may have on the disk: one alone, or two together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use crate::log::Shared;

/// A bound on bytes, and what there is of them.
pub(crate) struct Bound {
    max: u64,
    /// A log that shares it needs smaller segments for the same room between what is kept and what can go.
    part: u64,
    /// Bytes of all segments, and of what is being written to them.
    bytes: AtomicU64,
    /// Of what waits for the writers.
    waiting: AtomicU64,
    /// In the order in which they make room.
    logs: Mutex<Vec<Weak<Shared>>>,
    /// Held while segments go: the writer of each log may take those of the other, and the keeper those of both.
    going: Mutex<()>,
}

impl Bound {
    /// For so many logs.
    pub fn new(max: u64, logs: usize) -> Arc<Bound> {
        Arc::new(Bound {
            max,
            part: max / 8 / logs.max(1) as u64,
            bytes: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            logs: Mutex::default(),
            going: Mutex::default(),
        })
    }

    /// One more log has this bound. `first`: it makes room before the others do.
    pub fn join(&self, log: &Arc<Shared>, first: bool) {
        let mut logs = self.logs.lock();
        let place = if first { 0 } else { logs.len() };
        logs.insert(place, Arc::downgrade(log));
    }

    /// The logs that have this bound, in the order in which they make room.
    pub fn logs(&self) -> Vec<Arc<Shared>> {
        self.logs.lock().iter().filter_map(Weak::upgrade).collect()
    }

    pub fn is_shared(&self) -> bool {
        self.logs.lock().len() > 1
    }

    /// No segment and no group of writes is larger than this, but for one record that is: so that there is room when all but the newest are gone.
    pub fn part(&self) -> u64 {
        self.part
    }

    /// Is there room for so much more on the disk?
    pub fn has_room(&self, bytes: u64) -> bool {
        self.bytes.load(Ordering::Relaxed).saturating_add(bytes) <= self.max
    }

    /// Takes room for so much more, if there is any: of two writers that find the last of it, one has it.
    pub fn take(&self, bytes: u64) -> bool {
        let more = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= self.max);
        let taken = self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok()
    }

    /// More than half is taken: nothing is kept there that nobody needs.
    pub fn is_tight(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.max / 2
    }

    /// Something more waits for a writer. False: with all that waits there would be no room for it.
    pub fn wait(&self, weight: usize) -> bool {
        let weight = weight as u64;
        let waiting = self.waiting.fetch_add(weight, Ordering::Relaxed);
        self.has_room(waiting.saturating_add(weight))
    }

    /// It does not wait any more.
    pub fn wait_no_more(&self, weight: usize) {
        self.waiting.fetch_sub(weight as u64, Ordering::Relaxed);
    }

    pub fn grow(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn shrink(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Hold it while segments go.
    pub fn going(&self) -> MutexGuard<'_, ()> {
        self.going.lock()
    }
}
