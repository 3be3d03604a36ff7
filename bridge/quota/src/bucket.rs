use std::time::Duration;

use tokio::time::Instant;

/// A bucket that fills at a rate and holds one second's worth. It can be overdrawn: by what was taken before it was known how much it is.
#[derive(Debug)]
pub struct Bucket {
    per_second: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    pub fn new(per_second: u64, now: Instant) -> Bucket {
        let per_second = (per_second as f64).max(1.0);
        Bucket {
            per_second,
            level: per_second,
            at: now,
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * self.per_second).min(self.per_second);
        self.at = self.at.max(now);
    }

    /// Takes so much; gives how long until the bucket is not overdrawn.
    pub fn take(&mut self, amount: u64, now: Instant) -> Duration {
        self.fill(now);
        self.level -= amount as f64;
        Duration::try_from_secs_f64((-self.level).max(0.0) / self.per_second)
            .unwrap_or(Duration::MAX)
    }

    /// Takes one, if there is one.
    pub fn try_take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let there = self.level >= 1.0;
        if there {
            self.level -= 1.0;
        }
        there
    }

    /// Nothing was taken, or it is made up for.
    pub fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.level >= self.per_second
    }
}
