//! Fresh seeds without end: `tests/sim/soak --minutes N`, of the edge's store with `edge`. Stops at the first seed that fails, and says how to run it again; with `--all` it
//! goes on, and tells of each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut minutes = None;
    let (mut all, mut edge, mut failed) = (false, false, 0_u64);
    while let Some(argument) = arguments.next() {
        if argument == "--all" {
            all = true;
            continue;
        }
        if argument == "edge" {
            edge = true;
            continue;
        }
        match (
            argument.as_str(),
            arguments.next().map(|value| value.parse::<f64>()),
        ) {
            ("--minutes", Some(Ok(value))) => minutes = Some(value),
            _ => {
                eprintln!(
                    "soak [edge] [--minutes N] [--all]: runs seeds for N minutes, or until it is stopped; with --all also after a failure"
                );
                return ExitCode::from(2);
            }
        }
    }
    let limit = minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    let first = u64::from(rand::random::<u32>()) << 20;
    let begun = Instant::now();
    let mut told = begun;
    let mut seed = first;
    let mut cuts = 0;
    let test = if edge { "edge" } else { "seeds" };
    while limit.is_none_or(|limit| begun.elapsed() < limit) {
        let run = || {
            if edge {
                sim::edge::run(seed, false).map(|summary| summary.cuts)
            } else {
                sim::run(seed, false).map(|_| 0)
            }
        };
        let wrong = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(of_seed)) => {
                cuts += of_seed;
                None
            }
            Ok(Err(why)) => Some(why),
            Err(_) => Some("it panicked".to_owned()),
        };
        if let Some(why) = wrong {
            println!(
                "seed {seed}: {why}\n  again, with every step: SIM_TRACE=1 SIM_SEED={seed} cargo test -p sim --test {test} -- --nocapture"
            );
            failed += 1;
            if !all {
                return ExitCode::FAILURE;
            }
        }
        seed += 1;
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            println!(
                "{:6.0} s, {} seeds, {failed} failed (the first was {first})",
                begun.elapsed().as_secs_f64(),
                seed - first
            );
        }
    }
    println!("{} seeds from {first}, {failed} failed", seed - first);
    if edge {
        println!("{cuts} power cuts");
    }
    if failed > 0 {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
