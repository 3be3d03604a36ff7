//! What was published, what became of it, and what must be true of a store that was opened.

use std::collections::{BTreeMap, BTreeSet};

use record::StreamName;
use store::{Eviction, Frame, Gap, GapReason, LaneConfig, LogId, Producer, WriteError};

use super::core::{Core, covers};
use super::delayed::Delayed;
use super::plan::{Plan, UNBOUNDED};

/// The header that says which message a record is.
pub const NAME: &str = "n";

/// What is known of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nobody has answered, or the answer was that nobody knows.
    Unknown,
    /// It was acknowledged, or somebody has read it.
    Stored,
    /// It was acknowledged, and the lane made room with it before anybody had read it: it is in a gap.
    Evicted,
    /// It was refused: it never comes.
    Refused,
    /// Nobody has answered, and it was not there when the store was opened: it never comes, but may have been there for a moment.
    Gone,
    /// It was acknowledged, and not stored: the core is to be told.
    Dropped,
}

/// A message.
#[derive(Debug, Clone)]
pub struct Message {
    pub lane: usize,
    pub fate: Fate,
    /// The number of its entry.
    pub at: Option<u64>,
    /// The core never takes it.
    pub poison: bool,
}

/// What became of a QoS 2 packet id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet {
    Free,
    Held,
    /// The answer to a publish or a release is not there.
    Unknown,
}

/// One retained message: message, whether it clears, and whether it is stored. In the order of their publishing.
pub type Retained = Vec<(u64, bool, Fate)>;

/// Everything that was published and heard.
#[derive(Default)]
pub struct Model {
    pub messages: BTreeMap<u64, Message>,
    pub lanes: Vec<LaneModel>,
    /// Who wrote, start by start.
    pub starts: Vec<Producer>,
    /// Which message has a sequence.
    sequences: BTreeMap<(i64, i16, StreamName, i32), u64>,
    /// The client that publishes at QoS 2 has a session.
    pub connected: bool,
    pub packets: BTreeMap<u16, Packet>,
    pub retained: BTreeMap<String, Retained>,
    pub delayed: BTreeMap<u64, Delayed>,
    /// Positions of the session's checkpoint that may be stored. Empty: there is none.
    pub session: Vec<Option<u64>>,
    /// The group's checkpoint: may be stored, and is not before that of the session.
    pub group: u64,
    /// Commands that were acknowledged to the core, from 0 on.
    pub commands: u64,
    /// The ledger was lost, or a sync failed: what only the ledger has may be gone.
    pub ledger_lost: bool,
    /// The store said that it failed.
    pub failure: Option<String>,
    /// What is wrong, where it could not be said at once.
    pub wrong: Option<String>,
    /// The core never takes some messages.
    has_poison: bool,
    /// The edge is enrolled again now and then.
    enrols: bool,
}

/// One lane.
pub struct LaneModel {
    bounds: LaneConfig,
    pub core: Core,
    /// Something on its disk was damaged.
    pub damaged: bool,
}

impl Model {
    pub fn new(plan: &Plan) -> Model {
        let lane = |bounds: &LaneConfig| LaneModel {
            bounds: bounds.clone(),
            core: Core::default(),
            damaged: false,
        };
        Model {
            lanes: plan.lanes.iter().map(lane).collect(),
            session: vec![None],
            has_poison: plan.poison > 0.0,
            enrols: plan.enrols,
            ..Model::default()
        }
    }

    /// The messages of a frame. Every reader of a frame comes here: what was seen is stored, and was never anything else.
    pub fn see(&mut self, lane: usize, frame: &Frame) -> Result<Vec<u64>, String> {
        let batch = &frame.batch;
        batch.check_crc().map_err(|error| error.to_string())?;
        let id = batch.producer_id() - i64::from(frame.lane.0);
        let epoch = batch.producer_epoch();
        if !self
            .starts
            .iter()
            .any(|start| (start.id, start.epoch) == (id, epoch))
        {
            return Err(format!(
                "entry {} is of a start that never was",
                frame.number
            ));
        }
        let mut seen = Vec::new();
        let records = batch.records().map_err(|error| error.to_string())?;
        for (sequence, record) in (batch.base_sequence()..).zip(records) {
            let record = record.map_err(|error| error.to_string())?;
            let named = record.headers.iter().find(|header| header.name == NAME);
            let value = named.and_then(|header| header.value.clone());
            let name = value.and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok());
            let name: u64 = name.ok_or("a record that nobody published")?;
            let key = (batch.producer_id(), epoch, frame.stream.clone(), sequence);
            if *self.sequences.entry(key).or_insert(name) != name {
                return Err(format!("the sequence of message {name} was used before"));
            }
            let ledger_lost = self.ledger_lost;
            let message = self.messages.get_mut(&name);
            let message = message.ok_or("a message that nobody published")?;
            if message.lane != lane {
                return Err(format!("message {name} is in another lane"));
            }
            if matches!(message.fate, Fate::Refused | Fate::Gone) && !ledger_lost {
                return Err(format!("message {name} was refused, and is there"));
            }
            if message.at.is_some_and(|at| at != frame.number) {
                return Err(format!("message {name} is there twice"));
            }
            message.at = Some(frame.number);
            message.fate = Fate::Stored;
            seen.push(name);
        }
        Ok(seen)
    }

    /// An answer to a publish.
    pub fn answered(&mut self, name: u64, waited: bool, answer: &Result<(), WriteError>) {
        let Some(message) = self.messages.get_mut(&name) else {
            return;
        };
        let fate = match answer {
            Ok(()) if waited => Fate::Stored,
            Ok(()) => return,
            Err(error @ (WriteError::Failed(_) | WriteError::Closed)) => {
                self.failure = Some(error.to_string());
                return;
            }
            // Nobody waits until that is counted.
            Err(WriteError::Dropped(_)) if waited => Fate::Dropped,
            Err(_) => Fate::Refused,
        };
        if message.fate == Fate::Stored && fate != Fate::Stored {
            self.wrong = Some(format!("message {name} was read, and then refused"));
        }
        message.fate = fate;
        self.settle_retained();
    }

    /// What is known of messages is known of the retained ones.
    pub fn settle_retained(&mut self) {
        for set in self.retained.values_mut() {
            for (name, _, fate) in set.iter_mut() {
                if let Some(message) = self.messages.get(name) {
                    *fate = message.fate;
                }
            }
        }
    }

    /// Whether a gap of each lane has an entry of which nobody knows what it was: the lane made room with it before anybody had read it.
    /// `gaps`: what the core is to be told.
    pub fn have_unseen(&self, gaps: &[Gap]) -> Vec<bool> {
        let has_unseen = |(number, lane): (usize, &LaneModel)| {
            let messages = self.messages.values();
            let of_lane = messages.filter(|message| message.lane == number);
            let seen: BTreeSet<u64> = of_lane.filter_map(|message| message.at).collect();
            let left = gaps.iter().filter(|gap| usize::from(gap.lane.0) == number);
            let mut gaps = lane.core.gaps.iter().chain(left);
            gaps.any(|gap| (gap.first..gap.next.number).any(|entry| !seen.contains(&entry)))
        };
        self.lanes.iter().enumerate().map(has_unseen).collect()
    }

    /// Everything that can be read was read. `gaps`: what the core is to be told.
    pub fn check_opened(&mut self, read: &[BTreeSet<u64>], gaps: &[Gap]) -> Result<(), String> {
        let unseen = self.have_unseen(gaps);
        for (name, message) in &mut self.messages {
            let lane = &self.lanes[message.lane];
            if read[message.lane].contains(name) || lane.core.delivered.contains(name) {
                message.fate = Fate::Stored;
                continue;
            }
            match message.fate {
                Fate::Unknown if message.at.is_none() => message.fate = Fate::Gone,
                // Or it was damaged before that.
                Fate::Stored if message.at.is_none() && (unseen[message.lane] || lane.damaged) => {
                    message.fate = Fate::Evicted;
                }
                Fate::Unknown | Fate::Stored => {
                    let of_lane = gaps
                        .iter()
                        .filter(|gap| usize::from(gap.lane.0) == message.lane);
                    let gaps: Vec<Gap> = of_lane.cloned().collect();
                    let said = |at| lane.core.misses(at) || covers(&gaps, at);
                    if !lane.damaged && !message.at.is_some_and(said) {
                        return Err(format!(
                            "message {name} of lane {} (entry {:?}) was acknowledged, is not there, and in no gap",
                            message.lane, message.at
                        ));
                    }
                }
                Fate::Evicted | Fate::Refused | Fate::Gone | Fate::Dropped => {}
            }
        }
        self.settle_retained();
        Ok(())
    }

    /// The core has taken all there is.
    pub fn check_drained(&self) -> Result<(), String> {
        for (number, lane) in self.lanes.iter().enumerate() {
            let mut missing = 0;
            let of_lane = |message: &&(&u64, &Message)| message.1.lane == number;
            for (name, message) in self
                .messages
                .iter()
                .collect::<Vec<_>>()
                .iter()
                .filter(of_lane)
            {
                match message.fate {
                    Fate::Stored if lane.core.delivered.contains(name) => {}
                    Fate::Stored if message.at.is_some_and(|at| lane.core.misses(at)) => {
                        missing += u64::from(!message.poison);
                    }
                    Fate::Stored => {
                        return Err(format!(
                            "message {name} of lane {number} (entry {:?}) did not come to the core, and is in none of its gaps",
                            message.at
                        ));
                    }
                    Fate::Evicted | Fate::Dropped => missing += 1,
                    Fate::Unknown | Fate::Refused | Fate::Gone => {}
                }
            }
            let said = lane.core.evicted();
            // What is behind a poisoned message in its batch is refused with it.
            let refused = lane.core.gaps.iter();
            let refused = refused.filter(|gap| gap.reason == GapReason::Refused);
            let said = said + refused.map(|gap| gap.records).sum::<u64>();
            if !self.ledger_lost && !lane.damaged && said < missing {
                return Err(format!(
                    "lane {number}: {missing} messages are missing, the core was told of {said}"
                ));
            }
        }
        Ok(())
    }

    /// Whether a gap may have such a reason. Else a store that lets go of what it should keep, and says so, would pass.
    pub fn check_gap(&self, lane: usize, gap: &Gap) -> Result<(), String> {
        let LaneModel {
            bounds, damaged, ..
        } = &self.lanes[lane];
        let is_bounded = bounds.max_bytes < UNBOUNDED;
        let because = match gap.reason {
            GapReason::Damaged | GapReason::Lost => self.ledger_lost || *damaged,
            GapReason::EvictedBytes => match bounds.eviction {
                Eviction::Oldest => is_bounded,
                // What was not taken. What was taken stays.
                Eviction::Newest => is_bounded && (*damaged || !self.has_entry_in(lane, gap)),
                Eviction::Reject => false,
            },
            GapReason::EvictedAge => bounds.max_age.is_some(),
            GapReason::Refused => self.has_poison,
            GapReason::Fenced => self.enrols,
        };
        if because {
            return Ok(());
        }
        Err(format!("a gap for no reason: {gap:?}"))
    }

    fn has_entry_in(&self, lane: usize, gap: &Gap) -> bool {
        let of_lane = self
            .messages
            .values()
            .filter(|message| message.lane == lane);
        let mut stored = of_lane.filter_map(|message| message.at);
        stored.any(|at| (gap.first..gap.next.number).contains(&at))
    }

    /// Compares the retained messages: by key, which message.
    pub fn check_retained(&self, found: &BTreeMap<String, u64>) -> Result<(), String> {
        for (key, set) in &self.retained {
            // Without the ledger, a deleted segment that a power cut brings back counts, and its successors may be gone.
            let stored = |fate: Fate| matches!(fate, Fate::Stored | Fate::Evicted);
            let last = set.iter().rposition(|(_, _, fate)| stored(*fate));
            let last = last.filter(|_| !self.ledger_lost);
            let may = set.get(last.unwrap_or(0)..).unwrap_or_default();
            let found = found.get(key);
            let right = match found {
                Some(found) => may.iter().any(|(name, clears, fate)| {
                    name == found && !clears && *fate != Fate::Refused && *fate != Fate::Dropped
                }),
                None => {
                    self.ledger_lost
                        || last.is_none()
                        || may
                            .iter()
                            .any(|(_, clears, fate)| *clears && *fate != Fate::Refused)
                }
            };
            if !right {
                return Err(format!(
                    "retained message {key} is {found:?}, it should be of {may:?}"
                ));
            }
        }
        Ok(())
    }

    /// Compares the packet ids that are not released, and takes over those of which nobody knew.
    pub fn check_packets(&mut self, found: &[u16]) -> Result<(), String> {
        for (id, packet) in &mut self.packets {
            let is_there = found.contains(id);
            match packet {
                Packet::Free if is_there && !self.ledger_lost => {
                    return Err(format!("packet id {id} was released, and is there"));
                }
                Packet::Held if !is_there && !self.ledger_lost => {
                    return Err(format!("packet id {id} was not released, and is not there"));
                }
                _ if is_there => *packet = Packet::Held,
                _ => *packet = Packet::Free,
            }
        }
        Ok(())
    }
}

/// The outbox of a lane by its place in the plan.
pub fn log(lane: usize) -> LogId {
    LogId::Outbox(store::Lane(u8::try_from(lane).unwrap_or(u8::MAX)))
}
