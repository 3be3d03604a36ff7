//! The sending side of the lanes: a window over frames that are sent and not yet acknowledged.
//!
//! The sender keeps numbers and sizes, never batches: what is not acknowledged is still in the outbox, and is read again from
//! there after a reconnect.

use std::collections::{BTreeMap, VecDeque};

use crate::limits;

/// How much may be in flight over all lanes.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Bytes ([`crate::BatchFrame::weight`]). One frame larger than this is still sent, alone.
    pub bytes: usize,
    pub frames: usize,
}

impl Default for Window {
    fn default() -> Self {
        Window {
            bytes: limits::DEFAULT_WINDOW,
            frames: limits::MAX_IN_FLIGHT_FRAMES,
        }
    }
}

/// One of the two ends broke the rules of the lanes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SenderViolation {
    #[error(
        "frame {frame} of lane {lane} sent after frame {last}: frame numbers of a lane must increase"
    )]
    NotIncreasing { lane: u8, frame: u64, last: u64 },
    #[error("lane {0} is one too many for a connection")]
    TooManyLanes(u8),
    #[error("acknowledgement of frame {frame} of lane {lane}, which is not in flight")]
    AckNotInFlight { lane: u8, frame: u64 },
    #[error("refusal of frame {frame} of lane {lane}, which is not in flight")]
    RefusalNotInFlight { lane: u8, frame: u64 },
}

#[derive(Debug, Default)]
struct Lane {
    in_flight: VecDeque<(u64, usize)>,
    /// Highest number sent on this connection.
    sent: Option<u64>,
    /// Highest number acknowledged ever: survives reconnects.
    acked: Option<u64>,
}

/// State of the lanes over one connection after the other.
#[derive(Debug)]
pub struct Sender {
    window: Window,
    lanes: BTreeMap<u8, Lane>,
    bytes: usize,
    frames: usize,
}

impl Sender {
    pub fn new(window: Window) -> Sender {
        Sender {
            window,
            lanes: BTreeMap::new(),
            bytes: 0,
            frames: 0,
        }
    }

    /// Whether a frame of `weight` bytes fits. An empty window takes any one frame, so that a large one is never stuck.
    pub fn has_room(&self, weight: usize) -> bool {
        self.frames == 0
            || (self.frames < self.window.frames
                && self.bytes.saturating_add(weight) <= self.window.bytes)
    }

    /// Notes a frame as sent. The caller has asked [`Sender::has_room`].
    pub fn sent(&mut self, lane: u8, frame: u64, weight: usize) -> Result<(), SenderViolation> {
        if !self.lanes.contains_key(&lane) && self.lanes.len() >= limits::MAX_LANES {
            return Err(SenderViolation::TooManyLanes(lane));
        }
        let state = self.lanes.entry(lane).or_default();
        let floor = state.sent.or(state.acked);
        if let Some(last) = floor.filter(|last| frame <= *last) {
            return Err(SenderViolation::NotIncreasing { lane, frame, last });
        }
        state.sent = Some(frame);
        state.in_flight.push_back((frame, weight));
        self.bytes += weight;
        self.frames += 1;
        Ok(())
    }

    /// The core has committed everything of the lane up to and with `frame`. Returns how many frames that settled (0 for a
    /// repetition).
    pub fn handle_ack(&mut self, lane: u8, frame: u64) -> Result<usize, SenderViolation> {
        let not_in_flight = SenderViolation::AckNotInFlight { lane, frame };
        let Some(state) = self.lanes.get_mut(&lane) else {
            return Err(not_in_flight);
        };
        if state.sent.is_none_or(|sent| frame > sent) {
            return Err(not_in_flight);
        }
        let mut settled = 0;
        while let Some((number, weight)) = state
            .in_flight
            .front()
            .copied()
            .filter(|(number, _)| *number <= frame)
        {
            state.in_flight.pop_front();
            state.acked = Some(number);
            self.bytes -= weight;
            self.frames -= 1;
            settled += 1;
        }
        Ok(settled)
    }

    /// The core did not take one frame. It leaves flight with the acknowledgement that follows it, or with the connection.
    pub fn handle_refused(&mut self, lane: u8, frame: u64) -> Result<(), SenderViolation> {
        let known = self
            .lanes
            .get(&lane)
            .is_some_and(|lane| lane.in_flight.iter().any(|(number, _)| *number == frame));
        if known {
            Ok(())
        } else {
            Err(SenderViolation::RefusalNotInFlight { lane, frame })
        }
    }

    /// The connection is gone: nothing is in flight any more. Sending starts again after [`Sender::acked`].
    pub fn handle_disconnect(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.in_flight.clear();
            lane.sent = None;
        }
        self.bytes = 0;
        self.frames = 0;
    }

    /// Highest acknowledged frame of a lane.
    pub fn acked(&self, lane: u8) -> Option<u64> {
        self.lanes.get(&lane).and_then(|lane| lane.acked)
    }

    pub fn in_flight_bytes(&self) -> usize {
        self.bytes
    }

    pub fn in_flight_frames(&self) -> usize {
        self.frames
    }
}
