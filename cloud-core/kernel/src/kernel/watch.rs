//! Waiting for partitions to move on.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Kernel;
use crate::state::partition::Partition;
use crate::state::waiters::{Mark, Signal};
use crate::stream::PartitionId;

/// Watches any number of partitions. What a commit and the waking cost depends on what moved, not on how many are watched.
pub struct Watch {
    kernel: Kernel,
    waiter: u64,
    mark: Mark,
    signal: Arc<Signal>,
    armed: HashMap<PartitionId, (Arc<Partition>, i64)>,
}

impl Kernel {
    /// Watches the ends of partitions.
    pub fn watch(&self) -> Watch {
        self.watch_mark(Mark::End)
    }

    /// Watches the last stable offsets of partitions.
    pub fn watch_stable(&self) -> Watch {
        self.watch_mark(Mark::LastStable)
    }

    fn watch_mark(&self, mark: Mark) -> Watch {
        Watch {
            kernel: self.clone(),
            waiter: self.core.next_waiter.fetch_add(1, Ordering::Relaxed),
            mark,
            signal: Arc::default(),
            armed: HashMap::new(),
        }
    }

    /// Returns when any of the partitions has an end past its offset, or is gone, with those of which it is so. Pushed by commits; for no
    /// positions, never. Whoever waits again and again for many partitions keeps a [`Watch`] instead.
    pub async fn wait_past(&self, positions: &[(PartitionId, i64)]) -> Vec<PartitionId> {
        self.watch().moved_past(positions).await
    }

    /// [`Kernel::wait_past`] for the last stable offset.
    pub async fn wait_stable(&self, positions: &[(PartitionId, i64)]) -> Vec<PartitionId> {
        self.watch_stable().moved_past(positions).await
    }
}

impl Watch {
    /// Watches a partition for passing `offset`; replaces what was asked for it before.
    pub fn set(&mut self, partition: PartitionId, offset: i64) {
        if let Some((_, before)) = self.armed.get(&partition) {
            if *before == offset {
                return;
            }
            self.forget(partition);
        }
        let Some(found) = self.kernel.core.state.partition(partition) else {
            return self.signal.raise(partition);
        };
        if found.wait(self.mark, offset, self.waiter, &self.signal) {
            self.signal.raise(partition);
        }
        self.armed.insert(partition, (found, offset));
    }

    /// Watches a partition no longer.
    pub fn forget(&mut self, partition: PartitionId) {
        if let Some((found, offset)) = self.armed.remove(&partition) {
            found.waiters.remove(self.mark, offset, self.waiter);
        }
    }

    /// Waits until partitions have passed their offsets, or are gone. Those returned are not watched any more until set again; rarely one is
    /// returned that has not moved since it was set. Can be dropped and called again without loss.
    pub async fn moved(&mut self) -> Vec<PartitionId> {
        let moved = self.signal.moved().await;
        moved.iter().for_each(|partition| self.forget(*partition));
        moved
    }

    /// [`Watch::moved`], without waiting.
    pub(crate) fn take_moved(&mut self) -> Vec<PartitionId> {
        let moved = self.signal.take_moved();
        moved.iter().for_each(|partition| self.forget(*partition));
        moved
    }

    /// What is raised when a partition moves.
    pub(crate) fn signal(&self) -> Arc<Signal> {
        self.signal.clone()
    }

    async fn moved_past(mut self, positions: &[(PartitionId, i64)]) -> Vec<PartitionId> {
        for (partition, offset) in positions {
            // The same partition twice: the nearer offset decides.
            let nearer = self.armed.get(partition).is_some_and(|(_, o)| o <= offset);
            if !nearer {
                self.set(*partition, *offset);
            }
        }
        self.moved().await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for (partition, offset) in self.armed.values() {
            partition.waiters.remove(self.mark, *offset, self.waiter);
        }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("mark", &self.mark)
            .field("watched", &self.armed.len())
            .finish_non_exhaustive()
    }
}
