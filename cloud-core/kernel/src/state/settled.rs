//! What a queue has settled, as it lasts.

use super::{SourceState, offset_u64};
use crate::entry::QueueSettled;

/// Records settled above the low-water mark after which the bitmap is put in its smallest form again.
const SETTLED_PER_OPTIMISE: u64 = 4096;

pub(super) fn settle(source: &mut SourceState, settled: QueueSettled) {
    source.low_water = source.low_water.max(settled.low_water);
    source.delivered_to = source.delivered_to.max(settled.delivered_to);
    let before = source.settled.len();
    source.settled |= settled.offsets;
    source.settled.remove_range(..offset_u64(source.low_water));
    // One record that is not settled for long must not keep a bit for each that is: runs cost nothing.
    if source.settled.len() / SETTLED_PER_OPTIMISE > before / SETTLED_PER_OPTIMISE {
        source.settled.optimize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::StreamId;

    #[test]
    fn a_long_history_of_settlements_in_any_order_stays_small() {
        let partition = StreamId(1).partition(0);
        let mut source = SourceState::default();
        // The first is never settled; the others in strides, so that each bitmap is full of holes at first.
        for start in 1..=7u64 {
            let offsets: Vec<u64> = (start..700_000).step_by(7).collect();
            for some in offsets.chunks(50) {
                let settled = QueueSettled {
                    partition,
                    offsets: some.iter().collect(),
                    low_water: 0,
                    delivered_to: 700_000,
                };
                settle(&mut source, settled);
            }
        }
        assert_eq!(source.settled.len(), 699_999);
        // A bit for each would be 87 KB; what the last few thousand leave is not in runs yet.
        assert!(source.settled.serialized_size() < 20_000);
    }
}
