//! Who reads on? Readers have no names here; one that begins where another read ended goes on with it.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::limits;
use crate::stream::PartitionId;

/// Where the latest reads ended.
#[derive(Default)]
pub(crate) struct Readers {
    ends: Mutex<VecDeque<(PartitionId, i64)>>,
}

impl Readers {
    /// Whether a read that begins there goes on from an earlier one.
    pub fn goes_on(&self, partition: PartitionId, offset: i64) -> bool {
        let mut ends = self.ends.lock();
        let known = ends.iter().position(|end| *end == (partition, offset));
        known.and_then(|at| ends.remove(at)).is_some()
    }

    /// A read has ended before that offset.
    pub fn stopped(&self, partition: PartitionId, offset: i64) {
        let mut ends = self.ends.lock();
        ends.truncate(limits::COLD_READERS - 1);
        ends.push_front((partition, offset));
    }
}
