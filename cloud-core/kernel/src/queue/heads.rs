//! Which source comes next. What that costs depends on the sources of which something changed, not on how many there are.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;

use super::Queue;
use super::leases::Inner;
use crate::kernel::Watch;
use crate::state::waiters::Mark;
use crate::stream::PartitionId;

/// A place in the order of commits: entry, and place in the entry.
type Order = (u64, u32);

/// What a source has to give next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Head {
    /// The record at this offset.
    Ready(i64),
    /// Something nobody has looked at.
    Unseen,
}

/// The heads of the sources that have one, in commit order; commits are watched for where there is none.
pub(super) struct Heads {
    watch: Watch,
    in_order: BTreeSet<(Order, Head, PartitionId)>,
    by_source: HashMap<PartitionId, (Order, Head)>,
}

impl Heads {
    pub fn new(watch: Watch) -> Heads {
        Heads {
            watch,
            in_order: BTreeSet::new(),
            by_source: HashMap::new(),
        }
    }

    fn set(&mut self, partition: PartitionId, head: Option<(Order, Head)>) {
        let before = match head {
            Some(head) => self.by_source.insert(partition, head),
            None => self.by_source.remove(&partition),
        };
        if before == head {
            return;
        }
        if let Some((order, head)) = before {
            self.in_order.remove(&(order, head, partition));
        }
        if let Some((order, head)) = head {
            self.in_order.insert((order, head, partition));
        }
    }
}

impl Queue {
    /// The first head in commit order over all sources.
    pub(super) fn first_head(&self, heads: &mut Heads) -> Option<(PartitionId, Head)> {
        let mut inner = self.inner.lock();
        inner.stirred.extend(heads.watch.take_moved());
        loop {
            while let Some(partition) = inner.stirred.first().copied() {
                self.look_at_head(&mut inner, heads, partition);
            }
            let (_, head, partition) = *heads.in_order.first()?;
            // Retention does not say what it took: what is about to be given is looked at once more.
            if !self.follow_trim(&mut inner, partition) {
                return Some((partition, head));
            }
        }
    }

    fn look_at_head(&self, inner: &mut Inner, heads: &mut Heads, partition: PartitionId) {
        let looks = &self.counts.source_looks;
        looks.fetch_add(1, Ordering::Relaxed);
        self.follow_trim(inner, partition);
        inner.counted(partition);
        let source = inner.sources.get(&partition).filter(|s| !s.failed);
        let log = self.kernel.core.state.partition(partition);
        let (Some(source), Some(log)) = (source, log) else {
            heads.watch.forget(partition);
            return heads.set(partition, None);
        };
        let head = {
            let log = log.log.lock();
            // Without a batch it was trimmed this moment: reading it will tell.
            let order = |offset| log.order_at(offset).unwrap_or((0, 0));
            match source.first_ready() {
                Some(offset) => Some((order(offset), Head::Ready(offset))),
                None if log.reached(Mark::LastStable) > source.scanned => {
                    Some((order(source.scanned), Head::Unseen))
                }
                None => None,
            }
        };
        match head {
            Some(_) => heads.watch.forget(partition),
            None => heads.watch.set(partition, source.scanned),
        }
        heads.set(partition, head);
    }
}
