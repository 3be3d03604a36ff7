//! Threads for what blocks on the disk, so that no async thread ever does.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    jobs: Mutex<Jobs>,
    arrived: Condvar,
}

/// A fixed number of threads; with none, jobs run where they are asked for (for tests that want one thread).
pub(crate) struct Pool {
    shared: Arc<Shared>,
    inline: bool,
}

impl Pool {
    pub fn start(threads: usize) -> io::Result<Pool> {
        let shared = Arc::new(Shared::default());
        let pool = Pool {
            shared: shared.clone(),
            inline: threads == 0,
        };
        for number in 0..threads {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(format!("log-reader-{number}"))
                .spawn(move || work(&shared))?;
        }
        Ok(pool)
    }

    /// Whether jobs run where they are asked for.
    pub fn is_inline(&self) -> bool {
        self.inline
    }

    /// Runs a job; `None` when the pool is closed.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if self.inline {
            return Some(job());
        }
        let (sender, receiver) = oneshot::channel();
        {
            let mut jobs = self.shared.jobs.lock();
            if jobs.closed {
                return None;
            }
            jobs.waiting.push_back(Box::new(move || {
                // Whoever asked may have left.
                let _ = sender.send(job());
            }));
        }
        self.shared.arrived.notify_one();
        receiver.await.ok()
    }

    /// Runs a job that nobody waits for; not at all when the pool is closed.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) {
        if self.inline {
            return job();
        }
        let mut jobs = self.shared.jobs.lock();
        if !jobs.closed {
            jobs.waiting.push_back(Box::new(job));
            drop(jobs);
            self.shared.arrived.notify_one();
        }
    }

    /// Ends the threads after what waits is done.
    pub fn close(&self) {
        self.shared.jobs.lock().closed = true;
        self.shared.arrived.notify_all();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

fn work(shared: &Shared) {
    loop {
        let mut jobs = shared.jobs.lock();
        let job = loop {
            if let Some(job) = jobs.waiting.pop_front() {
                break job;
            }
            if jobs.closed {
                return;
            }
            shared.arrived.wait(&mut jobs);
        };
        drop(jobs);
        job();
    }
}
