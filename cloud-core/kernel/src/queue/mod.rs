//! Queues: who has which record of a log, as sparse state over it.

mod types;

pub use types::{Acquired, DeliveryId, HolderId, QueueName, QueueSource, Selector, Verdict};

use crate::error::{QueueError, WriteError};

/// A queue over partitions. Cheap to share; see [`crate::Kernel::queue`].
pub struct Queue {
    _private: (),
}

#[allow(clippy::todo)]
impl Queue {
    pub(crate) fn open(kernel: crate::Kernel, name: QueueName, selector: std::sync::Arc<dyn Selector>) -> Queue {
        let _ = (kernel, name, selector);
        todo!()
    }
    pub(crate) fn is_deleted(&self) -> bool {
        todo!()
    }
    pub(crate) fn set_selector(&self, selector: std::sync::Arc<dyn Selector>) {
        let _ = selector;
        todo!()
    }
    pub(crate) fn stats(&self) -> crate::stats::QueueStats {
        todo!()
    }

    /// Its name.
    pub fn name(&self) -> &QueueName {
        todo!()
    }

    /// Sets the partitions it draws from, durably. A partition it has already keeps its state (`from` is ignored); one that is not named
    /// is dropped with its state; a new one is looked through from `from`.
    pub async fn set_sources(&self, sources: Vec<QueueSource>) -> Result<(), QueueError> {
        let _ = sources;
        todo!()
    }

    /// The sources, with the first offset that is not settled.
    pub fn sources(&self) -> Vec<QueueSource> {
        todo!()
    }

    /// Takes up to `max_records` records, of `max_bytes` in keys, values and headers together (at least one), for `holder`,
    /// in commit order over all sources. Empty when nothing is ready.
    ///
    /// Looks first through what was committed before the call, so that a record whose write has been acknowledged is seen.
    pub async fn acquire(&self, holder: HolderId, max_records: usize, max_bytes: usize) -> Vec<Acquired> {
        let _ = (holder, max_records, max_bytes);
        todo!()
    }

    /// Ends deliveries. `Accept` and `Reject` resolve when durable; `Release` puts the records back to where they were. Ids that
    /// are not in flight are ignored; the number of those that were is returned.
    pub async fn settle(&self, ids: &[DeliveryId], verdict: Verdict) -> Result<usize, QueueError> {
        let _ = (ids, verdict);
        todo!()
    }

    /// Puts back everything `holder` has; returns how many.
    pub fn release_holder(&self, holder: HolderId) -> usize {
        let _ = holder;
        todo!()
    }

    /// Looks through everything committed before the call, so that [`Queue::ready`] is exact.
    pub async fn catch_up(&self) {
        todo!()
    }

    /// Records that can be acquired, as far as looked through (see [`Queue::catch_up`]).
    pub fn ready(&self) -> u64 {
        todo!()
    }

    /// Records acquired and not settled.
    pub fn in_flight(&self) -> u64 {
        todo!()
    }

    /// Returns when a record can be acquired, or the queue is deleted. Pushed by commits and releases.
    pub async fn wait_ready(&self) {
        todo!()
    }

    /// Settles every ready record durably; what is in flight stays. Returns how many.
    pub async fn purge(&self) -> Result<u64, QueueError> {
        todo!()
    }

    /// Deletes the queue with its state, durably. Every later operation finds it deleted.
    pub async fn delete(&self) -> Result<(), WriteError> {
        todo!()
    }
}

impl crate::Kernel {
    pub(crate) async fn persist_deliveries(&self) {}
}
