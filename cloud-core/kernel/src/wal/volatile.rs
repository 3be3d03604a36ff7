//! Entries that are not written: appends to streams of durability `memory`, and the offsets that must be reserved for them.

use record::Batch;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use super::intake::Pending;
use crate::entry::Command;
use crate::entry_codec;
use crate::limits::RESERVED_OFFSETS;
use crate::state::State;
use crate::stream::PartitionId;
use crate::stream_config::Durability;

/// What of a group can be written and applied together.
pub(crate) struct Planned {
    /// How many entries, from the front.
    pub take: usize,
    /// What has to be logged before them.
    pub reserve: Option<Pending>,
}

#[derive(Default)]
struct Offsets {
    end: i64,
    reserved: i64,
    /// Something durable goes before: what is reserved ahead of it is of no use after it.
    durable_before: bool,
}

/// Plans a group; `classes` are those of its entries.
pub(crate) fn plan(state: &State, entries: &[Pending], classes: &[Durability]) -> Planned {
    let mut partitions: FxHashMap<PartitionId, Offsets> = FxHashMap::default();
    let mut reserve = Vec::new();
    let mut take = entries.len();
    'entries: for (place, (pending, class)) in entries.iter().zip(classes).enumerate() {
        for command in &pending.commands {
            let (partition, batch) = match command {
                Command::Append {
                    partition, batch, ..
                } => (partition, batch),
                Command::EndTransaction {
                    partitions: ended,
                    marker,
                } => {
                    for partition in ended {
                        let offsets = partitions
                            .entry(*partition)
                            .or_insert_with(|| Offsets::now(state, *partition));
                        offsets.add_durable(marker);
                    }
                    continue;
                }
                _ => continue,
            };
            let offsets = partitions
                .entry(*partition)
                .or_insert_with(|| Offsets::now(state, *partition));
            if *class != Durability::Memory {
                offsets.add_durable(batch);
                continue;
            }
            let records = i64::from(batch.last_offset_delta()) + 1;
            let end = offsets.end + records;
            if end > offsets.reserved {
                if offsets.durable_before {
                    take = place;
                    break 'entries;
                }
                offsets.reserved = end + RESERVED_OFFSETS;
                reserve.push(Command::Reserve {
                    partition: *partition,
                    end: offsets.reserved,
                });
            }
            offsets.end = end;
        }
    }
    Planned {
        take,
        reserve: (!reserve.is_empty()).then(|| pending(reserve)),
    }
}

impl Offsets {
    fn now(state: &State, partition: PartitionId) -> Offsets {
        let Some(found) = state.partition(partition) else {
            // It will be refused.
            return Offsets::default();
        };
        let log = found.log.lock();
        Offsets {
            end: log.end,
            reserved: log.reserved,
            durable_before: false,
        }
    }

    fn add_durable(&mut self, batch: &Batch) {
        self.end = self.end.max(self.reserved) + i64::from(batch.last_offset_delta()) + 1;
        self.durable_before = true;
    }
}

/// An entry that nobody waits for.
fn pending(commands: Vec<Command>) -> Pending {
    Pending {
        urgent: false,
        encoded: entry_codec::encode(&commands),
        commands,
        done: oneshot::channel().0,
    }
}
