//! Who waits for a position of a partition to move on. A registration is good for one waking, and lies in the order of offsets: a commit
//! touches those it wakes, not those that wait for more.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::stream::PartitionId;

/// A position of a partition that moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    End,
    LastStable,
}

/// What reaches somebody who waits, maybe for many partitions.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    moved: Mutex<Vec<PartitionId>>,
    notify: Notify,
}

impl Signal {
    pub fn raise(&self, partition: PartitionId) {
        self.moved.lock().push(partition);
        self.notify.notify_one();
    }

    /// What has moved, each once; waits until something has. Can be dropped and called again without loss.
    pub async fn moved(&self) -> Vec<PartitionId> {
        loop {
            let moved = self.take_moved();
            if !moved.is_empty() {
                return moved;
            }
            self.raised().await;
        }
    }

    /// What has moved until now, each once.
    pub fn take_moved(&self) -> Vec<PartitionId> {
        let mut moved = std::mem::take(&mut *self.moved.lock());
        // Twice, if a commit came between the registration and the look at what is there already.
        moved.sort_unstable();
        moved.dedup();
        moved
    }

    /// Returns when something has moved since somebody was last told here; of several who wait, one is told.
    pub async fn raised(&self) {
        self.notify.notified().await;
    }
}

/// By the offset to be passed, and the number of the waiter.
type ByOffset = BTreeMap<(i64, u64), Arc<Signal>>;

/// Those who wait at one partition.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    end: Mutex<ByOffset>,
    last_stable: Mutex<ByOffset>,
}

impl Waiters {
    fn of(&self, mark: Mark) -> &Mutex<ByOffset> {
        match mark {
            Mark::End => &self.end,
            Mark::LastStable => &self.last_stable,
        }
    }

    pub fn add(&self, mark: Mark, offset: i64, waiter: u64, signal: &Arc<Signal>) {
        let mut waiting = self.of(mark).lock();
        waiting.insert((offset, waiter), signal.clone());
    }

    pub fn remove(&self, mark: Mark, offset: i64, waiter: u64) {
        self.of(mark).lock().remove(&(offset, waiter));
    }

    /// Wakes whoever waits for a mark past an offset below `reached`.
    pub fn wake(&self, partition: PartitionId, mark: Mark, reached: i64) {
        let mut waiting = self.of(mark).lock();
        if waiting
            .first_key_value()
            .is_none_or(|(k, _)| k.0 >= reached)
        {
            return;
        }
        let later = waiting.split_off(&(reached, 0));
        let woken = std::mem::replace(&mut *waiting, later);
        drop(waiting);
        woken.values().for_each(|signal| signal.raise(partition));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::StreamId;

    #[tokio::test]
    async fn a_partition_that_was_raised_twice_has_moved_once() {
        let [a, b] = [0, 1].map(|partition| PartitionId {
            stream: StreamId(1),
            partition,
        });
        let signal = Signal::default();
        [b, a, b].into_iter().for_each(|p| signal.raise(p));
        assert_eq!(signal.moved().await, [a, b]);
    }
}
