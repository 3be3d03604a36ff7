//! What a queue owes: everything of its sources that nobody settled, and nothing that somebody did.

use std::collections::{BTreeMap, BTreeSet};

use kernel::{DeliveryId, HolderId, PartitionId, QueueLimits};

use super::letters::{LIMIT, Letter, Letters, REJECTED};
use super::{Class, Model, compaction};

/// One record of one source.
pub type Place = (PartitionId, i64);
/// Holds what is being settled by somebody who is gone.
const NOBODY: HolderId = HolderId(0);

/// What somebody has.
#[derive(Debug, Clone)]
pub struct Held {
    pub id: DeliveryId,
    pub holder: HolderId,
    /// When its time is over, by the stop watch.
    pub until_ms: Option<u64>,
    pub letter: Letter,
}

impl Held {
    /// Whether it may have been put back.
    pub fn is_over(&self, now_ms: u64) -> bool {
        self.until_ms.is_some_and(|until| until <= now_ms)
    }
}

/// One queue.
#[derive(Clone, Default)]
pub struct Queue {
    /// Partition and first offset.
    pub sources: BTreeMap<PartitionId, i64>,
    /// Number of the entry that came next when the sources were set.
    pub changed_at: u64,
    /// The sources that were asked for and not acknowledged.
    pub asked: Option<BTreeMap<PartitionId, i64>>,
    pub settled: BTreeSet<Place>,
    /// Settlements that were not acknowledged.
    pub maybe_settled: BTreeSet<Place>,
    /// Settlements of this life on their way: if they are refused, the holder has the records again, unless it was released meanwhile.
    pub settling: BTreeMap<Place, Held>,
    /// Handed out in this life and not settled or released.
    pub held: BTreeMap<Place, Held>,
    /// How often what was handed out was, in this life.
    pub delivered: BTreeMap<Place, u32>,
    /// What its owner demands in this life.
    pub limits: QueueLimits,
    /// Handed out as often as the limit allows, and put back: not handed out again in this life.
    pub dying: BTreeSet<Place>,
    pub letters: Letters,
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
        self.dying.clear();
        self.limits = QueueLimits::default();
        self.maybe_settled.retain(|(partition, offset)| {
            model.log(*partition).is_none_or(|log| {
                let stable = log.last_stable(log.log_start, log.end);
                *offset < stable && (*offset < log.log_start || log.find(*offset).is_some())
            })
        });
    }

    /// A record was handed out; returns how often it has been.
    pub fn handed_out(&mut self, place: Place, held: Held) -> u32 {
        let count = self.delivered.entry(place).or_insert(0);
        *count += 1;
        let count = *count;
        if held.until_ms.is_some() {
            // From then on it may be put back at any time, and nobody says so.
            self.may_die(place, &held.letter);
        }
        self.held.insert(place, held);
        count
    }

    /// A record was put back by whoever had it, or its time is over.
    pub fn put_back(&mut self, place: Place, letter: &Letter) {
        if self.may_die(place, letter) {
            self.dying.insert(place);
        }
    }

    /// Whether a record dies when it is put back.
    fn may_die(&mut self, place: Place, letter: &Letter) -> bool {
        let count = self.delivered.get(&place).copied().unwrap_or(0);
        let dies = self.limits.max_deliveries.is_some_and(|most| count >= most);
        if dies && self.limits.dead_letter.is_some() {
            self.letters.send(place, letter.clone(), (LIMIT, count));
        } else if dies {
            // It is dropped.
            self.maybe_settled.insert(place);
        }
        dies
    }

    /// Somebody rejects a record, and there is a place for dead letters.
    pub fn reject(&mut self, place: Place, letter: &Letter) {
        let count = self.delivered.get(&place).copied().unwrap_or(0);
        self.letters.send(place, letter.clone(), (REJECTED, count));
    }

    /// A holder is gone: nobody has what it had.
    pub fn released(&mut self, holder: HolderId) {
        for (place, held) in self
            .held
            .extract_if(.., |_, held| held.holder == holder)
            .collect::<Vec<_>>()
        {
            self.put_back(place, &held.letter);
        }
        for held in self
            .settling
            .values_mut()
            .filter(|held| held.holder == holder)
        {
            // If that fails it is put back.
            held.holder = NOBODY;
        }
    }

    /// A settlement was refused, and nothing of it was done.
    pub fn not_settled(&mut self, place: &Place) {
        self.maybe_settled.remove(place);
        let Some(held) = self.settling.remove(place) else {
            return;
        };
        self.letters.keep(&held.letter);
        if held.holder == NOBODY {
            self.put_back(*place, &held.letter);
        } else {
            if held.until_ms.is_some() {
                self.may_die(*place, &held.letter);
            }
            self.held.insert(*place, held);
        }
    }

    /// A settlement came too late: the record was put back before, and may have been purged since.
    pub fn too_late(&mut self, place: &Place) {
        if let Some(held) = self.settling.remove(place)
            && !self.held.contains_key(place)
        {
            self.put_back(*place, &held.letter);
        }
    }

    /// Of what was rejected not all could be sent, and nobody said what. The next settlement of it will.
    pub fn perhaps_buried(&mut self, place: &Place) {
        if let Some(mut held) = self.settling.remove(place) {
            if held.holder == NOBODY {
                self.put_back(*place, &held.letter);
            } else {
                held.until_ms = Some(0);
                self.may_die(*place, &held.letter);
                self.held.insert(*place, held);
            }
        }
    }

    /// What was held too long is put back.
    pub fn expire(&mut self, now_ms: u64) {
        let over: Vec<_> = self
            .held
            .extract_if(.., |_, held| held.is_over(now_ms))
            .collect();
        for (place, held) in over {
            self.put_back(place, &held.letter);
        }
    }

    /// A dead letter of it is there.
    pub fn died(&mut self, place: Place, now_ms: u64) -> Result<(), String> {
        self.maybe_settled.remove(&place);
        self.dying.remove(&place);
        if let Some(held) = self.held.remove(&place)
            && !held.is_over(now_ms)
        {
            return Err(format!("{place:?} is a dead letter, and {held:?}"));
        }
        if self.sources.contains_key(&place.0) {
            self.settled.insert(place);
        }
        Ok(())
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
        self.delivered.retain(|place, _| !new(place));
        self.maybe_settled.retain(|place| !new(place));
        let sources = &self.sources;
        let dropped = |place: &Place| !sources.contains_key(&place.0);
        self.dying.retain(|place| !dropped(place));
        self.letters.drop_source(dropped);
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
