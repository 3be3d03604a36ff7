//! Virtual time: it moves when it is told to, and whoever sleeps is woken when its moment has come.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use kernel::ports::Clock;
use parking_lot::Mutex;

/// Milliseconds since the epoch at which virtual time begins.
const START_MS: i64 = 1_700_000_000_000;

/// A clock; clones are the same one.
#[derive(Clone, Default)]
pub struct SimClock(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// Since the clock was made.
    elapsed_us: u64,
    /// What the wall clock is ahead of that, in ms: jumps, both ways.
    jumped_ms: i64,
    /// The latest that the wall clock has ever shown, in ms after the start.
    latest_ms: i64,
    /// Deadline and number of the sleeper.
    sleepers: BTreeMap<(u64, u64), Waker>,
    next_sleeper: u64,
}

impl SimClock {
    /// Time passes.
    pub fn advance(&self, us: u64) {
        let mut inner = self.0.lock();
        inner.elapsed_us += us;
        inner.note_latest();
        let later = (inner.elapsed_us + 1, 0);
        let rest = inner.sleepers.split_off(&later);
        let due = std::mem::replace(&mut inner.sleepers, rest);
        drop(inner);
        due.into_values().for_each(Waker::wake);
    }

    /// Somebody sets the wall clock. The stop watch does not notice.
    pub fn jump_wall(&self, ms: i64) {
        let mut inner = self.0.lock();
        inner.jumped_ms += ms;
        inner.note_latest();
    }

    /// The latest that the wall clock has ever shown, in milliseconds since the epoch.
    pub fn latest_ms(&self) -> i64 {
        START_MS + self.0.lock().latest_ms
    }

    /// How long until the next sleeper is due, in microseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        let inner = self.0.lock();
        let (deadline, _) = *inner.sleepers.keys().next()?;
        Some(deadline.saturating_sub(inner.elapsed_us))
    }

    /// Resolves when so much time has passed.
    pub fn sleep(&self, us: u64) -> Sleep {
        let mut inner = self.0.lock();
        inner.next_sleeper += 1;
        Sleep {
            key: (inner.elapsed_us + us, inner.next_sleeper),
            clock: self.clone(),
        }
    }
}

impl Inner {
    fn wall_ms(&self) -> i64 {
        self.jumped_ms + (self.elapsed_us / 1000).cast_signed()
    }

    fn note_latest(&mut self) {
        self.latest_ms = self.latest_ms.max(self.wall_ms());
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        START_MS + self.0.lock().wall_ms()
    }

    fn monotonic_us(&self) -> u64 {
        self.0.lock().elapsed_us
    }
}

/// See [`SimClock::sleep`].
pub struct Sleep {
    key: (u64, u64),
    clock: SimClock,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.clock.0.lock();
        if self.key.0 <= inner.elapsed_us {
            inner.sleepers.remove(&self.key);
            return Poll::Ready(());
        }
        inner.sleepers.insert(self.key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.clock.0.lock().sleepers.remove(&self.key);
    }
}
