//! A million filters: finding those that match, also while others subscribe.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use router::{Dialect, Router};

use crate::figure::{Figure, Goal};
use crate::run::Run;
use crate::timing::{Times, timed};

const SITES: u64 = 1000;
/// Subscriptions a second, of those who come and go.
const CHURN: f64 = 10_000.0;

/// Four kinds in turn: one device, one device's everything, one kind of value in a site, a level left open.
fn filter(number: u64) -> String {
    let device = number / 4;
    let site = device % SITES;
    match number % 4 {
        0 => format!("site/{site}/device/{device}/temperature"),
        1 => format!("site/{site}/device/{device}/#"),
        2 => format!("site/{site}/+/{device}/temperature"),
        _ => format!("+/{site}/device/{device}/pressure"),
    }
}

fn name(random: &mut StdRng, filters: u64) -> String {
    let number = random.random_range(0..filters);
    let value = if number % 4 == 3 {
        "pressure"
    } else {
        "temperature"
    };
    let device = number / 4;
    format!("site/{}/device/{device}/{value}", device % SITES)
}

/// Matches until told to stop (at least `least` times): times, and targets found.
fn publish(
    router: &Router<u64>,
    filters: u64,
    least: u64,
    until: impl Fn() -> bool,
) -> (Times, u64) {
    let mut random = StdRng::seed_from_u64(7);
    let (mut times, mut found) = (Times::default(), 0);
    while times.count() < least || !until() {
        let name = name(&mut random, filters);
        let start = Instant::now();
        let targets = router.matches(&name);
        times.add(start.elapsed());
        found += targets.len() as u64;
    }
    (times, found)
}

pub fn measure(run: &mut Run) -> Result<()> {
    const GROUP: &str = "router";
    let filters = run.size(1_000_000, 200_000);
    let router = Router::new(Dialect::SLASHED);
    let (built, time) = timed(|| {
        (0..filters).try_for_each(|number| router.insert(&filter(number), number).map(drop))
    });
    built?;
    run.add(Figure::new(
        GROUP,
        format!("{filters} filters: subscribed one by one"),
        filters as f64 / time.as_secs_f64(),
        "subscriptions/s",
    ));
    let least = run.size(400_000, 50_000);
    let (quiet, found) = publish(&router, filters, least, || true);
    let latency = quiet.latency();
    run.add(
        Figure::new(
            GROUP,
            format!("match against {filters} filters, median"),
            latency.p50_us,
            "µs",
        )
        .goal(Goal::AtMost(10.0))
        .note(format!(
            "p99 {:.1} µs; {:.2} targets a name",
            latency.p99_us,
            found as f64 / quiet.count() as f64
        )),
    );
    // Others subscribe and leave at the same time, on a thread of their own.
    let time = Duration::from_secs(run.size(4, 1));
    let stop = AtomicBool::new(false);
    let (busy, changes) = std::thread::scope(|scope| {
        let churn = scope.spawn(|| {
            let start = Instant::now();
            let mut changes = 0_u64;
            while start.elapsed() < time {
                let due = start.elapsed().as_secs_f64() * CHURN;
                if changes as f64 >= due {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                let number = filters + changes / 2 % 1000;
                if changes.is_multiple_of(2) {
                    router.insert(&filter(number), number)?;
                } else {
                    router.remove(&filter(number), &number);
                }
                changes += 1;
            }
            stop.store(true, Ordering::Release);
            Ok::<u64, router::PatternError>(changes)
        });
        let busy = publish(&router, filters, 0, || stop.load(Ordering::Acquire));
        (busy, churn.join())
    });
    let changes = changes
        .ok()
        .context("the thread that subscribes has failed")??;
    let with = busy.0.latency();
    run.add(
        Figure::new(
            GROUP,
            "subscriptions and departures meanwhile",
            changes as f64 / time.as_secs_f64(),
            "a second",
        )
        .goal(Goal::AtLeast(CHURN * 0.99)),
    );
    run.add(
        Figure::p99(
            GROUP,
            "match while 10,000 a second subscribe and leave",
            with,
        )
        .against("nobody subscribes", latency.p99_us)
        .goal(Goal::AtMost(100.0))
        .note(format!("median {:.2} µs", with.p50_us)),
    );
    Ok(())
}
