//! What a queue owes: everything of its sources that nobody settled, and nothing that somebody did.

use std::collections::{BTreeMap, BTreeSet};

use kernel::{DeliveryId, HolderId, PartitionId};

use super::{Class, Model, compaction};

/// One record of one source.
pub type Place = (PartitionId, i64);

/// One queue.
#[derive(Clone, Default)]
pub struct Queue {
    /// Partition and first offset.
    pub sources: BTreeMap<PartitionId, i64>,
    /// The sources that were asked for and not acknowledged.
    pub asked: Option<BTreeMap<PartitionId, i64>>,
    pub settled: BTreeSet<Place>,
    /// Settlements that were not acknowledged.
    pub maybe_settled: BTreeSet<Place>,
    /// Settlements of this life on their way: if they are refused, the holder has the records again, unless it was released meanwhile.
    pub settling: BTreeMap<Place, (DeliveryId, HolderId)>,
    /// Handed out in this life and not settled or released.
    pub held: BTreeMap<Place, (DeliveryId, HolderId)>,
    /// Handed out in this life.
    pub delivered: BTreeSet<Place>,
}

/// See [`Queue::owed`].
#[derive(Default)]
pub struct Owed {
    pub must: BTreeSet<Place>,
    /// Perhaps settled.
    pub unless_settled: BTreeSet<Place>,
    /// Superseded, or only in memory: they may be gone, and of what was superseded another copy may still be looked at later.
    pub fleeting: BTreeSet<Place>,
}

impl Queue {
    /// A new life: nobody holds anything. What a power cut took, the record or the end of its transaction, was not settled either: that came
    /// after it. Its offset may be another record's.
    pub fn restarted(&mut self, model: &Model) {
        self.held.clear();
        self.settling.clear();
        self.delivered.clear();
        self.maybe_settled.retain(|(partition, offset)| {
            model.log(*partition).is_none_or(|log| {
                let stable = log.last_stable(log.log_start, log.end);
                *offset < stable && (*offset < log.log_start || log.find(*offset).is_some())
            })
        });
    }

    /// A holder is gone: nobody has what it had.
    pub fn released(&mut self, holder: HolderId) {
        self.held.retain(|_, (_, by)| *by != holder);
        self.settling.retain(|_, (_, by)| *by != holder);
    }

    /// A settlement was refused, and nothing of it was done.
    pub fn not_settled(&mut self, place: &Place) {
        self.maybe_settled.remove(place);
        if let Some(held) = self.settling.remove(place) {
            self.held.insert(*place, held);
        }
    }

    /// The sources that the kernel has after a restart decide what became of an unanswered request.
    pub fn found(&mut self, found: &BTreeSet<PartitionId>, model: &Model) -> Result<(), String> {
        let alive = |sources: &BTreeMap<PartitionId, i64>| -> BTreeSet<PartitionId> {
            let alive = sources.keys().filter(|p| model.log(**p).is_some());
            alive.copied().collect()
        };
        if let Some(asked) = self.asked.take()
            && alive(&self.sources) != *found
        {
            self.set_sources(asked);
        }
        if alive(&self.sources) == *found {
            Ok(())
        } else {
            Err(format!(
                "its sources are {found:?}, not {:?}",
                self.sources.keys()
            ))
        }
    }

    /// Sources that are known keep their state.
    pub fn set_sources(&mut self, wanted: BTreeMap<PartitionId, i64>) {
        let known = std::mem::take(&mut self.sources);
        self.sources = wanted
            .into_iter()
            .map(|(partition, from)| (partition, known.get(&partition).copied().unwrap_or(from)))
            .collect();
        let new = |place: &Place| !known.contains_key(&place.0);
        self.settled.retain(|place| !new(place));
        self.delivered.retain(|place| !new(place));
        self.maybe_settled.retain(|place| !new(place));
    }

    /// What it must hand out, and what it may besides, if it holds nothing back. `log_start` is where a partition begins now.
    pub fn owed(
        &self,
        model: &Model,
        log_start: impl Fn(PartitionId) -> i64,
    ) -> Result<Owed, String> {
        let mut owed = Owed::default();
        for (partition, from) in &self.sources {
            let Some(log) = model.log(*partition) else {
                continue;
            };
            let compacts = model.streams[&partition.stream].compacts;
            let newest = if compacts {
                compaction::newest(log)?
            } else {
                BTreeMap::new()
            };
            let start = log_start(*partition);
            let stable = log.last_stable(start, log.end);
            let decided = log.batches.iter().map(|kept| (kept, &kept.batch));
            let decided = decided.filter(|(_, batch)| batch.last_offset() < stable);
            for (kept, batch) in decided.filter(|(_, batch)| log.is_meant(batch)) {
                let from = (*from).max(start);
                for record in compaction::records(batch)? {
                    let id = (*partition, record.offset);
                    if record.offset < from || self.settled.contains(&id) {
                        continue;
                    }
                    let superseded = compacts
                        && record.key.as_ref().is_some_and(|key| {
                            record.value.is_none() || newest.get(key) != Some(&record.offset)
                        });
                    if superseded || kept.class == Class::Memory {
                        owed.fleeting.insert(id);
                    } else if self.maybe_settled.contains(&id) {
                        owed.unless_settled.insert(id);
                    } else {
                        owed.must.insert(id);
                    }
                }
            }
        }
        Ok(owed)
    }

    /// Everything it has was handed out: what was perhaps settled is known now.
    pub fn resolve(&mut self, owed: &Owed, there: &BTreeSet<Place>) {
        for id in owed.unless_settled.difference(there) {
            self.maybe_settled.remove(id);
            self.settled.insert(*id);
        }
    }
}
