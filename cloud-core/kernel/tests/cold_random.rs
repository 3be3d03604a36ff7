//! Random work with a cold store that fails, loses answers and damages nothing, and power cuts at random operations, beside a plain model.
//! `KERNEL_SEED=n` runs one seed.

#[path = "support/faulty_cold.rs"]
mod faulty_cold;

use std::pin::pin;
use std::sync::Arc;

use faulty_cold::FaultyCold;
use kernel::{Kernel, KernelConfig, PartitionId, Ports, SequenceRule, Stepper, StreamSpec};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sim::batches::{address, batch, values};
use sim::clock::SimClock;
use sim::disk::SimDisk;
use sim::spawner::SimSpawner;
use sim::stepped::{self, drive, poll};

const PARTITIONS: u32 = 3;

/// A log as it must be.
#[derive(Debug, Clone, Default)]
struct Log {
    start: usize,
    values: Vec<String>,
    /// Handed over when the power went: there or not.
    unsure: Option<String>,
    /// A trim that was under way when the power went.
    unsure_start: usize,
}

struct Run {
    rng: StdRng,
    seed: u64,
    disk: SimDisk,
    clock: SimClock,
    cold: FaultyCold,
    kernel: Kernel,
    stepper: Stepper,
    partitions: Vec<PartitionId>,
    logs: Vec<Log>,
    next: usize,
}

fn open(disk: &SimDisk, clock: &SimClock, cold: &FaultyCold) -> (Kernel, Stepper) {
    let ports = Ports {
        disk: Arc::new(disk.clone()),
        clock: Arc::new(clock.clone()),
        cold: Arc::new(cold.clone()),
        spawner: Arc::new(SimSpawner::default()),
    };
    let config = KernelConfig {
        segment_bytes: 6000,
        seal_age_ms: 120_000,
        orphan_grace_ms: 600_000,
        ..stepped::config()
    };
    Kernel::open_stepped(ports, config).expect("it opens after any power cut")
}

impl Run {
    fn new(seed: u64) -> Run {
        let (disk, clock) = (SimDisk::default(), SimClock::default());
        let cold = FaultyCold::default();
        let (kernel, mut stepper) = open(&disk, &clock, &cold);
        let spec = StreamSpec {
            partitions: PARTITIONS,
            ..StreamSpec::default()
        };
        let stream = drive(&mut stepper, kernel.create_stream(&address("s"), spec)).unwrap();
        Run {
            rng: StdRng::seed_from_u64(seed),
            seed,
            disk,
            clock,
            cold,
            kernel,
            stepper,
            partitions: stream.partition_ids().collect(),
            logs: vec![Log::default(); PARTITIONS as usize],
            next: 0,
        }
    }

    /// Drives until it is done, or the power is off.
    fn work<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        for _ in 0..1000 {
            if let Some(output) = poll(future.as_mut()) {
                return Some(output);
            }
            if self.disk.is_off() {
                return None;
            }
            self.stepper.step();
        }
        panic!("it never ends, KERNEL_SEED={}", self.seed);
    }

    fn step(&mut self) {
        let which = self.rng.random_range(0..PARTITIONS as usize);
        let partition = self.partitions[which];
        let kernel = self.kernel.clone();
        match self.rng.random_range(0..20) {
            0..10 => {
                for _ in 0..self.rng.random_range(1..6) {
                    self.next += 1;
                    let value = format!("{} {}", self.next, "z".repeat(self.next * 37 % 400));
                    let append = kernel.append(partition, batch(&[&value]), SequenceRule::None);
                    match self.work(append) {
                        Some(Ok(_)) => self.logs[which].values.push(value),
                        // The power went, before or after it was durable.
                        _ => {
                            self.logs[which].unsure = Some(value);
                            break;
                        }
                    }
                }
            }
            10..13 => drop(self.work(kernel.seal_all())),
            13..15 => drop(self.work(async { while kernel.seal().await == Ok(true) {} })),
            15 => drop(self.work(kernel.tend_cold())),
            16 => drop(self.work(kernel.maintain())),
            17 => {
                let log = &self.logs[which];
                let to = self.rng.random_range(log.start..=log.values.len());
                match self.work(kernel.trim(partition, to as i64)) {
                    Some(Ok(_)) => self.logs[which].start = to,
                    _ => self.logs[which].unsure_start = to,
                }
            }
            18 => self.clock.advance(self.rng.random_range(0..90_000_000)),
            _ => drop(self.work(kernel.rewrite())),
        }
    }

    /// Another life of the process.
    fn reopen(&mut self) {
        let seed = self.rng.random();
        self.disk = if self.disk.is_off() || self.rng.random_bool(0.5) {
            self.disk.after_crash(seed)
        } else {
            self.disk.after_kill(seed)
        };
        (self.kernel, self.stepper) = open(&self.disk, &self.clock, &self.cold);
    }

    fn check(&mut self, when: &str) {
        let kernel = self.kernel.clone();
        for (which, partition) in self.partitions.clone().into_iter().enumerate() {
            let marks = kernel.watermarks(partition).unwrap();
            let found = drive(
                &mut self.stepper,
                values(&kernel, partition, marks.log_start),
            );
            let log = &mut self.logs[which];
            let start = usize::try_from(marks.log_start).unwrap();
            assert!(
                start == log.start || start == log.unsure_start.max(log.start),
                "{when}: begins at {start}, KERNEL_SEED={}",
                self.seed
            );
            log.start = start;
            log.unsure_start = 0;
            if log.values.len() < usize::try_from(marks.end).unwrap() {
                log.values.extend(log.unsure.take());
            }
            log.unsure = None;
            assert_eq!(
                found,
                log.values[start..],
                "{when}: {partition}, KERNEL_SEED={}",
                self.seed
            );
        }
    }
}

#[test]
fn nothing_is_lost_whatever_fails() {
    let seeds = match std::env::var("KERNEL_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("KERNEL_SEED is a number");
            seed..seed + 1
        }
        Err(_) => {
            let first = u64::from(rand::random::<u32>());
            first..first + 60
        }
    };
    println!("KERNEL_SEED={}", seeds.start);
    let mut sealed = 0;
    for seed in seeds {
        let mut run = Run::new(seed);
        for step in 0..80 {
            match run.rng.random_range(0..8) {
                0 => run.disk.crash_after(run.rng.random_range(0..40)),
                1 => {
                    let (after, times) = (run.rng.random_range(0..6), run.rng.random_range(1..4));
                    run.cold.fail_after(after, times);
                    run.cold.lose_answers(run.rng.random_bool(0.5));
                }
                2 => run.cold.heal(),
                _ => {}
            }
            run.step();
            if run.disk.is_off() || run.rng.random_bool(0.02) {
                run.cold.heal();
                run.reopen();
                run.check(&format!("step {step}, after a crash"));
            } else if run.rng.random_bool(0.2) {
                run.disk.never_crash();
                run.cold.heal();
                run.check(&format!("step {step}"));
            }
        }
        run.disk.never_crash();
        run.cold.heal();
        run.check("at the end");
        let kernel = run.kernel.clone();
        run.work(kernel.seal_all()).unwrap().unwrap();
        // What was interrupted, and trimmed since, leaves nothing to seal; the timer goes on with it.
        let more = run.work(kernel.seal()).unwrap();
        assert_eq!(more, Ok(false), "seed {seed}");
        run.check("all sealed");
        // Segments without a name and dead ones go, the others stay.
        for _ in 0..3 {
            run.clock.advance(3_600_000_000);
            run.work(kernel.tend_cold()).unwrap().unwrap();
        }
        let stats = run.kernel.stats();
        assert_eq!(
            run.cold.segments().len() as u64,
            stats.segments,
            "seed {seed}"
        );
        assert_eq!(stats.unsealed_bytes, 0, "seed {seed}");
        sealed += stats.segments;
        run.reopen();
        run.check("after all");
    }
    assert!(sealed > 0);
}
