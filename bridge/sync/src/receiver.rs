//! The receiving side of the lanes: which frame may come next, and what may be acknowledged.

use std::collections::{BTreeMap, VecDeque};

use crate::limits;

/// The edge broke the rules of the lanes; the connection ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiverViolation {
    #[error(
        "frame {frame} of lane {lane} came after frame {last}: frame numbers of a lane must increase"
    )]
    NotIncreasing { lane: u8, frame: u64, last: u64 },
    #[error("lane {0} is one too many for a connection")]
    TooManyLanes(u8),
    #[error("more than {} frames in flight", limits::MAX_IN_FLIGHT_FRAMES)]
    TooManyInFlight,
}

#[derive(Debug, Default)]
struct Lane {
    received: Option<u64>,
    /// Frames in order of arrival, and whether each is settled (committed or finally refused).
    pending: VecDeque<(u64, bool)>,
    acked: Option<u64>,
}

/// State of one connection's lanes. Commits may be reported in any order; acknowledgements come out in the lane's order, and
/// never before the commit of everything they cover.
#[derive(Debug, Default)]
pub struct Receiver {
    lanes: BTreeMap<u8, Lane>,
    in_flight: usize,
    /// Lanes whose acknowledgement has moved since it was last polled.
    moved: VecDeque<u8>,
}

impl Receiver {
    pub fn new() -> Receiver {
        Receiver::default()
    }

    /// A frame has arrived; its commit starts now.
    pub fn handle_frame(&mut self, lane: u8, frame: u64) -> Result<(), ReceiverViolation> {
        if !self.lanes.contains_key(&lane) && self.lanes.len() >= limits::MAX_LANES {
            return Err(ReceiverViolation::TooManyLanes(lane));
        }
        if self.in_flight >= limits::MAX_IN_FLIGHT_FRAMES {
            return Err(ReceiverViolation::TooManyInFlight);
        }
        let state = self.lanes.entry(lane).or_default();
        if let Some(last) = state.received.filter(|last| frame <= *last) {
            return Err(ReceiverViolation::NotIncreasing { lane, frame, last });
        }
        state.received = Some(frame);
        state.pending.push_back((frame, false));
        self.in_flight += 1;
        Ok(())
    }

    /// The frame is committed, was found to be a duplicate of a committed one, or was refused for good (the refusal is sent first).
    pub fn handle_settled(&mut self, lane: u8, frame: u64) {
        let Some(state) = self.lanes.get_mut(&lane) else {
            return;
        };
        if let Ok(index) = state
            .pending
            .binary_search_by_key(&frame, |(number, _)| *number)
        {
            state.pending[index].1 = true;
        }
        let before = state.acked;
        while let Some((number, true)) = state.pending.front().copied() {
            state.pending.pop_front();
            state.acked = Some(number);
            self.in_flight -= 1;
        }
        if state.acked != before && !self.moved.contains(&lane) {
            self.moved.push_back(lane);
        }
    }

    /// The next acknowledgement to send: a lane and the frame up to which, with it, all is settled.
    pub fn poll_ack(&mut self) -> Option<(u8, u64)> {
        let lane = self.moved.pop_front()?;
        let acked = self.lanes.get(&lane)?.acked?;
        Some((lane, acked))
    }

    /// Frames received whose commit is not yet reported, or that wait for one before them.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }
}
