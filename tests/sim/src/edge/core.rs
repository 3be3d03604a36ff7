//! What a core makes of the lanes: it takes each batch once, in the order of its sequences, or is told what is missing.

use std::collections::{BTreeMap, BTreeSet};

use record::StreamName;
use store::{Frame, Gap, GapReason};

/// One producer id and stream: where there is one epoch at a time, and sequences count in it.
type Key = (i64, StreamName);

/// What the core knows of one lane. It never forgets.
#[derive(Default)]
pub struct Core {
    /// Newest epoch, and the sequence that comes next in it.
    next: BTreeMap<Key, (i16, i32)>,
    pub delivered: BTreeSet<u64>,
    /// The newest message of each stream.
    newest: BTreeMap<StreamName, u64>,
    pub gaps: Vec<Gap>,
}

impl Core {
    /// Takes a frame whose records are these messages.
    pub fn take(&mut self, frame: &Frame, messages: &[u64]) -> Result<(), String> {
        let batch = &frame.batch;
        let key = (batch.producer_id(), frame.stream.clone());
        let epoch = batch.producer_epoch();
        let expected = match self.next.get(&key) {
            // Everything of an older epoch was settled before.
            Some((newest, _)) if *newest > epoch => return Ok(()),
            Some((newest, next)) if *newest == epoch => *next,
            _ => 0,
        };
        let (first, last) = (batch.base_sequence(), batch.last_sequence());
        if last < expected {
            return Ok(());
        }
        if first != expected {
            return Err(format!(
                "entry {} of lane {} begins at sequence {first} in epoch {epoch}, the core expects {expected}",
                frame.number, frame.lane.0
            ));
        }
        self.next.insert(key, (epoch, record::next_sequence(last)));
        for message in messages {
            if !self.delivered.insert(*message) {
                return Err(format!("message {message} comes to the core again"));
            }
            let newest = self.newest.insert(frame.stream.clone(), *message);
            if newest.is_some_and(|newest| newest > *message) {
                return Err(format!("message {message} comes behind a newer one"));
            }
        }
        Ok(())
    }

    /// Is told of a gap.
    pub fn hear(&mut self, gap: &Gap) {
        self.gaps.push(gap.clone());
        for (stream, next) in &gap.sequences {
            let key = (gap.producer_id, stream.clone());
            let known = self.next.entry(key).or_insert((gap.epoch, *next));
            *known = (*known).max((gap.epoch, *next));
        }
    }

    /// Whether it was told that an entry is missing.
    pub fn misses(&self, number: u64) -> bool {
        covers(&self.gaps, number)
    }

    /// Messages that it was told are missing because of the bounds of the lane.
    pub fn evicted(&self) -> u64 {
        let evicted = |gap: &&Gap| {
            matches!(
                gap.reason,
                GapReason::EvictedBytes | GapReason::EvictedAge | GapReason::Fenced
            )
        };
        let gaps = self.gaps.iter().filter(evicted);
        gaps.map(|gap| gap.records).sum()
    }
}

/// Whether an entry is in one of these gaps.
pub fn covers(gaps: &[Gap], number: u64) -> bool {
    gaps.iter()
        .any(|gap| (gap.first..gap.next.number).contains(&number))
}
