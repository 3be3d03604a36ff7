use std::time::Duration;

use tokio::time::Instant;

use crate::limits;

/// A bucket that fills at a rate and holds one second's worth. It can be overdrawn, up to [`limits::MAX_DEBT`]: by what was taken before it was
/// known how much it is.
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
        let most_owed = self.per_second * limits::MAX_DEBT.as_secs_f64();
        self.level = (self.level - amount as f64).max(-most_owed);
        self.owed()
    }

    /// How long until it is not overdrawn.
    pub fn owes(&mut self, now: Instant) -> Duration {
        self.fill(now);
        self.owed()
    }

    fn owed(&self) -> Duration {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_owes_more_than_is_made_up_for_in_an_hour() {
        let now = Instant::now();
        let mut bucket = Bucket::new(10, now);
        assert_eq!(bucket.take(15, now), Duration::from_millis(500));
        assert_eq!(bucket.take(u64::MAX, now), limits::MAX_DEBT);
        assert_eq!(bucket.take(u64::MAX, now), limits::MAX_DEBT);
        assert_eq!(
            bucket.owes(now + limits::MAX_DEBT / 2),
            limits::MAX_DEBT / 2
        );
        assert!(bucket.is_full(now + limits::MAX_DEBT + Duration::from_secs(2)));
    }
}
