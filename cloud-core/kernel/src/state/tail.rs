//! The bound on recent batches in memory, over all partitions: the oldest goes first, whosever it is.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::partition::Partition;

#[derive(Debug)]
pub(crate) struct Tail {
    limit: usize,
    pub bytes: usize,
    order: VecDeque<(Weak<Partition>, i64)>,
    /// Batches that left by a trim; they are still in `order`.
    stale: usize,
}

impl Tail {
    pub fn new(limit: usize) -> Tail {
        Tail {
            limit,
            bytes: 0,
            order: VecDeque::new(),
            stale: 0,
        }
    }

    /// Most bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// A batch has been put into its partition's tail.
    pub fn added(&mut self, partition: &Arc<Partition>, base_offset: i64, len: usize) {
        self.bytes += len;
        self.order
            .push_back((Arc::downgrade(partition), base_offset));
        while self.bytes > self.limit {
            let Some((partition, base_offset)) = self.order.pop_front() else {
                break;
            };
            let Some(partition) = partition.upgrade() else {
                continue;
            };
            let mut log = partition.log.lock();
            if log
                .tail
                .front()
                .is_some_and(|b| b.base_offset() == base_offset)
            {
                self.bytes -= log.tail.pop_front().map_or(0, |b| b.len()).min(self.bytes);
                log.evicted(base_offset);
            }
        }
    }

    /// `batches` of `len` bytes together have left their partition's tail.
    pub fn removed(&mut self, batches: usize, len: usize) {
        self.bytes = self.bytes.saturating_sub(len);
        self.stale += batches;
        if self.stale > 1024 && self.stale > self.order.len() / 2 {
            self.order.retain(|(partition, base_offset)| {
                partition.upgrade().is_some_and(|p| {
                    p.log
                        .lock()
                        .tail
                        .front()
                        .is_some_and(|b| b.base_offset() <= *base_offset)
                })
            });
            self.stale = 0;
        }
    }
}
