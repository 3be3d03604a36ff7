//! Background tasks of the kernel, kept until the driver takes them.

use std::pin::Pin;
use std::sync::{Arc, Weak};

use kernel::ports::Spawner;
use parking_lot::Mutex;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A spawner; clones are the same one.
#[derive(Clone, Default)]
pub struct SimSpawner(Arc<Mutex<Vec<Task>>>);

impl SimSpawner {
    /// For a kernel whose driver takes what is spawned. It does not keep the tasks, which keep the kernel: what nobody took goes with the driver.
    pub fn port(&self) -> impl Spawner + use<> {
        Port(Arc::downgrade(&self.0))
    }

    /// What was spawned since it was last asked.
    pub fn take(&self) -> Vec<Task> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Spawner for SimSpawner {
    fn spawn(&self, task: Task) {
        self.0.lock().push(task);
    }
}

struct Port(Weak<Mutex<Vec<Task>>>);

impl Spawner for Port {
    fn spawn(&self, task: Task) {
        if let Some(tasks) = self.0.upgrade() {
            tasks.lock().push(task);
        }
    }
}
