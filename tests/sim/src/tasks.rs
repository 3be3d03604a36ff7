//! Futures in flight on one thread. Only those that were woken are polled (a lost wake-up is a run that stands still), in an order that
//! chance decides.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use parking_lot::Mutex;
use rand::{RngExt, rngs::StdRng};

type Ready = Arc<Mutex<BTreeSet<u64>>>;

/// Tasks in flight.
#[derive(Default)]
pub struct Tasks {
    next: u64,
    tasks: BTreeMap<u64, Task>,
    ready: Ready,
}

struct Task {
    label: &'static str,
    future: Pin<Box<dyn Future<Output = ()>>>,
    waker: Waker,
}

struct Bell {
    id: u64,
    ready: Ready,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ready.lock().insert(self.id);
    }
}

impl Tasks {
    /// Adds a task, to be polled some time.
    pub fn spawn(
        &mut self,
        label: &'static str,
        future: impl Future<Output = ()> + 'static,
    ) -> u64 {
        self.next += 1;
        let id = self.next;
        let bell = Bell {
            id,
            ready: self.ready.clone(),
        };
        let task = Task {
            label,
            future: Box::pin(future),
            waker: Waker::from(Arc::new(bell)),
        };
        self.tasks.insert(id, task);
        self.ready.lock().insert(id);
        id
    }

    /// Polls a task; true when it is done.
    pub fn poll(&mut self, id: u64) -> bool {
        self.ready.lock().remove(&id);
        let Some(task) = self.tasks.get_mut(&id) else {
            return true;
        };
        let mut context = Context::from_waker(&task.waker);
        let done = task.future.as_mut().poll(&mut context).is_ready();
        if done {
            self.tasks.remove(&id);
        }
        done
    }

    /// Polls one of the tasks that were woken; `None` when none was.
    pub fn poll_any(&mut self, rng: &mut StdRng) -> Option<&'static str> {
        let id = {
            let ready = self.ready.lock();
            let at = rng.random_range(0..ready.len().max(1));
            ready.iter().nth(at).copied()?
        };
        let label = self.tasks.get(&id).map_or("ended", |task| task.label);
        self.poll(id);
        Some(label)
    }

    /// Polls every task of that label once.
    pub fn poll_all(&mut self, label: &str) {
        let ids: Vec<u64> = self
            .tasks
            .iter()
            .filter(|(_, task)| task.label == label)
            .map(|(id, _)| *id)
            .collect();
        ids.into_iter().for_each(|id| {
            self.poll(id);
        });
    }

    /// Whether a task is still there.
    pub fn is_running(&self, id: u64) -> bool {
        self.tasks.contains_key(&id)
    }

    /// How many tasks have that label.
    pub fn count(&self, label: &str) -> usize {
        self.tasks
            .values()
            .filter(|task| task.label == label)
            .count()
    }

    /// How many tasks there are.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// The labels of all tasks, for people.
    pub fn labels(&self) -> Vec<&'static str> {
        self.tasks.values().map(|task| task.label).collect()
    }
}
