//! What a producer may send next, in plain words.

use std::collections::VecDeque;

use kernel::SequenceRule;
use record::{Batch, next_sequence};

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
}

pub fn judge(known: Option<&Producer>, batch: &Batch, rule: SequenceRule) -> Judgement {
    let Some(known) = known else {
        return Judgement::Append;
    };
    if batch.producer_epoch() < known.epoch {
        return Judgement::Fenced;
    }
    if batch.producer_epoch() > known.epoch {
        return if batch.base_sequence() == 0 {
            Judgement::Append
        } else {
            Judgement::OutOfOrder
        };
    }
    let again = known
        .window
        .iter()
        .find(|sent| (sent.first, sent.last) == (batch.base_sequence(), batch.last_sequence()));
    if let Some(sent) = again {
        Judgement::Duplicate(sent.base_offset, sent.last_offset)
    } else if batch.base_sequence() == next_sequence(known.last) {
        Judgement::Append
    } else if rule == SequenceRule::Strict && batch.last_sequence() <= known.last {
        // Sequences do not wrap in a run of the simulator.
        Judgement::Duplicate(-1, -1)
    } else {
        Judgement::OutOfOrder
    }
}

pub fn remember(known: Option<Producer>, batch: &Batch, base_offset: i64) -> Producer {
    let mut producer = known
        .filter(|known| known.epoch == batch.producer_epoch())
        .unwrap_or(Producer {
            epoch: batch.producer_epoch(),
            last: 0,
            window: VecDeque::new(),
        });
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
    producer
}
