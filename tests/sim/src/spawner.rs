//! Background tasks of the kernel, kept until the driver takes them.

use std::pin::Pin;
use std::sync::Arc;

use kernel::ports::Spawner;
use parking_lot::Mutex;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A spawner; clones are the same one.
#[derive(Clone, Default)]
pub struct SimSpawner(Arc<Mutex<Vec<Task>>>);

impl SimSpawner {
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
