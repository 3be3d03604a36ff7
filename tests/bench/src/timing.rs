//! Clocks and distributions.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

/// A distribution of times, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
    pub count: u64,
}

/// Collects times. 3 digits, in nanoseconds.
#[derive(Debug, Clone)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        // Any 1 to 5 is allowed.
        Times(Histogram::new(3).unwrap_or_else(|_| unreachable!()))
    }
}

impl Times {
    pub fn add(&mut self, time: Duration) {
        self.0 += u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    }

    pub fn merge(&mut self, other: &Times) {
        self.0 += &other.0;
    }

    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(percent / 100.0))
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    pub fn latency(&self) -> Latency {
        let us = |percent| self.percentile(percent).as_secs_f64() * 1e6;
        Latency {
            p50_us: us(50.0),
            p99_us: us(99.0),
            p999_us: us(99.9),
            max_us: self.0.max() as f64 / 1e3,
            count: self.count(),
        }
    }
}

/// The middle one; NaN for none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Megabytes (10^6) a second.
pub fn mb_per_s(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

/// Time on all cores that this process has used.
pub fn cpu_time() -> Duration {
    let spec = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(spec.tv_sec).unwrap_or(0),
        u32::try_from(spec.tv_nsec).unwrap_or(0),
    )
}

/// Runs it and says how long it took.
pub fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = run();
    (result, start.elapsed())
}
