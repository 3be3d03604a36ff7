//! Matching against a million patterns, and how fast patterns come and go meanwhile.
//! `cargo run --release -p router --example router_figures`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use router::{Dialect, Router};

const PATTERNS: u32 = 1_000_000;

type Failure = Box<dyn std::error::Error>;

/// One in four without wildcards, one in four with `+`, one with `#`, and one below a level with a million children.
fn pattern(n: u32) -> String {
    match n % 4 {
        0 => format!("site{}/line{}/sensor{n}/temp", n % 100, n % 1000),
        1 => format!("site{}/+/sensor{n}/temp", n % 100),
        2 => format!("site{}/line{n}/#", n % 100),
        _ => format!("device{n}/+/state"),
    }
}

fn name(n: u32) -> String {
    match n % 4 {
        0 | 1 => format!("site{}/line{}/sensor{n}/temp", n % 100, n % 1000),
        2 => format!("site{}/line{n}/sensor7/temp", n % 100),
        _ => format!("device{n}/x/state"),
    }
}

fn matches(router: &Router<u32>, what: &str) -> Result<(), Failure> {
    let mut took = Vec::new();
    let mut found = 0;
    for n in 0..200_000u32 {
        let name = name(n.wrapping_mul(2_654_435_761) % PATTERNS);
        let started = Instant::now();
        found += router.matches(&name).len();
        took.push(started.elapsed());
    }
    took.sort_unstable();
    let at = |permille: usize| took.get(took.len() * permille / 1000).copied();
    println!(
        "matching {what}: p50 {:?}, p99 {:?}, p999 {:?}; {found} found for 200000 names",
        at(500).unwrap_or(Duration::ZERO),
        at(990).unwrap_or(Duration::ZERO),
        at(999).unwrap_or(Duration::ZERO),
    );
    Ok(())
}

fn main() -> Result<(), Failure> {
    let router = Arc::new(Router::new(Dialect::SLASHED));
    let started = Instant::now();
    for n in 0..PATTERNS {
        router.insert(&pattern(n), n)?;
    }
    println!(
        "{PATTERNS} patterns inserted one by one in {:?}",
        started.elapsed()
    );
    matches(&router, "alone")?;

    let stop = Arc::new(AtomicBool::new(false));
    let churn = {
        let (router, stop) = (router.clone(), stop.clone());
        std::thread::spawn(move || {
            let started = Instant::now();
            let mut changes = 0u32;
            while !stop.load(Ordering::Relaxed) {
                let n = PATTERNS + changes % 10_000;
                // Valid patterns: they are made above the same way.
                let _ = router.insert(&pattern(n), n);
                router.remove(&pattern(n), &n);
                changes = changes.wrapping_add(2);
            }
            f64::from(changes) / started.elapsed().as_secs_f64()
        })
    };
    matches(&router, "beside a thread that subscribes and unsubscribes")?;
    stop.store(true, Ordering::Relaxed);
    if let Ok(rate) = churn.join() {
        println!("changes meanwhile: {rate:.0}/s");
    }
    Ok(())
}
