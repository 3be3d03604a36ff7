//! Producer sequences: is this batch new, a duplicate, or out of place?

use std::collections::VecDeque;

use record::{Batch, NO_SEQUENCE, next_sequence};

use crate::entry::SequenceRule;
use crate::error::AppendError;
use crate::limits::SEQUENCE_WINDOW;
use crate::state::transaction::Open;

/// What is remembered of one producer in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Producer {
    /// Never expires ([`SequenceRule::Strict`]).
    pub strict: bool,
    /// Known from the cold store, and nothing written since: what it wrote last may be lost, so it may go on further on.
    pub restored: bool,
    pub epoch: i16,
    pub last_sequence: i32,
    /// Stamp of its last batch, milliseconds since the epoch.
    pub last_used: i64,
    /// Its open transaction. Such a producer does not expire.
    pub open: Option<Open>,
    /// Of the newest coordinator that has ended a transaction of it; -1 = none has.
    pub coordinator_epoch: i32,
    /// Its last batches of this epoch, oldest first.
    pub window: VecDeque<Sent>,
}

impl Producer {
    /// True if it may be forgotten: it wrote nothing since, `idle_since` in milliseconds since the epoch.
    pub fn is_idle_since(&self, idle_since: i64) -> bool {
        !self.strict && self.open.is_none() && self.last_used < idle_since
    }
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
    let state = |reason| {
        Verdict::Refuse(AppendError::TransactionState {
            producer_id: batch.producer_id(),
            reason,
        })
    };
    if batch.producer_epoch() > known.epoch {
        // Whoever hands out epochs ends the older transaction first. Without this, the end of the new one would also decide
        // what the old one wrote.
        return if batch.base_sequence() != 0 && !known.restored {
            out_of_order(0)
        } else if known.open.is_some() {
            state("the transaction of its older epoch is still open")
        } else {
            Verdict::Append
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
        return if known.open.is_some() && !batch.is_transactional() {
            state("it has an open transaction, and the batch is not part of it")
        } else {
            Verdict::Append
        };
    }
    if rule == SequenceRule::Strict && at_or_below(batch.last_sequence(), known.last_sequence) {
        return Verdict::Duplicate(None);
    }
    if known.restored && !at_or_below(batch.base_sequence(), known.last_sequence) {
        return Verdict::Append;
    }
    out_of_order(expected)
}

/// What may be relied on of a producer when the disk has died: batches that are in the cold store are not taken twice, and more is not held
/// against it. `None`: nothing; it may go on anywhere. So it is with those that write transactions, of which the coordinator may know less than
/// the log; one that is open stays until its abort is logged, and is forgotten then.
pub(crate) fn restored(mut known: Producer, is_there: impl Fn(&Sent) -> bool) -> Option<Producer> {
    if let Some(open) = known.open {
        known.open = Some(open.orphaned());
        return Some(known);
    }
    known.window.retain(is_there);
    let last = known.window.back()?;
    (known.coordinator_epoch < 0).then_some(Producer {
        last_sequence: last.last_sequence,
        restored: true,
        ..known
    })
}

/// Remembers an appended batch.
pub(crate) fn remember(
    known: Option<Producer>,
    batch: &Batch,
    rule: SequenceRule,
    base_offset: i64,
    stamp: i64,
) -> Producer {
    let mut producer = at_epoch(known, batch.producer_epoch(), stamp);
    producer.strict |= rule == SequenceRule::Strict;
    producer.restored = false;
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
    if batch.is_transactional() {
        producer.open.get_or_insert(Open {
            first_offset: base_offset,
            started_at: stamp,
        });
    }
    producer
}

/// Judges the end of a transaction; `marker` is its control batch.
pub(crate) fn judge_end(
    known: &Producer,
    marker: &Batch,
    coordinator_epoch: i32,
) -> Result<(), AppendError> {
    let producer_id = marker.producer_id();
    if marker.producer_epoch() < known.epoch {
        return Err(AppendError::FencedEpoch {
            producer_id,
            current: known.epoch,
            found: marker.producer_epoch(),
        });
    }
    if coordinator_epoch < known.coordinator_epoch {
        return Err(AppendError::FencedCoordinator {
            producer_id,
            current: known.coordinator_epoch,
            found: coordinator_epoch,
        });
    }
    Ok(())
}

/// Remembers the end of a transaction; returns the transaction, if one was open. A newer epoch starts at sequence 0, and fences what the older
/// one may still have on its way.
pub(crate) fn end(
    known: Option<Producer>,
    marker: &Batch,
    coordinator_epoch: i32,
    stamp: i64,
) -> (Producer, Option<Open>) {
    let open = known.as_ref().and_then(|producer| producer.open);
    let mut producer = at_epoch(known, marker.producer_epoch(), stamp);
    producer.open = None;
    producer.coordinator_epoch = coordinator_epoch;
    producer.last_used = stamp;
    (producer, open)
}

/// The producer after it was said that what it would have written before `next` will never come. `None`: nothing moves.
pub(crate) fn advanced(
    known: Option<&Producer>,
    epoch: i16,
    next: i32,
    stamp: i64,
) -> Option<Producer> {
    // The circle of sequences is closed: before 0 there is -1 at the beginning, and the same afterwards.
    let last_sequence = next.checked_sub(1).filter(|last| *last >= NO_SEQUENCE)?;
    if let Some(known) = known {
        let behind = known.epoch == epoch && at_or_below(last_sequence, known.last_sequence);
        if known.epoch > epoch || known.open.is_some() || behind {
            return None;
        }
    }
    Some(Producer {
        strict: true,
        last_sequence,
        last_used: stamp,
        ..at_epoch(known.cloned(), epoch, stamp)
    })
}

/// The producer at an epoch: as it was, or at the beginning of a new one.
fn at_epoch(known: Option<Producer>, epoch: i16, stamp: i64) -> Producer {
    match known {
        Some(known) if known.epoch == epoch => known,
        known => Producer {
            strict: known.as_ref().is_some_and(|known| known.strict),
            restored: false,
            epoch,
            last_sequence: NO_SEQUENCE,
            last_used: stamp,
            open: None,
            coordinator_epoch: known.map_or(-1, |known| known.coordinator_epoch),
            window: VecDeque::new(),
        },
    }
}

/// Sequences wrap after `i32::MAX`: what lies up to half the circle behind is old, the rest is ahead.
fn at_or_below(sequence: i32, last: i32) -> bool {
    (i64::from(last) - i64::from(sequence)).rem_euclid(1 << 31) < 1 << 30
}
