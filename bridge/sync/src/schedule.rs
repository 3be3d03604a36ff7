//! Which lane sends next: a state machine over time that the caller tells it, without input or output.
//!
//! A lane says how many bytes it wants to send, and is granted a piece at a time:
//! * what is of a higher rank goes first, always;
//! * among lanes of one rank the one that was served least goes next;
//! * a token bucket for each lane (or for some of them together), one for the link and one for what the core asks bound the bytes a second;
//! * a window bounds what is on its way and not acknowledged. It follows what the link carries, so that it never holds a fast link up and
//!   little waits in front of a slow one. What is of a lower rank takes no room from what is of a higher one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::limits;

/// What the scheduler has to know of a lane.
#[derive(Debug, Clone, Copy)]
pub struct LaneShare {
    pub number: u8,
    /// Higher goes first.
    pub rank: u8,
    /// Most bytes a second.
    pub rate: Option<u64>,
    /// Lanes that have the same here keep to that rate together: the highest rank is first in line for it.
    pub rate_of: u8,
}

/// What may be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The lane may send so many bytes of what it wants, and then has to say again what it wants.
    Send(Grant),
    /// Nothing before this time, unless something else happens.
    Wait(Duration),
    /// Nothing until a lane wants something that it may send, or something is acknowledged.
    Idle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    pub lane: u8,
    pub bytes: usize,
    /// With the first piece of a frame: to be given back with its acknowledgement.
    pub ticket: Option<Ticket>,
}

/// A frame on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    weight: usize,
    at: Duration,
    /// What had been delivered by then: so the time since tells a rate.
    delivered: u64,
}

#[derive(Debug, Clone, Copy)]
struct Want {
    bytes: usize,
    /// Of a frame that begins: what it will weigh on its way.
    begins: Option<usize>,
}

#[derive(Debug)]
struct Lane {
    rank: u8,
    /// How many ranks are higher.
    ranks_above: usize,
    /// Which of the buckets is its own.
    bucket: Option<u8>,
    /// Bytes, counted so that a lane that was silent has no claim to what it did not use.
    served: u64,
    want: Option<Want>,
    in_flight: usize,
}

/// See the module. Times are since any fixed moment.
#[derive(Debug)]
pub struct Scheduler {
    lanes: BTreeMap<u8, Lane>,
    /// Of lanes, by [`LaneShare::rate_of`].
    buckets: BTreeMap<u8, Bucket>,
    link: Option<Bucket>,
    pace: Option<Bucket>,
    frames: usize,
    bytes: usize,
    delivered: u64,
    /// Bytes a second that were acknowledged, and the largest frame.
    rate: Recent,
    largest: Recent,
    rtt: Duration,
}

impl Scheduler {
    /// `link_rate`: most bytes a second over all lanes.
    pub fn new(
        lanes: impl IntoIterator<Item = LaneShare>,
        link_rate: Option<u64>,
        now: Duration,
    ) -> Scheduler {
        let shares: Vec<LaneShare> = lanes.into_iter().collect();
        let ranks: BTreeSet<u8> = shares.iter().map(|share| share.rank).collect();
        let rates = shares
            .iter()
            .filter_map(|share| Some((share.rate_of, share.rate?)));
        let buckets = rates
            .map(|(of, rate)| (of, Bucket::new(rate, now)))
            .collect();
        let lanes = shares.iter().map(|share| {
            let lane = Lane {
                rank: share.rank,
                ranks_above: ranks.iter().filter(|rank| **rank > share.rank).count(),
                bucket: share.rate.map(|_| share.rate_of),
                served: 0,
                want: None,
                in_flight: 0,
            };
            (share.number, lane)
        });
        Scheduler {
            lanes: lanes.collect(),
            buckets,
            link: link_rate.map(|rate| Bucket::new(rate, now)),
            pace: None,
            frames: 0,
            bytes: 0,
            delivered: 0,
            rate: Recent::default(),
            largest: Recent::default(),
            rtt: Duration::ZERO,
        }
    }

    /// What the core asks for: most bytes a second over all lanes, 0: no limit.
    pub fn set_pace(&mut self, bytes_per_second: u64, now: Duration) {
        self.pace = (bytes_per_second > 0).then(|| Bucket::new(bytes_per_second, now));
    }

    /// A lane has so many bytes of a frame left to send. `begins`: none of it is sent yet, and this is what it weighs in the window.
    /// Replaces what it wanted before.
    pub fn want(&mut self, lane: u8, bytes: usize, begins: Option<usize>) {
        let Some(rank) = self.lanes.get(&lane).map(|lane| lane.rank) else {
            return;
        };
        let waiting = self.lanes.values().filter(|other| other.want.is_some());
        let least = waiting
            .filter(|other| other.rank == rank)
            .map(|other| other.served)
            .min();
        if let Some(lane) = self.lanes.get_mut(&lane) {
            if lane.want.is_none() && begins.is_some() {
                // It may be ahead of those who wait, and behind by no more than one turn.
                let least = least.unwrap_or(0).saturating_sub(limits::QUANTUM as u64);
                lane.served = lane.served.max(least);
            }
            lane.want = Some(Want { bytes, begins });
        }
    }

    /// Grants one piece. To be called until it grants no more.
    pub fn poll(&mut self, now: Duration) -> Next {
        let shared = [&mut self.link, &mut self.pace].into_iter().flatten();
        for bucket in shared.chain(self.buckets.values_mut()) {
            bucket.fill(now);
        }
        let mut wait: Option<Duration> = None;
        let mut best: Option<(u8, &Lane, Want, usize)> = None;
        for (number, lane) in &self.lanes {
            let Some(want) = lane.want.filter(|_| !self.is_behind(lane)) else {
                continue;
            };
            let mut most = want.bytes.min(limits::QUANTUM);
            if let Some(bucket) = lane.bucket.and_then(|of| self.buckets.get(&of)) {
                let least = most.min(limits::LEAST_PIECE);
                if let Some(ready) = bucket.ready(least, now) {
                    wait = Some(wait.map_or(ready, |wait| wait.min(ready)));
                    continue;
                }
                most = most.min(bucket.has());
            }
            if let Some(weight) = want.begins
                && !self.has_room(lane, weight)
            {
                continue;
            }
            let is_better = best.is_none_or(|(_, best, ..)| {
                lane.rank > best.rank || (lane.rank == best.rank && lane.served < best.served)
            });
            if is_better {
                best = Some((*number, lane, want, most));
            }
        }
        let Some((number, _, want, mut most)) = best else {
            return wait.map_or(Next::Idle, Next::Wait);
        };
        // What all share is for the first in line: nobody behind it may use it up in small pieces.
        let least = most.min(limits::LEAST_PIECE);
        for bucket in [&self.link, &self.pace].into_iter().flatten() {
            if let Some(ready) = bucket.ready(least, now) {
                // A lane of a higher rank may be allowed more before that.
                return Next::Wait(wait.map_or(ready, |wait| wait.min(ready)));
            }
            most = most.min(bucket.has());
        }
        for bucket in [&mut self.link, &mut self.pace].into_iter().flatten() {
            bucket.take(most);
        }
        let mut ticket = None;
        if let Some(lane) = self.lanes.get_mut(&number) {
            if let Some(bucket) = lane.bucket.and_then(|of| self.buckets.get_mut(&of)) {
                bucket.take(most);
            }
            lane.served += most as u64;
            lane.want = None;
            if let Some(weight) = want.begins {
                lane.in_flight += weight;
                self.frames += 1;
                self.bytes += weight;
                self.largest.note(weight as f64, now);
                ticket = Some(Ticket {
                    weight,
                    at: now,
                    delivered: self.delivered,
                });
            }
        }
        Next::Send(Grant {
            lane: number,
            bytes: most,
            ticket,
        })
    }

    /// The core has settled a frame. `rtt`: the transport's round-trip time, where it is known.
    pub fn handle_settled(
        &mut self,
        lane: u8,
        ticket: Ticket,
        rtt: Option<Duration>,
        now: Duration,
    ) {
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.in_flight = lane.in_flight.saturating_sub(ticket.weight);
        }
        self.bytes = self.bytes.saturating_sub(ticket.weight);
        self.frames = self.frames.saturating_sub(1);
        self.delivered += ticket.weight as u64;
        self.rtt = rtt.unwrap_or(self.rtt);
        let took = now.saturating_sub(ticket.at).max(SHORTEST);
        let delivered = self.delivered - ticket.delivered;
        self.rate.note(delivered as f64 / took.as_secs_f64(), now);
    }

    /// Bytes of frames that may be on their way: twice what the link carries while an acknowledgement is awaited, and never less than
    /// keeps a frame on the wire while the one before it is acknowledged.
    pub fn window(&self) -> usize {
        let awaited = self.rtt + limits::COMMIT_TIME;
        let carried = 2.0 * self.rate.most() * awaited.as_secs_f64() + 2.0 * self.largest.most();
        // Of a float that is too large the largest number is made.
        (carried as usize).clamp(limits::LEAST_WINDOW, limits::DEFAULT_WINDOW)
    }

    /// Whether something of a higher rank waits for the same bucket: in small pieces it would never be full enough for that.
    fn is_behind(&self, lane: &Lane) -> bool {
        let waiting = self.lanes.values().filter(|other| other.want.is_some());
        let mut above = waiting.filter(|other| other.rank > lane.rank);
        lane.bucket.is_some() && above.any(|other| other.bucket == lane.bucket)
    }

    /// Whether a frame may begin.
    fn has_room(&self, lane: &Lane, weight: usize) -> bool {
        if self.frames == 0 {
            return true;
        }
        let not_below = self.lanes.values().filter(|other| other.rank >= lane.rank);
        let before_it: usize = not_below.map(|other| other.in_flight).sum();
        let above = lane.ranks_above;
        let frames = limits::MAX_IN_FLIGHT_FRAMES.saturating_sub(limits::RESERVED_FRAMES * above);
        let bytes = limits::DEFAULT_WINDOW.saturating_sub(limits::RESERVED_BYTES * above);
        self.frames < frames
            && self.bytes + weight <= bytes
            && (before_it == 0 || before_it + weight <= self.window())
    }
}

/// Shorter times than this say nothing of a rate.
const SHORTEST: Duration = Duration::from_millis(1);

/// A rate that may be exceeded by what was not used in the last [`limits::BURST`], or by two of [`limits::LEAST_PIECE`].
#[derive(Debug)]
struct Bucket {
    rate: f64,
    most: f64,
    tokens: f64,
    at: Duration,
}

impl Bucket {
    fn new(rate: u64, now: Duration) -> Bucket {
        let rate = rate.max(1) as f64;
        // While the link sends a piece of another lane, a bucket that is full for one of its own would overflow.
        let most = (rate * limits::BURST.as_secs_f64()).max(2.0 * limits::LEAST_PIECE as f64);
        Bucket {
            rate,
            most,
            tokens: most,
            at: now,
        }
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(self.most);
        self.at = self.at.max(now);
    }

    fn has(&self) -> usize {
        self.tokens as usize
    }

    fn take(&mut self, bytes: usize) {
        self.tokens -= bytes as f64;
    }

    /// When there will be so many; `None`: now.
    fn ready(&self, bytes: usize, now: Duration) -> Option<Duration> {
        if self.has() >= bytes {
            return None;
        }
        let missing = (bytes as f64 - self.tokens) / self.rate;
        // A little late, so that they are there then whatever was rounded.
        Some(now + Duration::from_secs_f64(missing) + SHORTEST)
    }
}

/// The most of something in the last 5 to 10 seconds.
#[derive(Debug, Default)]
struct Recent {
    since: Duration,
    now: f64,
    before: f64,
}

impl Recent {
    fn note(&mut self, value: f64, at: Duration) {
        if at.saturating_sub(self.since) >= limits::RECENT {
            let older = at.saturating_sub(self.since) >= limits::RECENT * 2;
            self.before = if older { 0.0 } else { self.now };
            self.now = 0.0;
            self.since = at;
        }
        self.now = self.now.max(value);
    }

    fn most(&self) -> f64 {
        self.now.max(self.before)
    }
}
