//! The keeper thread: writes cursors to the ledger, makes the ledger durable for those who wait, and deletes segments that
//! nobody needs. Sleeps while nothing changes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::hand::{Hand, Hands};
use crate::ledger::LedgerError;
use crate::limits;
use crate::progress::Progress;

type Waiter = oneshot::Sender<Result<(), LedgerError>>;

#[derive(Default)]
struct Work {
    dirty: bool,
    waiters: Vec<Waiter>,
    closing: bool,
    /// A checkpoint is being made.
    busy: bool,
    /// Checkpoints made, or tried.
    done: u64,
}

#[derive(Default)]
struct Shared {
    work: Mutex<Work>,
    wake: Condvar,
}

type Checkpoint = Box<dyn Fn() -> Result<(), LedgerError> + Send>;

pub(crate) struct Keeper {
    shared: Arc<Shared>,
    hand: Mutex<Hand<Checkpoint>>,
}

impl Keeper {
    /// `checkpoint` does the work; it is called by the keeper's hand only.
    pub fn start(
        hands: Hands,
        checkpoint: impl Fn() -> Result<(), LedgerError> + Send + 'static,
    ) -> std::io::Result<Keeper> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let checkpoint: Checkpoint = Box::new(checkpoint);
        let run = move |checkpoint: Checkpoint| while work(&theirs, &checkpoint, true) {};
        let hand = hands.start("keeper".into(), checkpoint, run)?;
        let hand = Mutex::new(hand);
        Ok(Keeper { shared, hand })
    }

    /// Makes a checkpoint if there is a reason for one; false if there is none, or a thread does that.
    pub fn step(&self) -> bool {
        let hand = self.hand.lock();
        let Hand::Caller(checkpoint) = &*hand else {
            return false;
        };
        let has_work = {
            let work = self.shared.work.lock();
            work.dirty || !work.waiters.is_empty()
        };
        if has_work {
            work(&self.shared, checkpoint, false);
        }
        has_work
    }

    /// Something changed that is worth a checkpoint, soon.
    pub fn touch(&self) {
        let mut work = self.shared.work.lock();
        if !work.dirty {
            work.dirty = true;
            self.shared.wake.notify_one();
        }
    }

    /// A checkpoint now. All that was applied to the ledger before the call is durable when it resolves.
    pub async fn flush(&self) -> Result<(), LedgerError> {
        let (done, flushed) = oneshot::channel();
        {
            let mut work = self.shared.work.lock();
            if work.closing {
                return Err(LedgerError("the store is closed".into()));
            }
            work.waiters.push(done);
            self.shared.wake.notify_one();
        }
        let closed = || LedgerError("the store is closed".into());
        flushed.await.map_err(|_| closed())?
    }

    pub fn progress(&self) -> Progress {
        let work = self.shared.work.lock();
        Progress {
            done: work.done,
            working: work.busy || work.dirty || !work.waiters.is_empty(),
        }
    }

    /// Does a last checkpoint and stops.
    pub fn close(&self) {
        {
            let mut work = self.shared.work.lock();
            work.closing = true;
            self.shared.wake.notify_one();
        }
        let mut hand = self.hand.lock();
        if let Hand::Caller(checkpoint) = &*hand {
            work(&self.shared, checkpoint, false);
        }
        hand.end();
    }
}

/// Waits for a reason, and for a while for more of them if `patient`, and makes a checkpoint. False: it was the last.
fn work(shared: &Shared, checkpoint: &Checkpoint, patient: bool) -> bool {
    let (waiters, closing) = {
        let mut work = shared.work.lock();
        while !work.dirty && work.waiters.is_empty() && !work.closing {
            shared.wake.wait(&mut work);
        }
        // Changes of cursors are gathered for a while: each checkpoint costs the flash a sync.
        let until = Instant::now() + Duration::from_millis(limits::CHECKPOINT_MS);
        while patient && work.waiters.is_empty() && !work.closing {
            if shared.wake.wait_until(&mut work, until).timed_out() {
                break;
            }
        }
        work.dirty = false;
        work.busy = true;
        (std::mem::take(&mut work.waiters), work.closing)
    };
    let result = checkpoint();
    {
        let mut work = shared.work.lock();
        work.busy = false;
        work.done += 1;
    }
    if let Err(error) = &result {
        tracing::error!(%error, "the checkpoint failed");
    }
    for waiter in waiters {
        let _ = waiter.send(result.clone());
    }
    !closing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_that_hangs_is_seen_and_one_that_ends_too() {
        let (go_on, waits) = std::sync::mpsc::channel::<()>();
        let waits = Mutex::new(waits);
        let keeper = Keeper::start(Hands::Threads, move || {
            // Ends as well when nobody is left who could say so.
            let _ = waits.lock().recv();
            Ok(())
        })
        .unwrap();
        let idle = keeper.progress();
        assert!(!keeper.progress().is_stuck_since(&idle));
        keeper.touch();
        let before = keeper.progress();
        assert!(keeper.progress().is_stuck_since(&before));
        go_on.send(()).unwrap();
        while keeper.progress().done == before.done {
            std::thread::yield_now();
        }
        assert!(!keeper.progress().is_stuck_since(&before));
        drop(go_on);
        keeper.close();
    }
}
