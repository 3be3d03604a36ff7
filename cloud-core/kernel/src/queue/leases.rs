//! Who has which records, until when.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::dead_letter::Lost;
use super::scan::Decoded;
use super::settle::Orphan;
use super::source::{Lease, LeaseState, Source};
use super::types::{DeliveryId, HolderId, QueueLimits};
use crate::state::offset_u64;
use crate::stream::PartitionId;

/// A record.
type Place = (PartitionId, i64);

/// What changes of a queue.
#[derive(Default)]
pub(super) struct Inner {
    pub sources: BTreeMap<PartitionId, Source>,
    /// Sources of which something changed since their heads were looked at, and those that left.
    pub stirred: BTreeSet<PartitionId>,
    /// Ready records, as far as they are counted.
    ready: u64,
    pub limits: QueueLimits,
    holders: HashMap<HolderId, BTreeSet<Place>>,
    /// Who asks for records, with the numbers of the acquisitions: those of a holder that is released are forgotten.
    pub acquiring: HashMap<HolderId, Vec<u64>>,
    /// How many acquisitions there have been.
    pub acquisitions: u64,
    /// When leases end by themselves (the clock's stop watch, milliseconds).
    deadlines: BTreeSet<(u64, Place)>,
    /// Handed out as often as the limit allows and put back: to be sent to where dead letters go.
    pub dying: Vec<DeliveryId>,
    /// What retention took, and is to be reported.
    pub lost: Vec<Lost>,
    /// Records that were put back where the log had been trimmed meanwhile.
    pub gone: u64,
    /// Writes whose callers have left.
    pub orphans: Vec<Orphan>,
    /// The batch that was read last: one with many records is not read again for each.
    pub decoded: Option<Decoded>,
}

impl Inner {
    /// A source, to change what it has to give.
    pub fn source_mut(&mut self, partition: PartitionId) -> Option<&mut Source> {
        let source = self.sources.get_mut(&partition)?;
        self.stirred.insert(partition);
        Some(source)
    }

    /// The ready records of a source are in the count, and its head is looked at.
    pub fn counted(&mut self, partition: PartitionId) {
        self.stirred.remove(&partition);
        if let Some(source) = self.sources.get_mut(&partition) {
            let ready = source.ready.len();
            self.ready = self.ready.saturating_sub(source.counted) + ready;
            source.counted = ready;
        }
    }

    /// Ready records of all sources.
    pub fn ready(&self) -> u64 {
        let stirred = self.stirred.iter().filter_map(|p| self.sources.get(p));
        let (now, counted) = stirred.fold((0, 0), |(now, counted), source| {
            (now + source.ready.len(), counted + source.counted)
        });
        self.ready.saturating_sub(counted) + now
    }

    fn lease(&self, place: Place) -> Option<&Lease> {
        self.sources.get(&place.0)?.out.get(&place.1)
    }

    fn lease_mut(&mut self, place: Place) -> Option<&mut Lease> {
        self.sources.get_mut(&place.0)?.out.get_mut(&place.1)
    }

    fn is_held(&self, id: DeliveryId) -> bool {
        self.lease((id.partition, id.offset))
            .is_some_and(|lease| lease.epoch == id.epoch && lease.state == LeaseState::Held)
    }

    /// Takes a record for a holder, to be handed out with the answer ([`Inner::hand_out`]). Returns how often it has been handed out then, and
    /// whether it may have been in an earlier life.
    pub fn take(&mut self, id: DeliveryId, holder: HolderId) -> Option<(u32, bool)> {
        let place = (id.partition, id.offset);
        let source = self.source_mut(id.partition)?;
        // While it was read retention may have taken it, and with it what was known of its deliveries.
        if !source.ready.contains(offset_u64(id.offset)) {
            return None;
        }
        let count = source.take(
            id.offset,
            Lease {
                holder,
                epoch: id.epoch,
                until: None,
                state: LeaseState::Coming,
            },
        );
        let uncertain = id.offset < source.uncertain_below;
        self.holders.entry(holder).or_default().insert(place);
        Some((count, uncertain))
    }

    /// The holder gets what was taken for it: its time begins now (the clock's stop watch, milliseconds).
    pub fn hand_out(&mut self, ids: impl Iterator<Item = DeliveryId>, now: u64) {
        let lease_ms = self.limits.lease_ms;
        for id in ids {
            let place = (id.partition, id.offset);
            let Some(lease) = self.lease_mut(place).filter(|l| l.epoch == id.epoch) else {
                continue;
            };
            lease.state = LeaseState::Held;
            lease.until = lease_ms.map(|ms| now.saturating_add(ms));
            if let Some(until) = lease.until {
                self.deadlines.insert((until, place));
            }
        }
    }

    /// Puts back what was taken and not handed out; false when it is not there any more.
    pub fn take_back(&mut self, id: DeliveryId) -> bool {
        let place = (id.partition, id.offset);
        let coming = self
            .lease(place)
            .is_some_and(|lease| lease.epoch == id.epoch && lease.state == LeaseState::Coming);
        coming && self.put_back(place)
    }

    /// Begins to end a lease; false when nobody has the record by this id.
    pub fn begin_end(&mut self, id: DeliveryId) -> bool {
        if !self.is_held(id) {
            return false;
        }
        let place = (id.partition, id.offset);
        if let Some(lease) = self.lease_mut(place) {
            lease.state = LeaseState::Ending;
            if let Some(until) = lease.until {
                self.deadlines.remove(&(until, place));
            }
        }
        true
    }

    /// The end of a lease is durable.
    pub fn ended(&mut self, id: DeliveryId) {
        let place = (id.partition, id.offset);
        let Some(lease) = self.lease(place).filter(|l| l.epoch == id.epoch).copied() else {
            return;
        };
        self.leave_holder(lease.holder, place);
        if let Some(source) = self.sources.get_mut(&id.partition) {
            source.end(id.offset);
        }
    }

    /// The end of a lease was not written: its holder has the record again, or if he is gone it is put back.
    pub fn end_failed(&mut self, id: DeliveryId) {
        let place = (id.partition, id.offset);
        let Some(lease) = self.lease_mut(place).filter(|l| l.epoch == id.epoch) else {
            return;
        };
        let alone = lease.state == LeaseState::EndingAlone;
        lease.state = LeaseState::Held;
        let until = lease.until;
        if let Some(until) = until {
            self.deadlines.insert((until, place));
        }
        if alone {
            self.put_back(place);
        }
    }

    /// Puts a record back; false when nobody has it by this id.
    pub fn release(&mut self, id: DeliveryId) -> bool {
        self.is_held(id) && self.put_back((id.partition, id.offset))
    }

    /// Puts back all that a holder has; returns how many. What is on its way to the holder finds that nobody asks for it any more.
    pub fn release_holder(&mut self, holder: HolderId) -> usize {
        self.acquiring.remove(&holder);
        let places = self.holders.remove(&holder).unwrap_or_default();
        let mut released = 0;
        for place in places {
            match self.lease_mut(place) {
                Some(lease) if lease.state == LeaseState::Ending => {
                    lease.state = LeaseState::EndingAlone;
                }
                Some(lease) if lease.state == LeaseState::EndingAlone => {}
                Some(_) => released += usize::from(self.put_back(place)),
                None => {}
            }
        }
        released
    }

    /// Puts back what has been held for too long; returns how many.
    pub fn expire(&mut self, now: u64) -> u64 {
        let mut expired = 0;
        while let Some((_, place)) = self.deadlines.first().copied().filter(|(t, _)| *t <= now) {
            self.deadlines.pop_first();
            expired += u64::from(self.put_back(place));
        }
        expired
    }

    /// Ends a lease without settling; false when there is none.
    fn put_back(&mut self, place: Place) -> bool {
        let Some(lease) = self.lease(place).copied() else {
            return false;
        };
        self.leave_holder(lease.holder, place);
        if let Some(until) = lease.until {
            self.deadlines.remove(&(until, place));
        }
        let limit = self.limits.max_deliveries;
        let Some(source) = self.source_mut(place.0) else {
            return false;
        };
        if lease.state == LeaseState::Coming {
            // Nobody has seen it: it has not been delivered, and is not condemned for it.
            source.not_handed(place.1);
            if !source.put_back(place.1) {
                self.gone += 1;
            }
            return true;
        }
        if limit.is_some_and(|most| source.deliveries(place.1) >= most) {
            if let Some(lease) = source.out.get_mut(&place.1) {
                lease.state = LeaseState::EndingAlone;
            }
            self.dying.push(DeliveryId {
                partition: place.0,
                offset: place.1,
                epoch: lease.epoch,
            });
        } else if !source.put_back(place.1) {
            self.gone += 1;
        }
        true
    }

    fn leave_holder(&mut self, holder: HolderId, place: Place) {
        if let Some(places) = self.holders.get_mut(&holder) {
            places.remove(&place);
            if places.is_empty() {
                self.holders.remove(&holder);
            }
        }
    }

    pub fn in_flight(&self) -> usize {
        self.sources.values().map(|source| source.out.len()).sum()
    }

    pub fn drop_source(&mut self, partition: PartitionId) {
        let Some(source) = self.sources.remove(&partition) else {
            return;
        };
        self.stirred.insert(partition);
        self.ready = self.ready.saturating_sub(source.counted);
        for (offset, lease) in &source.out {
            let place = (partition, *offset);
            self.leave_holder(lease.holder, place);
            if let Some(until) = lease.until {
                self.deadlines.remove(&(until, place));
            }
        }
        self.dying.retain(|id| id.partition != partition);
    }

    /// About how much memory this takes, in bytes.
    pub fn bytes(&self) -> usize {
        let sources: usize = self.sources.values().map(Source::bytes).sum();
        let held: usize = self.holders.values().map(BTreeSet::len).sum();
        sources
            + 2 * (held * size_of::<Place>() + self.deadlines.len() * size_of::<(u64, Place)>())
            + self.dying.len() * size_of::<DeliveryId>()
    }
}
