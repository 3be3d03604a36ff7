//! Changing what is kept in a table of the kernel and in a snapshot in memory.

use std::sync::Arc;

use kernel::{Entry, Kernel, WriteError};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// One change at a time: it reads, writes, and makes the snapshot.
#[derive(Default)]
pub struct Changes(Arc<Mutex<()>>);

impl Changes {
    pub async fn begin(&self) -> Change {
        Change(self.0.clone().lock_owned().await)
    }
}

/// The one that is under way. Dropped before it writes, it has changed nothing.
pub struct Change(OwnedMutexGuard<()>);

impl Change {
    /// Writes, and then puts in force what is durable, before the next change begins. Both are done also when nobody waits for it any more, as when a
    /// client of the admin listener goes away: a write is not taken back, and what holds after a restart has to hold now.
    pub async fn write<T: Send + 'static>(
        self,
        kernel: &Kernel,
        entry: Entry,
        put_in_force: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, WriteError> {
        let written = kernel.write(entry);
        let task = tokio::spawn(async move {
            let Change(_one_at_a_time) = self;
            written.await?;
            Ok(put_in_force())
        });
        // Otherwise the process is ending.
        task.await.unwrap_or(Err(WriteError::Closed))
    }
}
