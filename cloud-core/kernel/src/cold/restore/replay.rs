//! What the segments that were sealed after the checkpoint say about transactions and producers.

use std::collections::BTreeMap;

use record::{Batch, ControlRecord};

use crate::cold::Located;
use crate::ports::cold::{ColdError, ColdStore};
use crate::segment::{self, Footer, FooterPart};
use crate::state::State;
use crate::state::partition::PartitionLog;
use crate::state::producer;
use crate::stream::PartitionId;

/// Goes through the batches that the checkpoint does not know, in the order of offsets.
pub(super) async fn replay(
    state: &State,
    store: &dyn ColdStore,
    footers: &[(Located, Footer)],
) -> Result<(), ColdError> {
    let mut parts: BTreeMap<(PartitionId, i64), (&Located, &FooterPart)> = BTreeMap::new();
    for (located, footer) in footers {
        // What of nothing is left says nothing, least of all instead of what it replaced.
        for part in footer.parts.iter().filter(|p| !p.chunks.is_empty()) {
            parts.insert((part.partition, part.base_offset), (located, part));
        }
    }
    for ((id, _), (located, part)) in parts {
        let Some(partition) = state.partition(id) else {
            continue;
        };
        // By the chunks: what lies below was applied before the checkpoint was made.
        let known = partition.log.lock().end;
        for (place, chunk) in part.chunks.iter().enumerate() {
            if part.chunk_end(place) <= known || chunk.is_lost() {
                continue;
            }
            let key = located.id.key(located.log);
            let bytes = store.get(&key, chunk.range()).await?;
            let batches = chunk.verify(&bytes).and_then(|()| segment::batches(&bytes));
            let batches = match batches {
                Ok(batches) => batches,
                Err(reason) => {
                    tracing::error!(partition = %id, %key, %reason, "a chunk is damaged; what it says about transactions and producers is lost");
                    continue;
                }
            };
            let mut log = partition.log.lock();
            for batch in &batches {
                if batch.base_offset() >= log.end {
                    apply(&mut log, batch);
                    log.end = batch.next_offset();
                }
            }
        }
    }
    Ok(())
}

fn apply(log: &mut PartitionLog, batch: &Batch) {
    let id = batch.producer_id();
    let stamp = batch.max_timestamp();
    if batch.is_control() {
        let (epoch, aborts) = match ControlRecord::from_batch(batch) {
            Some(ControlRecord::Abort { coordinator_epoch }) => (coordinator_epoch, true),
            Some(ControlRecord::Commit { coordinator_epoch }) => (coordinator_epoch, false),
            _ => return,
        };
        let known = log.producers.remove(&id);
        let (now, open) = producer::end(known, batch, epoch, stamp);
        log.producers.insert(id, now);
        match open {
            Some(open) if aborts => {
                log.transactions
                    .abort(id, open.first_offset, batch.base_offset());
            }
            Some(open) => log.transactions.commit(open.first_offset),
            None => {}
        }
    } else if batch.is_transactional() || id >= 0 && !log.is_volatile {
        let known = log.producers.remove(&id);
        let was_open = known.as_ref().is_some_and(|known| known.open.is_some());
        let rule = crate::entry::SequenceRule::Window;
        let now = producer::remember(known, batch, rule, batch.base_offset(), stamp);
        if let (false, Some(open)) = (was_open, now.open) {
            log.transactions.begin(id, open.first_offset);
        }
        log.producers.insert(id, now);
    }
}
