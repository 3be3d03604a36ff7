//! Producers with sequences, as clients are: they number their batches, send them again when they are in doubt, and sometimes err.

use std::collections::VecDeque;

use kernel::{Command, PartitionId, SequenceRule};
use rand::{RngExt, rngs::StdRng};
use record::{Batch, BatchBuilder, NewRecord};

use super::plan::Plan;
use crate::model::Model;

/// Batches that a client remembers.
const REMEMBERED: usize = 6;

/// One producer, in one partition.
pub struct Client {
    id: i64,
    epoch: i16,
    pub partition: PartitionId,
    rule: SequenceRule,
    next: i32,
    sent: VecDeque<Batch>,
}

impl Client {
    pub fn new(id: i64, partition: PartitionId, rng: &mut StdRng) -> Client {
        Client {
            id,
            epoch: 0,
            partition,
            rule: if rng.random_bool(0.5) {
                SequenceRule::Window
            } else {
                SequenceRule::Strict
            },
            next: 0,
            sent: VecDeque::new(),
        }
    }

    /// Asks what the log has of it, as a client does that was refused.
    pub fn look_up(&mut self, model: &Model) {
        let known = model
            .log(self.partition)
            .and_then(|log| log.producers.get(&self.id));
        if let Some(known) = known {
            self.epoch = known.epoch;
            self.next = known.last.wrapping_add(1);
        }
    }

    /// Says that what it would have sent before a sequence never comes, mostly one ahead of it.
    pub fn skip(&mut self, rng: &mut StdRng) -> Command {
        let newer = i16::from(rng.random_bool(0.2));
        let ahead = rng.random_range(0..5);
        let (epoch, next) = if rng.random_bool(0.2) {
            (self.epoch - 1 + newer, self.next - ahead)
        } else {
            self.next = if newer > 0 { ahead } else { self.next + ahead };
            self.epoch += newer;
            (self.epoch, self.next)
        };
        Command::AdvanceSequence {
            partition: self.partition,
            producer_id: self.id,
            epoch: epoch.max(0),
            next,
        }
    }

    /// What it sends next.
    pub fn send(
        &mut self,
        plan: &Plan,
        rng: &mut StdRng,
        value: &mut u64,
    ) -> (Batch, SequenceRule) {
        if !self.sent.is_empty() && rng.random_bool(0.25) {
            let at = rng.random_range(0..self.sent.len());
            return (self.sent[at].clone(), self.rule);
        }
        if rng.random_bool(0.02) {
            self.epoch += 1;
            self.next = 0;
        }
        let wrong = rng.random_bool(0.02);
        let epoch = if wrong && rng.random_bool(0.5) {
            self.epoch - 1
        } else {
            self.epoch
        };
        let sequence = if wrong { self.next + 3 } else { self.next };
        let builder = BatchBuilder::new().producer(self.id, epoch.max(0), sequence);
        let batch = filled(builder, plan, rng, value);
        if !wrong {
            self.next += i32::try_from(batch.record_count()).unwrap_or(1);
            self.sent.push_back(batch.clone());
            if self.sent.len() > REMEMBERED {
                self.sent.pop_front();
            }
        }
        (batch, self.rule)
    }
}

/// Fills a batch with records whose values nobody has used before.
pub fn filled(mut builder: BatchBuilder, plan: &Plan, rng: &mut StdRng, value: &mut u64) -> Batch {
    for _ in 0..rng.random_range(1..4) {
        *value += 1;
        let most = if rng.random_bool(plan.large_values) {
            40_000
        } else {
            plan.value_bytes
        };
        let len = rng.random_range(0..=most);
        let mut bytes = value.to_string().into_bytes();
        bytes.resize(bytes.len() + len, b'x');
        let record = NewRecord {
            timestamp: 1_700_000_000_000 + i64::from(rng.random_range(0..10_000_000)),
            key: rng
                .random_bool(0.7)
                .then(|| format!("k{}", rng.random_range(0..6)).into()),
            value: (!rng.random_bool(0.05)).then(|| bytes.into()),
            headers: Vec::new(),
        };
        builder.push(&record).expect("a small record");
    }
    builder.build().expect("a batch with records")
}
