//! Dead letters of one queue: each must have been sent, and is there exactly as often as that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use kernel::{Acquired, DEAD_COUNT, DEAD_POSITION, DEAD_QUEUE, DEAD_REASON, DEAD_STREAM};
use record::Record;

use super::queues::Place;
use super::view::View;
use super::{DEAD_LETTERS, compaction};

/// What tells a dead letter from all others: where it was, and what it says.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Letter {
    stream: String,
    position: String,
    timestamp: i64,
    key: Option<Bytes>,
    value: Option<Bytes>,
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.stream, self.position)
    }
}

impl Letter {
    /// What a record would be as one.
    pub fn of(got: &Acquired) -> Letter {
        Letter {
            stream: got.stream.address.name.to_string(),
            position: format!("{}/{}", got.id.partition.partition, got.id.offset),
            timestamp: got.record.timestamp,
            key: got.record.key.clone(),
            value: got.record.value.clone(),
        }
    }
}

/// Why a letter was sent: the reason as it stands in it, and how often the record had been handed out.
pub type Cause = (&'static str, u32);

pub const REJECTED: &str = "rejected";
pub const LIMIT: &str = "delivery-limit";

/// One record that may have been sent.
#[derive(Clone)]
struct Note {
    place: Place,
    causes: BTreeSet<Cause>,
    /// It may be on its way, or have come.
    open: bool,
    /// Somebody was told that it is there.
    answered: bool,
    /// The log failed while it was on its way: it may be there, whatever becomes of the record until the restart.
    unanswered: bool,
    /// How often it has been seen.
    seen: usize,
    /// How often it may have come unseen before its source was dropped.
    unseen: usize,
}

/// The letters of a queue.
#[derive(Clone, Default)]
pub struct Letters(BTreeMap<Letter, Note>);

/// What is in the stream, for each queue: the letters with the reason and the count in each copy.
pub type Found = BTreeMap<String, BTreeMap<Letter, Vec<(String, u32)>>>;

/// The dead letters that were read.
pub fn found(view: &View) -> Result<Found, String> {
    let mut all = Found::new();
    for (stream, partitions) in view.streams.values() {
        if stream.address.name.as_str() != DEAD_LETTERS {
            continue;
        }
        for batch in partitions.iter().flat_map(|p| &p.batches) {
            for record in compaction::records(batch)? {
                let letter = Letter {
                    stream: header(&record, DEAD_STREAM)?,
                    position: header(&record, DEAD_POSITION)?,
                    timestamp: record.timestamp,
                    key: record.key.clone(),
                    value: record.value.clone(),
                };
                let reason = header(&record, DEAD_REASON)?;
                let count = header(&record, DEAD_COUNT)?;
                let count = count.parse().map_err(|_| format!("a count of {count}"))?;
                if reason == "retention" {
                    // None of the records; that they went is no secret.
                    continue;
                }
                let queue = all.entry(header(&record, DEAD_QUEUE)?).or_default();
                queue.entry(letter).or_default().push((reason, count));
            }
        }
    }
    Ok(all)
}

fn header(record: &Record, name: &str) -> Result<String, String> {
    let header = record.headers.iter().find(|h| h.name == name.as_bytes());
    let value = header.and_then(|header| header.value.clone());
    let value = value.ok_or(format!("a dead letter without {name}"))?;
    String::from_utf8(value.to_vec()).map_err(|error| error.to_string())
}

impl Letters {
    /// A record may be sent.
    pub fn send(&mut self, place: Place, letter: Letter, cause: Cause) {
        let note = self.0.entry(letter).or_insert(Note {
            place,
            causes: BTreeSet::new(),
            open: false,
            answered: false,
            unanswered: false,
            seen: 0,
            unseen: 0,
        });
        note.causes.insert(cause);
        note.open = true;
    }

    /// It was not sent, and will not be.
    pub fn keep(&mut self, letter: &Letter) {
        if let Some(note) = self.0.get_mut(letter) {
            note.open = note.unanswered;
        }
    }

    /// Nobody says whether it was sent.
    pub fn unanswered(&mut self, letter: &Letter) {
        if let Some(note) = self.0.get_mut(letter) {
            note.unanswered = true;
        }
    }

    /// Whether a record may have been sent since its letters were looked at.
    pub fn may_come(&self, place: &Place) -> bool {
        self.0
            .values()
            .any(|note| note.open && note.place == *place)
    }

    /// Somebody was told that it is there.
    pub fn answered(&mut self, letter: &Letter) {
        if let Some(note) = self.0.get_mut(letter) {
            note.answered = true;
        }
    }

    /// The source was dropped: what it sends when it comes back is another copy.
    pub fn drop_source(&mut self, is_dropped: impl Fn(&Place) -> bool) {
        for note in self.0.values_mut().filter(|note| is_dropped(&note.place)) {
            note.unseen += usize::from(note.open);
            note.open = false;
            note.answered = false;
        }
    }

    /// Compares with what is there; returns what of it is new, and whether it is settled by that for sure. `final_look`: what has not come by now does not come any more.
    /// `must_come`: whether a record could be read as long as it was on its way.
    pub fn check(
        &mut self,
        found: Option<&BTreeMap<Letter, Vec<(String, u32)>>>,
        final_look: bool,
        must_come: impl Fn(&Place) -> bool,
    ) -> Result<Vec<(Place, bool)>, String> {
        for (letter, copies) in found.into_iter().flatten() {
            let note = self.0.get(letter);
            let note = note.ok_or_else(|| format!("nobody sent the dead letter {letter:?}"))?;
            let known = |(reason, count): &&(String, u32)| {
                let mut causes = note.causes.iter();
                causes.any(|(r, c)| r == reason && c == count)
            };
            if let Some(other) = copies.iter().find(|copy| !known(copy)) {
                return Err(format!(
                    "the dead letter {letter:?} says {other:?}, and was sent for one of {:?}",
                    note.causes
                ));
            }
        }
        let mut new = Vec::new();
        for (letter, note) in &mut self.0 {
            let copies = found.and_then(|found| found.get(letter));
            let copies = copies.map_or(0, Vec::len);
            if copies < note.seen || copies > note.seen + usize::from(note.open) + note.unseen {
                return Err(format!(
                    "the dead letter {letter:?} is there {copies} times, and was {} times before; open: {}",
                    note.seen, note.open
                ));
            }
            if copies > note.seen {
                // Fewer than there may be: perhaps it is that of before.
                let is_sure = copies == note.seen + 1 + note.unseen;
                note.seen = copies;
                if note.open {
                    new.push((note.place, is_sure));
                }
                if is_sure {
                    note.unseen = 0;
                    note.open = false;
                }
                note.answered = false;
            } else if note.answered && must_come(&note.place) {
                return Err(format!("the dead letter {letter:?} is missing"));
            }
            if final_look {
                note.open = false;
                note.answered = false;
                note.unanswered = false;
                note.unseen = 0;
            }
        }
        Ok(new)
    }
}
