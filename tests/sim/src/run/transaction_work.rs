//! Producers that write in transactions, as their clients and coordinators do: over several partitions, with every mistake there is.

use std::collections::BTreeMap;

use kernel::ports::Clock;
use kernel::{Command, PartitionId, SequenceRule};
use rand::RngExt;
use record::{Batch, BatchBuilder};

use super::Sim;
use super::clients::filled;
use super::life::Life;
use super::plan::pick;
use crate::model::Model;

/// Producers at a time.
const PRODUCERS: usize = 3;
/// The first of their ids: others count from 1.
const FIRST_ID: i64 = 1_000_000;
/// Partitions that one writes to.
const PARTITIONS: usize = 3;

/// A producer and its coordinator.
pub struct Transactor {
    id: i64,
    epoch: i16,
    coordinator: i32,
    /// The next sequence in each partition of its own.
    partitions: BTreeMap<PartitionId, i32>,
    /// What it sent last.
    last: Option<(PartitionId, Batch)>,
}

impl Transactor {
    /// Asks what the logs have of it.
    fn look_up(&mut self, model: &Model) {
        let known = |partition: &PartitionId| {
            let log = model.log(*partition)?;
            log.producers.get(&self.id)
        };
        let epochs = self.partitions.keys().filter_map(known);
        let newest = epochs.map(|known| (known.epoch, known.coordinator)).max();
        let Some((epoch, coordinator)) = newest else {
            return;
        };
        let next = |partition: &PartitionId| match known(partition) {
            Some(known) if known.epoch == epoch => known.last + 1,
            _ => 0,
        };
        let partitions = self.partitions.keys();
        self.partitions = partitions.map(|p| (*p, next(p))).collect();
        (self.epoch, self.coordinator) = (epoch, coordinator.max(0));
    }
}

impl Sim {
    /// Something that a producer in a transaction sends, or its end.
    pub fn transact(&mut self) -> Option<Command> {
        if self.transactors.len() < PRODUCERS {
            self.next_client += 1;
            let mut partitions = BTreeMap::new();
            for _ in 0..PARTITIONS {
                partitions.insert(self.partition()?, 0);
            }
            self.transactors.push(Transactor {
                id: FIRST_ID + self.next_client,
                epoch: 0,
                coordinator: 0,
                partitions,
                last: None,
            });
        }
        let at = self.rng.random_range(0..self.transactors.len());
        if self.rng.random_bool(0.02) {
            // It leaves, and what it has open stays so until somebody ends it.
            self.transactors.swap_remove(at);
            return None;
        }
        let rng = &mut self.rng;
        let transactor = &mut self.transactors[at];
        let truth = self.truth.borrow();
        if truth.waiting() == 0 {
            let model = &truth.now;
            transactor.partitions.retain(|p, _| model.log(*p).is_some());
            transactor.look_up(model);
        }
        drop(truth);
        if transactor.partitions.is_empty() {
            self.transactors.swap_remove(at);
            return None;
        }
        if rng.random_bool(0.25) {
            return self.end_one(at);
        }
        if rng.random_bool(0.15)
            && let Some((partition, batch)) = transactor.last.clone()
        {
            let rule = SequenceRule::Window;
            return Some(Command::Append {
                partition,
                batch,
                rule,
            });
        }
        let partitions: Vec<PartitionId> = transactor.partitions.keys().copied().collect();
        let partition = *pick(rng, &partitions);
        let next = transactor.partitions.entry(partition).or_insert(0);
        let mistake = rng.random_range(0..40);
        let epoch = match mistake {
            0 => (transactor.epoch - 1).max(0),
            1 => transactor.epoch + 1,
            _ => transactor.epoch,
        };
        let sequence = if mistake == 2 { *next + 2 } else { *next };
        let builder = BatchBuilder::new().producer(transactor.id, epoch, sequence);
        let builder = if mistake == 3 {
            builder
        } else {
            builder.transactional()
        };
        let batch = filled(builder, &self.plan, rng, &mut self.value);
        if mistake > 3 {
            *next += i32::try_from(batch.record_count()).unwrap_or(1);
            transactor.last = Some((partition, batch.clone()));
        }
        Some(Command::Append {
            partition,
            batch,
            rule: SequenceRule::Window,
        })
    }

    /// The end of a transaction.
    fn end_one(&mut self, at: usize) -> Option<Command> {
        let now_ms = self.clock.now_ms();
        let rng = &mut self.rng;
        let transactor = &mut self.transactors[at];
        let mut epoch = transactor.epoch;
        match rng.random_range(0..10) {
            // The producer began anew: its coordinator fences what it was.
            0..3 => {
                epoch += 1;
                transactor.epoch = epoch;
                transactor.last = None;
                transactor
                    .partitions
                    .values_mut()
                    .for_each(|next| *next = 0);
            }
            3 => epoch = (epoch - 1).max(0),
            _ => {}
        }
        let mut coordinator = transactor.coordinator;
        match rng.random_range(0..10) {
            0 => {
                coordinator += 1;
                transactor.coordinator = coordinator;
            }
            1 => coordinator = (coordinator - 1).max(0),
            _ => {}
        }
        let mut partitions: Vec<PartitionId> = transactor.partitions.keys().copied().collect();
        if rng.random_bool(0.2) {
            partitions.retain(|_| rng.random_bool(0.6));
        }
        let (id, commit) = (transactor.id, rng.random_bool(0.5));
        let end = Command::end_transaction(id, epoch, partitions, commit, coordinator, now_ms);
        end.ok()
    }

    /// Ends a transaction that takes too long, as whoever watches over them does.
    pub fn expire_transaction(&mut self, life: &Life) -> Option<Command> {
        let open = life.kernel.open_transactions(i64::MAX);
        let oldest = open.first()?;
        let known = {
            let truth = self.truth.borrow();
            let log = truth.now.log(oldest.partition);
            log.and_then(|log| Some(log.producers.get(&oldest.producer_id)?.coordinator))
        };
        let partitions = open.iter().filter(|o| o.producer_id == oldest.producer_id);
        let partitions = partitions.map(|open| open.partition).collect();
        let end = Command::end_transaction(
            oldest.producer_id,
            oldest.epoch + 1,
            partitions,
            false,
            known.unwrap_or(0).max(0),
            self.clock.now_ms(),
        );
        end.ok()
    }
}
