//! Producer sequences: is this batch new, a duplicate, or out of place?

use std::collections::VecDeque;

use record::{Batch, next_sequence};

use crate::entry::SequenceRule;
use crate::error::AppendError;
use crate::limits::SEQUENCE_WINDOW;

/// What is remembered of one producer in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Producer {
    /// Never expires ([`SequenceRule::Strict`]).
    pub strict: bool,
    pub epoch: i16,
    pub last_sequence: i32,
    /// Stamp of its last batch, milliseconds since the epoch.
    pub last_used: i64,
    /// Its last batches, oldest first.
    pub window: VecDeque<Sent>,
}

/// One batch of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    pub first_sequence: i32,
    pub last_sequence: i32,
    pub base_offset: i64,
    pub last_offset: i64,
}

/// What to do with a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Append,
    /// Offsets of the first time, where still known.
    Duplicate(Option<(i64, i64)>),
    Refuse(AppendError),
}

/// True if the sequence of this batch is checked at all.
pub(crate) fn is_checked(rule: SequenceRule, batch: &Batch) -> bool {
    rule != SequenceRule::None && batch.producer_id() >= 0
}

/// Judges a batch whose sequence is checked. A producer that is not known in the partition may start anywhere: its
/// earlier state may have expired, or the stream may have been made anew.
pub(crate) fn judge(known: Option<&Producer>, batch: &Batch, rule: SequenceRule) -> Verdict {
    let Some(known) = known else {
        return Verdict::Append;
    };
    let out_of_order = |expected| {
        Verdict::Refuse(AppendError::OutOfOrderSequence {
            producer_id: batch.producer_id(),
            expected,
            found: batch.base_sequence(),
        })
    };
    if batch.producer_epoch() < known.epoch {
        return Verdict::Refuse(AppendError::FencedEpoch {
            producer_id: batch.producer_id(),
            current: known.epoch,
            found: batch.producer_epoch(),
        });
    }
    if batch.producer_epoch() > known.epoch {
        return if batch.base_sequence() == 0 {
            Verdict::Append
        } else {
            out_of_order(0)
        };
    }
    let same = |s: &&Sent| {
        s.first_sequence == batch.base_sequence() && s.last_sequence == batch.last_sequence()
    };
    if let Some(sent) = known.window.iter().find(same) {
        return Verdict::Duplicate(Some((sent.base_offset, sent.last_offset)));
    }
    let expected = next_sequence(known.last_sequence);
    if batch.base_sequence() == expected {
        return Verdict::Append;
    }
    if rule == SequenceRule::Strict && at_or_below(batch.last_sequence(), known.last_sequence) {
        return Verdict::Duplicate(None);
    }
    out_of_order(expected)
}

/// Remembers an appended batch.
pub(crate) fn remember(
    known: Option<Producer>,
    batch: &Batch,
    rule: SequenceRule,
    base_offset: i64,
    stamp: i64,
) -> Producer {
    let mut producer = known
        .filter(|p| p.epoch == batch.producer_epoch())
        .unwrap_or(Producer {
            strict: false,
            epoch: batch.producer_epoch(),
            last_sequence: 0,
            last_used: stamp,
            window: VecDeque::new(),
        });
    producer.strict |= rule == SequenceRule::Strict;
    producer.last_sequence = batch.last_sequence();
    producer.last_used = stamp;
    if producer.window.len() >= SEQUENCE_WINDOW {
        producer.window.pop_front();
    }
    producer.window.push_back(Sent {
        first_sequence: batch.base_sequence(),
        last_sequence: batch.last_sequence(),
        base_offset,
        last_offset: base_offset + i64::from(batch.last_offset_delta()),
    });
    producer
}

/// Sequences wrap after `i32::MAX`: what lies up to half the circle behind is old, the rest is ahead.
fn at_or_below(sequence: i32, last: i32) -> bool {
    (i64::from(last) - i64::from(sequence)).rem_euclid(1 << 31) < 1 << 30
}
