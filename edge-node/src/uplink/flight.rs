//! What is on its way over one connection, and how far the core has got with it. The cursor of a lane follows the front of its frames.

use std::collections::{HashMap, HashSet, VecDeque};

use parking_lot::Mutex;
use record::StreamName;
use store::{End, Lane};
use sync::schedule::Ticket;
use sync_quic::RefuseCode;

/// One frame on its way.
pub struct InFlight {
    pub number: u64,
    /// Where reading goes on after it.
    pub end: End,
    /// Of a batch; `None`: a gap.
    pub batch: Option<(StreamName, u64)>,
    /// Known once the first of it is on its way.
    pub ticket: Option<Ticket>,
}

#[derive(Default)]
struct LaneFlight {
    frames: VecDeque<InFlight>,
    /// The first frame that the core refused for good. It stands there again as a gap, and has to be sent before what comes after it.
    refused: Option<u64>,
    /// Streams of which a batch was refused: those after it are out of order, and are sent again behind the gap.
    broken: HashSet<StreamName>,
}

/// What an acknowledgement moved.
#[derive(Default)]
pub struct Settled {
    /// Everything before is the core's now.
    pub end: Option<End>,
    /// Messages that are.
    pub records: u64,
    pub tickets: Vec<Ticket>,
    /// A frame of the lane was refused, and nothing of it is on its way any more: it has to be sent again from the cursor on, which takes
    /// another connection since the numbers of frames only grow.
    pub again: bool,
}

/// What is to be done about a frame that was refused for good.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It will never be taken: it has to be set aside.
    SetAside,
    /// It is in order again when the gap before it is sent.
    SendAgain,
    /// It is a gap, of which nothing can be set aside.
    PassOver,
}

/// The frames of all lanes.
#[derive(Default)]
pub struct Flight(Mutex<HashMap<Lane, LaneFlight>>);

impl Flight {
    /// Before it is sent: its acknowledgement may be there before the sender is told that it is sent.
    pub fn push(&self, lane: Lane, frame: InFlight) {
        self.0
            .lock()
            .entry(lane)
            .or_default()
            .frames
            .push_back(frame);
    }

    /// The first of the lane's newest frame goes onto its way now.
    pub fn begin(&self, lane: Lane, ticket: Option<Ticket>) {
        let mut lanes = self.0.lock();
        if let Some(frame) = lanes.entry(lane).or_default().frames.back_mut() {
            frame.ticket = ticket;
        }
    }

    /// It was not sent after all.
    pub fn take_back(&self, lane: Lane, number: u64) {
        let mut lanes = self.0.lock();
        let frames = &mut lanes.entry(lane).or_default().frames;
        frames.retain(|frame| frame.number != number);
    }

    pub fn is_empty(&self, lane: Lane) -> bool {
        self.0
            .lock()
            .get(&lane)
            .is_none_or(|lane| lane.frames.is_empty())
    }

    /// Something of the lane was refused for good: nothing more of it is to be sent.
    pub fn is_broken(&self, lane: Lane) -> bool {
        self.0
            .lock()
            .get(&lane)
            .is_some_and(|lane| lane.refused.is_some())
    }

    /// The core has settled everything of the lane up to a frame.
    pub fn settle(&self, lane: Lane, up_to: u64) -> Settled {
        let mut settled = Settled::default();
        let mut lanes = self.0.lock();
        let lane = lanes.entry(lane).or_default();
        while lane
            .frames
            .front()
            .is_some_and(|frame| frame.number <= up_to)
            && let Some(frame) = lane.frames.pop_front()
        {
            settled.tickets.extend(frame.ticket);
            if lane.refused.is_none_or(|refused| frame.number < refused) {
                settled.end = Some(frame.end);
                settled.records += frame.batch.map_or(0, |(_, records)| records);
            }
        }
        settled.again = lane.refused.is_some() && lane.frames.is_empty();
        settled
    }

    /// The core will not take a frame.
    pub fn refuse(&self, lane: Lane, number: u64, code: RefuseCode) -> Verdict {
        let mut lanes = self.0.lock();
        let lane = lanes.entry(lane).or_default();
        let found = lane.frames.iter().find(|frame| frame.number == number);
        let Some((stream, _)) = found.and_then(|frame| frame.batch.as_ref()) else {
            return Verdict::PassOver;
        };
        if code == RefuseCode::OutOfOrder && lane.broken.contains(stream) {
            return Verdict::SendAgain;
        }
        lane.broken.insert(stream.clone());
        lane.refused = Some(lane.refused.map_or(number, |first| first.min(number)));
        Verdict::SetAside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: Lane = Lane(3);

    fn flight(frames: &[(u64, &str)]) -> Flight {
        let flight = Flight::default();
        for (number, stream) in frames {
            let frame = InFlight {
                number: *number,
                end: End {
                    number: number + 1,
                    position: number * 10 + 10,
                },
                batch: Some((StreamName::new(stream).unwrap(), 10)),
                ticket: None,
            };
            flight.push(LANE, frame);
        }
        flight
    }

    #[test]
    fn the_cursor_follows_the_acknowledgements() {
        let flight = flight(&[(1, "a"), (2, "a"), (5, "b")]);
        let settled = flight.settle(LANE, 4);
        assert_eq!((settled.end.unwrap().number, settled.records), (3, 20));
        assert!(flight.settle(LANE, 4).end.is_none());
        assert_eq!(flight.settle(LANE, 5).end.unwrap().number, 6);
        assert!(flight.is_empty(LANE));
    }

    #[test]
    fn nothing_is_passed_that_was_refused() {
        let flight = flight(&[(1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "b")]);
        let refuse = |number, code| flight.refuse(LANE, number, code);
        assert_eq!(refuse(2, RefuseCode::TooLarge), Verdict::SetAside);
        assert_eq!(refuse(3, RefuseCode::OutOfOrder), Verdict::SendAgain);
        // Nothing of its stream was refused before: something is missing that nobody knows of.
        assert_eq!(refuse(4, RefuseCode::OutOfOrder), Verdict::SetAside);
        assert!(flight.is_broken(LANE) && !flight.is_broken(Lane(4)));
        let settled = flight.settle(LANE, 4);
        assert_eq!((settled.end.unwrap().number, settled.records), (2, 10));
        assert!(!settled.again, "one is still on its way");
        let settled = flight.settle(LANE, 5);
        assert!(settled.end.is_none() && settled.again);
    }
}
