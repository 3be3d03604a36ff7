//! What a producer may send next, in plain words.

use std::collections::VecDeque;

use kernel::SequenceRule;
use record::{Batch, NO_SEQUENCE, next_sequence};

/// A batch that a producer sent.
#[derive(Clone, Copy, PartialEq)]
struct Sent {
    first: i32,
    last: i32,
    base_offset: i64,
    last_offset: i64,
}

/// One producer in one partition.
#[derive(Clone)]
pub struct Producer {
    pub epoch: i16,
    pub last: i32,
    /// First offset of its open transaction.
    pub open: Option<i64>,
    /// Of the newest coordinator that ended one; -1 = none has.
    pub coordinator: i32,
    /// Never forgotten.
    pub strict: bool,
    window: VecDeque<Sent>,
}

/// What becomes of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Judgement {
    Append,
    /// With the offsets of then, -1 when they are forgotten.
    Duplicate(i64, i64),
    OutOfOrder,
    Fenced,
    /// Its transaction does not allow it.
    Transaction,
}

pub fn is_checked(batch: &Batch, rule: SequenceRule) -> bool {
    rule != SequenceRule::None && batch.producer_id() >= 0
}

pub fn judge(known: Option<&Producer>, batch: &Batch, rule: SequenceRule) -> Judgement {
    let Some(known) = known else {
        return Judgement::Append;
    };
    if batch.producer_epoch() < known.epoch {
        return Judgement::Fenced;
    }
    if batch.producer_epoch() > known.epoch {
        return if batch.base_sequence() != 0 {
            Judgement::OutOfOrder
        } else if known.open.is_some() {
            Judgement::Transaction
        } else {
            Judgement::Append
        };
    }
    let again = known
        .window
        .iter()
        .find(|sent| (sent.first, sent.last) == (batch.base_sequence(), batch.last_sequence()));
    if let Some(sent) = again {
        Judgement::Duplicate(sent.base_offset, sent.last_offset)
    } else if batch.base_sequence() == next_sequence(known.last) {
        if known.open.is_some() && !batch.is_transactional() {
            Judgement::Transaction
        } else {
            Judgement::Append
        }
    } else if rule == SequenceRule::Strict && batch.last_sequence() <= known.last {
        // Sequences do not wrap in a run of the simulator.
        Judgement::Duplicate(-1, -1)
    } else {
        Judgement::OutOfOrder
    }
}

/// Whether the transaction of a producer may end so.
pub fn judge_end(known: Option<&Producer>, marker: &Batch, coordinator: i32) -> Judgement {
    match known {
        Some(known) if marker.producer_epoch() < known.epoch => Judgement::Fenced,
        Some(known) if coordinator < known.coordinator => Judgement::Transaction,
        _ => Judgement::Append,
    }
}

pub fn remember(
    known: Option<Producer>,
    batch: &Batch,
    rule: SequenceRule,
    base_offset: i64,
) -> Producer {
    let mut producer = at_epoch(known, batch.producer_epoch());
    producer.strict |= rule == SequenceRule::Strict;
    producer.last = batch.last_sequence();
    if producer.window.len() == kernel::limits::SEQUENCE_WINDOW {
        producer.window.pop_front();
    }
    producer.window.push_back(Sent {
        first: batch.base_sequence(),
        last: batch.last_sequence(),
        base_offset,
        last_offset: base_offset + i64::from(batch.last_offset_delta()),
    });
    if batch.is_transactional() {
        producer.open.get_or_insert(base_offset);
    }
    producer
}

/// The producer after its transaction has ended, and where that began.
pub fn end(known: Option<Producer>, epoch: i16, coordinator: i32) -> (Producer, Option<i64>) {
    let open = known.as_ref().and_then(|known| known.open);
    let mut producer = at_epoch(known, epoch);
    producer.open = None;
    producer.coordinator = coordinator;
    (producer, open)
}

/// The producer after it was said that nothing comes before `next`; `None` if that changes nothing: it never moves back.
pub fn advance(known: Option<&Producer>, epoch: i16, next: i32) -> Option<Producer> {
    if next < 0 {
        return None;
    }
    if let Some(known) = known {
        let behind = known.epoch == epoch && next <= known.last + 1;
        if known.epoch > epoch || known.open.is_some() || behind {
            return None;
        }
    }
    let mut producer = at_epoch(known.cloned(), epoch);
    producer.strict = true;
    producer.last = next - 1;
    Some(producer)
}

fn at_epoch(known: Option<Producer>, epoch: i16) -> Producer {
    match known {
        Some(known) if known.epoch == epoch => known,
        known => Producer {
            epoch,
            last: NO_SEQUENCE,
            open: None,
            coordinator: known.as_ref().map_or(-1, |known| known.coordinator),
            strict: known.is_some_and(|known| known.strict),
            window: VecDeque::new(),
        },
    }
}
