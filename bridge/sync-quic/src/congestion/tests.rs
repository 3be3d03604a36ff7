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
