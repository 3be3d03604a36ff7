//! How much may be on its way: what the link delivers in a round trip, and a little more.
//!
//! Loss does not say much on a radio link, so it is what arrives that counts: the delivery rate (as in draft-cheng-iccrg-delivery-rate-
//! estimation) and the shortest round trip give how much the link holds, and the window is a third above that, so that a link that can
//! carry more is found out. Now and then the window is smaller for a round, so that a queue in front of the link empties and the round
//! trip without it is seen. Loss counts when there is so much of it that it must be a queue that overflows.
//!
//! Why none of quinn's: `docs/design/2026-11-21-edge.md`.

mod memory;

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

use memory::Known;
pub(crate) use memory::Memory;

/// Packets of the first round. RFC 9002, 7.2, has ten; but whoever connects after an outage has a whole batch to send, of which nothing is
/// seen before all of it is there, and 29 kB are a quarter of a second on a link of 1 Mbit/s.
const FIRST: u64 = 20;
/// The fewest ever.
const LEAST: u64 = 4;
/// The window over what the link holds: always, and in the round in which a queue is to empty.
const CRUISE: f64 = 1.3;
const DRAIN: f64 = 0.8;
/// Acknowledgements come in bursts: so much more is on its way, in time and in packets.
const SLACK: Duration = Duration::from_millis(10);
const SLACK_PACKETS: u64 = 3;
/// Rounds, and time, from one emptying of the queue to the next.
const ROUNDS_TO_DRAIN: u32 = 16;
const TIME_TO_DRAIN: Duration = Duration::from_secs(3);
/// Rounds over which the best delivery rate counts.
const RATE_ROUNDS: usize = 10;
/// The shortest round trip counts for this long, at least.
const RTT_TIME: Duration = Duration::from_secs(5);
/// The start is over when the rate has not grown by this factor in so many rounds.
const GROWTH: f64 = 1.25;
const ROUNDS_WITHOUT_GROWTH: u32 = 3;
/// A share of a round that is lost and not by chance, in a round of at least so many packets.
const OVERFLOW: f64 = 0.15;
const TELLING_PACKETS: u64 = 20;
/// Rounds in which even the shortest round trip is more than this many times the one that counts (and more than the window explains),
/// after which the link is taken for another one.
const ELSEWHERE: u32 = 2;
const ROUNDS_ELSEWHERE: u32 = 2;
/// Moments of sending that are remembered.
const MOMENTS: usize = 4096;
/// Rounds in which it is looked at whether the link is the one that is known.
const ROUNDS_TO_RESUME: u32 = 2;

/// `Some`: of an edge, all connections of which take the same way. A core has as many ways as edges, and little to send.
#[derive(Debug)]
pub(crate) struct ByDelivery(pub(crate) Option<Memory>);

impl ControllerFactory for ByDelivery {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let memory = self.0.clone();
        Box::new(Delivery::new(now, current_mtu.into(), memory))
    }
}

/// Lets one packet pass whatever is on its way, for a question into a silence: all of it may be lost.
pub(crate) fn let_pass(connection: &quinn::Connection) {
    // A copy, which shares this with the one in use.
    let control = connection.congestion_state().into_any();
    if let Ok(control) = control.downcast::<Delivery>() {
        control.questions.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone)]
struct Delivery {
    mtu: u64,
    /// Growing from round to round until the rate no longer follows.
    starting: bool,
    /// While starting.
    window: u64,
    memory: Option<Memory>,
    /// The window was taken from the memory.
    resumed: bool,
    /// Bytes that have arrived since the beginning.
    delivered: u64,
    /// When something was sent, and what had arrived by then.
    moments: VecDeque<(Instant, u64)>,
    /// Best rate of each of the last rounds, bytes a second; the first is this round's.
    rates: VecDeque<f64>,
    /// In the last two stretches of [`RTT_TIME`] or more, which begin where the queue empties.
    rtt: [Option<Duration>; 2],
    rtt_since: Instant,
    round: Round,
    rounds: u32,
    drained: (u32, Instant),
    draining: bool,
    best_before: f64,
    without_growth: u32,
    /// Below 1 while the link overflows.
    share: f64,
    /// Rounds in a row whose round trips are another link's.
    elsewhere: u32,
    /// Bytes on their way, as far as it is told here: at the last acknowledgement, and what was sent or lost since.
    in_flight: u64,
    /// Packets that may pass whatever is on its way. More than one only while something that is not counted in `in_flight` (a probe
    /// for larger packets) keeps the first one back.
    questions: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Copy)]
struct Round {
    began: Instant,
    acked: u64,
    lost: u64,
    shortest: Option<Duration>,
    /// Something in it tells how fast the link is.
    telling: bool,
}

impl Round {
    fn new(began: Instant) -> Round {
        Round {
            began,
            acked: 0,
            lost: 0,
            shortest: None,
            telling: false,
        }
    }
}

impl Delivery {
    fn new(now: Instant, mtu: u64, memory: Option<Memory>) -> Delivery {
        Delivery {
            mtu,
            starting: true,
            window: FIRST * mtu,
            memory,
            resumed: false,
            delivered: 0,
            moments: VecDeque::new(),
            rates: VecDeque::from([0.0]),
            rtt: [None; 2],
            rtt_since: now,
            round: Round::new(now),
            rounds: 0,
            drained: (0, now),
            draining: false,
            best_before: 0.0,
            without_growth: 0,
            share: 1.0,
            elsewhere: 0,
            in_flight: 0,
            questions: Arc::default(),
        }
    }

    /// The link is another one now; what is on its way still counts when it arrives.
    fn begin_anew(&mut self, now: Instant) {
        if let Some(memory) = self
            .memory
            .as_ref()
            .filter(|_| self.starting && self.resumed)
        {
            // All that was sent on the strength of it is lost.
            memory.forget();
        }
        let moments = std::mem::take(&mut self.moments);
        *self = Delivery {
            moments,
            delivered: self.delivered,
            in_flight: self.in_flight,
            questions: self.questions.clone(),
            ..Delivery::new(now, self.mtu, self.memory.take())
        };
    }

    /// Goes on with half of what the link held before, once, where it looks like the same link.
    fn resume(&mut self) {
        let (Some(memory), Some(rtt)) = (&self.memory, self.shortest()) else {
            return;
        };
        let is_early = self.starting && !self.resumed && self.rounds < ROUNDS_TO_RESUME;
        if let Some(window) = memory.window(rtt).filter(|_| is_early) {
            self.window = self.window.max(window);
            self.resumed = true;
        }
    }

    /// Keeps what is known of the link, for the next connection.
    fn remember(&self) {
        if let (Some(memory), Some(held), Some(rtt)) = (&self.memory, self.held(), self.shortest())
        {
            memory.note(Known { held, rtt }, self.starting);
        }
    }

    /// Bytes a second.
    fn rate(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    fn shortest(&self) -> Option<Duration> {
        self.rtt.iter().flatten().min().copied()
    }

    /// What the link holds, in bytes.
    fn held(&self) -> Option<f64> {
        let rate = self.rate();
        let rtt = self.shortest().filter(|_| rate > 0.0)?;
        Some(rate * rtt.as_secs_f64())
    }

    fn note_rtt(&mut self, rtt: Duration) {
        for shortest in [&mut self.rtt[0], &mut self.round.shortest] {
            *shortest = Some(shortest.map_or(rtt, |least| least.min(rtt)));
        }
    }

    /// Did all that arrived in this round take longer than on the link that is known, with the window in front of it?
    fn is_elsewhere(&self, round: &Round) -> bool {
        let (Some(known), Some(seen)) = (self.shortest(), round.shortest) else {
            return false;
        };
        let rate = self.rate();
        let in_front = match rate > 0.0 {
            true => Duration::from_secs_f64((self.window() as f64 / rate).min(60.0)),
            false => return false,
        };
        seen > known * ELSEWHERE + in_front + 2 * SLACK
    }

    fn note_rate(&mut self, now: Instant, sent: Instant, app_limited: bool) {
        let at = self.moments.partition_point(|(moment, _)| *moment <= sent);
        let Some((moment, before)) = at
            .checked_sub(1)
            .and_then(|at| self.moments.get(at))
            .copied()
        else {
            return;
        };
        // What is older is asked for only when packets overtake each other.
        self.moments.drain(..at - 1);
        let took = now.saturating_duration_since(moment).as_secs_f64();
        if took <= 0.0 {
            return;
        }
        let rate = (self.delivered - before) as f64 / took;
        // While there was little to send, only a better rate than the best says something.
        if app_limited && rate <= self.rate() {
            return;
        }
        self.round.telling = true;
        if let Some(best) = self.rates.front_mut() {
            *best = best.max(rate);
        }
    }

    fn end_round(&mut self, now: Instant) {
        self.elsewhere = match !self.starting && self.is_elsewhere(&self.round) {
            true => self.elsewhere + 1,
            false => 0,
        };
        if self.elsewhere >= ROUNDS_ELSEWHERE {
            return self.begin_anew(now);
        }
        let round = std::mem::replace(&mut self.round, Round::new(now));
        self.rounds += 1;
        let all = round.acked + round.lost;
        let overflows =
            all >= TELLING_PACKETS * self.mtu && round.lost as f64 > OVERFLOW * all as f64;
        self.share = if overflows {
            (self.share * 0.7).max(0.4)
        } else {
            (self.share * 1.1).min(1.0)
        };
        if round.telling {
            if self.starting {
                let best = self.rate();
                if best >= self.best_before * GROWTH {
                    (self.best_before, self.without_growth) = (best, 0);
                } else {
                    self.without_growth += 1;
                }
                self.starting = !overflows && self.without_growth < ROUNDS_WITHOUT_GROWTH;
            }
            self.remember();
            self.rates.push_front(0.0);
            self.rates.truncate(RATE_ROUNDS);
        }
        let (drained, at) = self.drained;
        let rounds = self.rounds - drained;
        let since = now.saturating_duration_since(at);
        self.draining = !self.draining
            && !self.starting
            && (rounds >= ROUNDS_TO_DRAIN || (since >= TIME_TO_DRAIN && rounds >= 4));
        if self.draining {
            self.drained = (self.rounds, now);
            // Each stretch has a round in it in which no queue made the round trip longer.
            if now.saturating_duration_since(self.rtt_since) >= RTT_TIME {
                self.rtt = [None, self.rtt[0]];
                self.rtt_since = now;
            }
        }
    }
}

impl Controller for Delivery {
    fn on_sent(&mut self, now: Instant, bytes: u64, _last_packet_number: u64) {
        self.in_flight += bytes;
        self.questions.store(0, Ordering::Relaxed);
        let is_new = self.moments.back().is_none_or(|(last, _)| *last < now);
        if is_new {
            if self.moments.len() >= MOMENTS {
                self.moments.pop_front();
            }
            self.moments.push_back((now, self.delivered));
        }
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        _rtt: &RttEstimator,
    ) {
        self.handle_ack(now, sent, bytes, app_limited);
    }

    fn on_end_acks(
        &mut self,
        _now: Instant,
        in_flight: u64,
        _app_limited: bool,
        _largest_packet_num_acked: Option<u64>,
    ) {
        self.in_flight = in_flight;
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        _sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.in_flight = self.in_flight.saturating_sub(lost_bytes);
        self.round.lost += lost_bytes;
        if is_persistent_congestion {
            // The link was gone: whatever comes back may be another one.
            self.begin_anew(now);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu.into();
    }

    fn window(&self) -> u64 {
        let window = self.without_questions();
        match self.questions.load(Ordering::Relaxed) {
            0 => window,
            // What is sent has to stay below the window.
            packets => window.max(self.in_flight + packets * self.mtu + 1),
        }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        FIRST * self.mtu
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl Delivery {
    fn without_questions(&self) -> u64 {
        let least = LEAST * self.mtu;
        let held = match self.held() {
            Some(held) if !self.starting => held,
            _ => return self.window.max(least),
        };
        let window = if self.draining {
            held * DRAIN
        } else {
            let slack = self.rate() * SLACK.as_secs_f64() + (SLACK_PACKETS * self.mtu) as f64;
            held * CRUISE * self.share + slack
        };
        (window as u64).max(least)
    }

    fn handle_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool) {
        self.delivered += bytes;
        self.round.acked += bytes;
        self.note_rtt(now.saturating_duration_since(sent));
        self.resume();
        self.note_rate(now, sent, app_limited);
        if self.starting && !app_limited {
            self.window += bytes;
        }
        if sent >= self.round.began {
            self.end_round(now);
        }
    }
}

#[cfg(test)]
mod tests;
