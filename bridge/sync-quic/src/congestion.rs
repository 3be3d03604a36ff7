//! How much may be on its way: what the link delivers in a round trip, and a little more.
//!
//! Loss does not say much on a radio link, so it is what arrives that counts: the delivery rate (as in draft-cheng-iccrg-delivery-rate-
//! estimation) and the shortest round trip give how much the link holds, and the window is a third above that, so that a link that can
//! carry more is found out. Now and then the window is smaller for a round, so that a queue in front of the link empties and the round
//! trip without it is seen. Loss counts when there is so much of it that it must be a queue that overflows.
//!
//! Why none of quinn's: `docs/design/2026-11-21-edge.md`.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

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
/// Of what the link held before, so much is sent in the first round on which it looks like the same link (a half, as in
/// draft-ietf-tsvwg-careful-resume).
const RESUMED: f64 = 0.5;
/// It looks so where the first round trips are at most so many times as long as they were, or as short.
const ALIKE: u32 = 2;
/// Rounds in which that is looked at.
const ROUNDS_TO_RESUME: u32 = 2;

/// What was found out about the link, for the next connection over it: who comes back after an outage has much to send, and from [`FIRST`]
/// packets on takes four round trips to send a batch of 256 KiB. Cheap to clone; the copies share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Remembered>>);

#[derive(Debug, Default)]
struct Remembered {
    known: Option<Known>,
    /// As it was when the last connection began.
    rtt: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Known {
    /// What the link holds, in bytes, with the round trip that it had.
    held: f64,
    rtt: Duration,
}

impl Memory {
    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_rtt(&self, rtt: Duration) {
        self.remembered().rtt = Some(rtt);
    }

    /// The round trip of the link, as far as anything is known of it.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.remembered().rtt
    }

    /// `at_least`: the link may hold more than this.
    fn note(&self, now: Known, at_least: bool) {
        let known = &mut self.remembered().known;
        if !at_least || known.is_none_or(|known| known.held < now.held) {
            *known = Some(now);
        }
    }

    /// What may be sent over a link with this round trip, as far as it is the one that is known.
    fn window(&self, rtt: Duration) -> Option<u64> {
        let known = self.remembered().known?;
        let is_alike = rtt <= known.rtt * ALIKE && known.rtt <= rtt * ALIKE;
        is_alike.then_some((known.held * RESUMED) as u64)
    }

    fn forget(&self) {
        self.remembered().known = None;
    }
}

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
mod tests {
    use super::*;

    const MTU: u64 = 1450;

    /// A link with a queue in front of it, and chance that loses packets.
    struct Link {
        rate: f64,
        rtt: Duration,
        loss: f64,
        queue: f64,
    }

    /// Delivered bytes a second, and the longest round trip in the second half.
    fn run(link: &Link, seconds: u64) -> (f64, Duration) {
        run_over(link, link, seconds)
    }

    /// Over one link in the first half, over another in the second, of which the figures are.
    fn run_over(first: &Link, second: &Link, seconds: u64) -> (f64, Duration) {
        let half = Duration::from_secs(seconds / 2);
        run_with(None, first, second, half, 2 * half)
    }

    /// The same, with what was found out before. The figures are of what comes after `half`.
    fn run_with(
        memory: Option<&Memory>,
        first: &Link,
        second: &Link,
        half: Duration,
        length: Duration,
    ) -> (f64, Duration) {
        let began = Instant::now();
        let mut control = Delivery::new(began, MTU, memory.cloned());
        let (mut now, mut free, mut in_flight) = (began, began, 0u64);
        let mut flying: VecDeque<(Instant, Instant, bool)> = VecDeque::new();
        let mut dice = 12345u64;
        let (mut delivered, mut longest) = (0u64, Duration::ZERO);
        let counted = (length - half).as_secs_f64();
        let (end, half) = (began + length, began + half);
        while now < end {
            let link = if now < half { first } else { second };
            while in_flight + MTU <= control.window() {
                control.on_sent(now, MTU, 0);
                in_flight += MTU;
                dice = dice
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                let waits = free.saturating_duration_since(now).as_secs_f64() * link.rate;
                let lost = ((dice >> 33) as f64 / 2f64.powi(31)) < link.loss || waits > link.queue;
                if !lost {
                    free = free.max(now) + Duration::from_secs_f64(MTU as f64 / link.rate);
                }
                flying.push_back((free.max(now) + link.rtt, now, lost));
            }
            let Some((at, sent, lost)) = flying.pop_front() else {
                break;
            };
            now = now.max(at);
            in_flight -= MTU;
            if lost {
                control.on_congestion_event(now, sent, false, MTU);
            } else {
                control.handle_ack(now, sent, MTU, false);
                if now > half {
                    delivered += MTU;
                    longest = longest.max(now - sent);
                }
            }
        }
        (delivered as f64 / counted, longest)
    }

    #[test]
    fn a_link_is_filled_whatever_it_loses_and_little_waits_in_front_of_it() {
        for (mbit, rtt, loss) in [
            (1.0, 20, 0.0),
            (1.0, 100, 0.02),
            (20.0, 200, 0.0),
            (20.0, 200, 0.04),
            (100.0, 50, 0.1),
            (5.0, 600, 0.02),
        ] {
            let rate = mbit * 125_000.0;
            let rtt = Duration::from_millis(rtt);
            let link = Link {
                rate,
                rtt,
                loss,
                queue: 1e9,
            };
            let (delivered, longest) = run(&link, 60);
            assert!(
                delivered > 0.9 * rate,
                "{mbit} Mbit/s {rtt:?} {loss}: {delivered}"
            );
            let waits = longest.saturating_sub(rtt);
            let allowed = rtt.mul_f64(0.5) + Duration::from_millis(80);
            assert!(waits < allowed, "{mbit} Mbit/s {rtt:?} {loss}: {waits:?}");
        }
    }

    #[test]
    fn a_short_queue_is_not_flooded() {
        // A quarter of what the link holds fits into the queue.
        let link = Link {
            rate: 2.5e6,
            rtt: Duration::from_millis(100),
            loss: 0.0,
            queue: 62_500.0,
        };
        let (delivered, _) = run(&link, 60);
        assert!(delivered > 0.8 * 2.5e6, "{delivered}");
    }

    #[test]
    fn a_link_that_becomes_another_one_is_filled_soon() {
        let link = |mbit: f64, rtt, loss| Link {
            rate: mbit * 125_000.0,
            rtt: Duration::from_micros(rtt),
            loss,
            queue: 1e9,
        };
        for (first, second) in [
            (link(1000.0, 300, 0.0), link(40.0, 200_000, 0.02)),
            (link(100.0, 10_000, 0.0), link(20.0, 600_000, 0.0)),
            (link(20.0, 200_000, 0.02), link(20.0, 20_000, 0.0)),
            (link(20.0, 50_000, 0.0), link(1.0, 50_000, 0.0)),
        ] {
            // Ten seconds of it, the first ones included.
            let (delivered, _) = run_over(&first, &second, 20);
            let rates = (first.rate, second.rate);
            assert!(delivered > 0.6 * second.rate, "{rates:?}: {delivered}");
        }
    }

    const LONG: Link = Link {
        rate: 5e6,
        rtt: Duration::from_millis(200),
        loss: 0.02,
        queue: 1.25e6,
    };

    /// What a connection knows that had 20 s of this link.
    fn memory_of(link: &Link) -> Memory {
        let memory = Memory::default();
        let length = Duration::from_secs(20);
        run_with(Some(&memory), link, link, length / 2, length);
        memory
    }

    /// Bytes that have arrived after so many round trips of a new connection.
    fn arrived(memory: Option<&Memory>, link: &Link, rounds: u32) -> f64 {
        let length = link.rtt * rounds;
        let (rate, _) = run_with(memory, link, link, Duration::ZERO, length);
        rate * length.as_secs_f64()
    }

    #[test]
    fn the_next_connection_over_a_link_takes_fewer_round_trips_to_fill_it() {
        let memory = memory_of(&LONG);
        // The answer to what is sent first is there after the first, and what is sent then after the second and what it takes to send it.
        let (without, with) = (arrived(None, &LONG, 3), arrived(Some(&memory), &LONG, 3));
        assert!(without < 150e3, "{without}");
        assert!(with > 400e3, "{with}");
    }

    #[test]
    fn another_link_is_not_taken_for_the_one_that_is_known() {
        let memory = memory_of(&LONG);
        for rtt_ms in [20, 90, 420, 900] {
            let rtt = Duration::from_millis(rtt_ms);
            assert_eq!(memory.window(rtt), None, "{rtt:?}");
            let link = Link { rtt, ..LONG };
            let (without, with) = (arrived(None, &link, 2), arrived(Some(&memory), &link, 2));
            assert_eq!(without, with, "{rtt:?}");
        }
    }

    #[test]
    fn a_link_that_holds_less_than_before_is_found_out_in_the_first_rounds() {
        let memory = memory_of(&LONG);
        let narrow = Link {
            rate: 125e3,
            queue: 64e3,
            ..LONG
        };
        let before = memory.window(LONG.rtt).unwrap();
        let half = Duration::from_secs(3);
        let (delivered, _) = run_with(Some(&memory), &narrow, &narrow, half, half * 5);
        assert!(delivered > 0.7 * narrow.rate, "{delivered}");
        let after = memory.remembered().known.unwrap().held;
        assert!(after < before as f64 / 5.0, "{before}, then {after}");
    }

    #[test]
    fn what_led_to_nothing_but_losses_is_forgotten() {
        let (memory, began) = (memory_of(&LONG), Instant::now());
        let mut control = Delivery::new(began, MTU, Some(memory.clone()));
        let now = began + LONG.rtt;
        control.on_sent(began, MTU, 0);
        control.handle_ack(now, began, MTU, true);
        assert!(control.window() > 2 * FIRST * MTU, "{}", control.window());
        control.on_congestion_event(now + LONG.rtt * 9, now, true, 100 * MTU);
        assert_eq!(control.window(), FIRST * MTU);
        assert_eq!(memory.window(LONG.rtt), None);
    }

    #[test]
    fn little_that_was_sent_does_not_say_that_the_link_holds_little() {
        let memory = memory_of(&LONG);
        let (before, began) = (memory.window(LONG.rtt), Instant::now());
        let mut control = Delivery::new(began, MTU, Some(memory.clone()));
        for n in 0..100 {
            let sent = began + LONG.rtt * n;
            control.on_sent(sent, MTU, n.into());
            control.handle_ack(sent + LONG.rtt, sent, MTU, true);
        }
        assert_eq!(memory.window(LONG.rtt), before);
    }

    /// Whether a packet of full size may be sent now.
    fn may_send(control: &Delivery, in_flight: u64) -> bool {
        in_flight + MTU < control.window()
    }

    #[test]
    fn a_question_passes_however_much_is_on_its_way_and_alone() {
        let began = Instant::now();
        let mut control = Delivery::new(began, MTU, None);
        let mut in_flight = 0;
        while may_send(&control, in_flight) {
            control.on_sent(began, MTU, 0);
            in_flight += MTU;
        }
        // As after a window that has become smaller.
        control.window = 2 * MTU;
        let asks = control.clone();
        for _ in 0..100 {
            assert!(!may_send(&control, in_flight));
            asks.questions.fetch_add(1, Ordering::Relaxed);
            assert!(may_send(&control, in_flight));
            // A second one beside it in the same transmission.
            assert!(!may_send(&control, in_flight + MTU));
            control.on_sent(began, MTU, 0);
            in_flight += MTU;
        }
        // All of it is lost, and the first one that is heard of says how much is on its way.
        control.on_congestion_event(began, began, true, in_flight);
        control.on_end_acks(began, 0, false, None);
        assert_eq!(control.window(), FIRST * MTU);
        asks.questions.fetch_add(1, Ordering::Relaxed);
        assert_eq!(control.window(), FIRST * MTU);
    }

    #[test]
    fn it_begins_anew_when_the_link_was_gone() {
        let began = Instant::now();
        let mut control = Delivery::new(began, MTU, None);
        for n in 0..1000u64 {
            let sent = began + Duration::from_millis(n);
            control.on_sent(sent, MTU, n);
            control.handle_ack(sent + Duration::from_millis(50), sent, MTU, false);
        }
        control.on_congestion_event(began + Duration::from_secs(9), began, true, 10 * MTU);
        assert_eq!(control.window(), FIRST * MTU);
    }
}
