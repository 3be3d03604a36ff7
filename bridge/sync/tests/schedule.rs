//! The scheduler under virtual time: a link of some rate and round-trip time, and lanes that always have something to send.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use sync::limits;
use sync::schedule::{Grant, LaneShare, Next, Scheduler, Ticket};

fn lane(number: u8, rank: u8) -> LaneShare {
    LaneShare {
        number,
        rank,
        rate: None,
        rate_of: number,
    }
}

/// A link that takes what it is given in order, and lanes of endless frames.
struct Link {
    scheduler: Scheduler,
    now: Duration,
    /// Size of the frames of each lane, and what is left of the one that is being sent.
    lanes: BTreeMap<u8, (usize, usize)>,
    tickets: BTreeMap<u8, Ticket>,
    rate: f64,
    rtt: Duration,
    free_at: Duration,
    /// Frames on their way, by the time of their acknowledgement.
    flying: VecDeque<(Duration, u8, Ticket)>,
    sent: BTreeMap<u8, u64>,
    acked: BTreeMap<u8, u64>,
    log: Vec<(Duration, Grant)>,
}

impl Link {
    fn new(
        shares: &[(LaneShare, usize)],
        link_rate: Option<u64>,
        rate: f64,
        rtt: Duration,
    ) -> Link {
        let now = Duration::from_secs(1);
        let scheduler = Scheduler::new(shares.iter().map(|(share, _)| *share), link_rate, now);
        let lanes = shares
            .iter()
            .map(|(share, size)| (share.number, (*size, 0)));
        let mut link = Link {
            scheduler,
            now,
            lanes: lanes.collect(),
            tickets: BTreeMap::new(),
            rate,
            rtt,
            free_at: now,
            flying: VecDeque::new(),
            sent: BTreeMap::new(),
            acked: BTreeMap::new(),
            log: Vec::new(),
        };
        for (share, size) in shares {
            link.scheduler.want(share.number, *size, Some(*size));
        }
        link
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let wait = loop {
                match self.scheduler.poll(self.now) {
                    Next::Send(grant) => self.take(grant),
                    Next::Wait(at) => {
                        assert!(at > self.now, "a wait for the past");
                        break Some(at);
                    }
                    Next::Idle => break None,
                }
            };
            let ack = self.flying.front().map(|(at, ..)| *at);
            let next = [wait, ack].into_iter().flatten().min();
            self.now = next.unwrap_or(end).min(end);
            while self.flying.front().is_some_and(|(at, ..)| *at <= self.now) {
                let (_, lane, ticket) = self.flying.pop_front().unwrap();
                let rtt = Some(self.rtt);
                self.scheduler.handle_settled(lane, ticket, rtt, self.now);
                *self.acked.entry(lane).or_default() += self.lanes[&lane].0 as u64;
            }
        }
    }

    fn take(&mut self, grant: Grant) {
        self.log.push((self.now, grant));
        *self.sent.entry(grant.lane).or_default() += grant.bytes as u64;
        let (size, left) = self.lanes.get_mut(&grant.lane).unwrap();
        if let Some(ticket) = grant.ticket {
            self.tickets.insert(grant.lane, ticket);
            *left = *size;
        }
        assert!(grant.bytes > 0 && grant.bytes <= *left);
        *left -= grant.bytes;
        let takes = Duration::from_secs_f64(grant.bytes as f64 / self.rate);
        self.free_at = self.free_at.max(self.now) + takes;
        if *left == 0 {
            let ticket = self.tickets[&grant.lane];
            self.flying
                .push_back((self.free_at + self.rtt, grant.lane, ticket));
            self.scheduler.want(grant.lane, *size, Some(*size));
        } else {
            self.scheduler.want(grant.lane, *left, None);
        }
    }

    fn waiting(&self) -> Duration {
        self.free_at.saturating_sub(self.now)
    }
}

#[test]
fn a_higher_rank_goes_first() {
    let mut scheduler = Scheduler::new([lane(0, 1), lane(1, 9)], None, Duration::ZERO);
    scheduler.want(0, 5000, Some(5000));
    scheduler.want(1, 100, Some(100));
    let mut order = Vec::new();
    while let Next::Send(grant) = scheduler.poll(Duration::ZERO) {
        order.push((grant.lane, grant.bytes));
    }
    assert_eq!(order, [(1, 100), (0, 5000)]);
}

#[test]
fn bulk_takes_no_room_from_an_alarm() {
    let shares = [(lane(0, 1), 60_000), (lane(1, 2), 500)];
    let mut scheduler = Scheduler::new(shares.map(|(share, _)| share), None, Duration::ZERO);
    // As much bulk as the window takes, and nothing is acknowledged.
    loop {
        scheduler.want(0, 60_000, Some(60_000));
        if scheduler.poll(Duration::ZERO) == Next::Idle {
            break;
        }
    }
    let mut alarms = 0;
    loop {
        scheduler.want(1, 500, Some(500));
        match scheduler.poll(Duration::ZERO) {
            Next::Send(grant) => assert_eq!((grant.lane, grant.bytes), (1, 500)),
            _ => break,
        }
        alarms += 1;
    }
    assert!(alarms >= limits::LEAST_WINDOW / 500, "{alarms}");
}

#[test]
fn the_window_follows_the_link() {
    // 1 Mbit/s: what waits in front of the link stays short. 800 Mbit/s and far away: it is full all the same.
    let slow = [(lane(0, 1), 8_000)];
    let mut link = Link::new(&slow, None, 125_000.0, Duration::from_millis(50));
    link.run(Duration::from_secs(20));
    assert!(
        link.waiting() < Duration::from_secs(2),
        "{:?}",
        link.waiting()
    );
    assert!(link.acked[&0] as f64 > 0.95 * 20.0 * 125_000.0);
    let fast = [(lane(0, 1), 60_000)];
    let mut link = Link::new(&fast, None, 20e6, Duration::from_millis(200));
    link.run(Duration::from_secs(20));
    assert!(
        link.acked[&0] as f64 > 0.9 * 20.0 * 20e6,
        "{:?}",
        link.acked
    );
}

#[test]
fn one_frame_larger_than_everything_is_sent() {
    let size = limits::DEFAULT_WINDOW * 2;
    let mut link = Link::new(&[(lane(0, 1), size)], Some(1 << 20), 1e8, Duration::ZERO);
    link.run(Duration::from_secs(60));
    assert!(link.sent[&0] > size as u64);
}

/// As the two halves of a lane where what is fresh goes first.
#[test]
fn two_lanes_keep_to_one_rate_and_the_higher_rank_has_it_first() {
    let half = |number, rank| LaneShare {
        rate: Some(50_000),
        rate_of: 0,
        ..lane(number, rank)
    };
    // Small frames of the lower rank leave nothing that a large one of the higher would wait for in vain.
    for sizes in [(10_000, 10_000), (60_000, 100)] {
        let shares = [(half(0, 3), sizes.0), (half(1, 2), sizes.1)];
        let mut link = Link::new(&shares, None, 1e7, Duration::from_millis(20));
        link.run(Duration::from_secs(20));
        let sent = |lane: u8| link.sent.get(&lane).copied().unwrap_or(0);
        let both = sent(0) + sent(1);
        assert!((1_000_000..1_020_000).contains(&both), "{:?}", link.sent);
        assert!(sent(0) > 980_000, "{:?}", link.sent);
    }
    // With nothing fresh the other half has all of it.
    let mut scheduler = Scheduler::new([half(0, 3), half(1, 2)], None, Duration::ZERO);
    scheduler.want(1, 1000, Some(1000));
    let granted = scheduler.poll(Duration::ZERO);
    assert!(
        matches!(granted, Next::Send(Grant { lane: 1, .. })),
        "{granted:?}"
    );
}

/// It must not overflow while the link sends for the other lane.
#[test]
fn a_low_rate_is_used_on_a_link_that_is_hardly_faster() {
    let capped = LaneShare {
        rate: Some(5_000),
        ..lane(0, 5)
    };
    let shares = [(capped, 100_000), (lane(1, 1), 100_000)];
    let mut link = Link::new(&shares, Some(5_500), 1e8, Duration::from_millis(20));
    link.run(Duration::from_secs(30));
    assert!(link.sent[&0] >= 135_000, "{:?}", link.sent);
}

#[test]
fn the_core_sets_the_pace_and_lifts_it() {
    let mut link = Link::new(&[(lane(0, 1), 10_000)], None, 1e7, Duration::ZERO);
    link.scheduler.set_pace(50_000, link.now);
    link.run(Duration::from_secs(10));
    let paced = link.sent[&0];
    assert!((500_000..530_000).contains(&paced), "{paced}");
    link.scheduler.set_pace(0, link.now);
    link.run(Duration::from_secs(10));
    assert!(link.sent[&0] > 10 * paced);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A bucket is never overdrawn: in any stretch of time no more than the rate gives, and what was saved up.
    #[test]
    fn rates_hold_and_are_used(
        rate in 5_000u64..2_000_000,
        link_rate in 5_000u64..2_000_000,
        size in 50usize..300_000,
    ) {
        let capped = LaneShare { number: 0, rank: 5, rate: Some(rate), rate_of: 0 };
        let shares = [(capped, size), (lane(1, 1), size)];
        let mut link = Link::new(&shares, Some(link_rate), 1e8, Duration::from_millis(20));
        link.run(Duration::from_secs(30));
        let burst = |rate: u64| (rate as f64 * limits::BURST.as_secs_f64()).max(2.0 * limits::LEAST_PIECE as f64);
        for lane in [Some(0), None] {
            let rate = if lane.is_some() { rate.min(link_rate) } else { link_rate };
            let sent: Vec<_> = link.log.iter().filter(|(_, g)| lane.is_none_or(|l| l == g.lane)).collect();
            for from in (0..sent.len()).step_by(sent.len() / 20 + 1) {
                let mut bytes = 0;
                for (at, grant) in &sent[from..] {
                    bytes += grant.bytes;
                    let time = (*at - sent[from].0).as_secs_f64();
                    prop_assert!(bytes as f64 <= rate as f64 * time + burst(rate) + 1.0, "lane {lane:?}: {bytes} bytes in {time} s");
                }
            }
            let bytes: usize = sent.iter().map(|(_, g)| g.bytes).sum();
            prop_assert!(bytes as f64 >= 0.9 * 30.0 * rate as f64, "lane {lane:?} used {bytes} of {rate}/s");
        }
    }

    /// Lanes of one rank share the link evenly, whatever the size of their frames.
    #[test]
    fn one_rank_shares_evenly(sizes in prop::collection::vec(200usize..200_000, 2..5)) {
        let shares: Vec<_> = sizes.iter().enumerate().map(|(n, size)| (lane(n as u8, 3), *size)).collect();
        let mut link = Link::new(&shares, Some(1_000_000), 1e8, Duration::from_millis(10));
        link.run(Duration::from_secs(20));
        let (most, least) = (link.sent.values().max().unwrap(), link.sent.values().min().unwrap());
        prop_assert!(most - least <= 3 * limits::QUANTUM as u64, "{:?}", link.sent);
    }

    /// While something of a higher rank waits and may go, nothing of a lower one goes.
    #[test]
    fn ranks_are_strict(sizes in prop::collection::vec((200usize..100_000, 0u8..3), 2..6)) {
        let shares: Vec<_> = sizes.iter().enumerate().map(|(n, (size, rank))| (lane(n as u8, *rank), *size)).collect();
        let mut link = Link::new(&shares, Some(1_000_000), 1e9, Duration::from_micros(100));
        link.run(Duration::from_secs(5));
        let top = shares.iter().map(|(share, _)| share.rank).max().unwrap();
        for (share, _) in &shares {
            let sent = link.sent.get(&share.number).copied().unwrap_or(0);
            if share.rank < top {
                // What fits before the first acknowledgement makes room again.
                prop_assert!(sent <= 3 * limits::LEAST_WINDOW as u64, "{share:?} {sent}");
            }
        }
    }
}
