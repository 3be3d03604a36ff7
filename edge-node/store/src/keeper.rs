//! The keeper thread: writes cursors to the ledger, makes the ledger durable for those who wait, and deletes segments that
//! nobody needs. Sleeps while nothing changes.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

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

pub(crate) struct Keeper {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Keeper {
    /// `checkpoint` does the work; it is called on the keeper's thread only.
    pub fn start(
        checkpoint: impl Fn() -> Result<(), LedgerError> + Send + 'static,
    ) -> std::io::Result<Keeper> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name("keeper".into())
            .spawn(move || run(&theirs, checkpoint))?;
        Ok(Keeper {
            shared,
            thread: Mutex::new(Some(thread)),
        })
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
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, checkpoint: impl Fn() -> Result<(), LedgerError>) {
    loop {
        let (waiters, closing) = {
            let mut work = shared.work.lock();
            while !work.dirty && work.waiters.is_empty() && !work.closing {
                shared.wake.wait(&mut work);
            }
            // Changes of cursors are gathered for a while: each checkpoint costs the flash a sync.
            let until = Instant::now() + Duration::from_millis(limits::CHECKPOINT_MS);
            while work.waiters.is_empty() && !work.closing {
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
        if closing {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_that_hangs_is_seen_and_one_that_ends_too() {
        let (go_on, waits) = std::sync::mpsc::channel::<()>();
        let waits = Mutex::new(waits);
        let keeper = Keeper::start(move || {
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
