//! How fast clients may connect and publish. A client that is too fast is read later, nothing of it is dropped; connections above the rate
//! are refused (0x9F).

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// `None` = as fast as they can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// New connections a second, over a listener.
    pub connections: Option<u32>,
    /// PUBLISH packets a second from one client.
    pub messages: Option<u32>,
    /// Bytes a second from one client.
    pub bytes: Option<u64>,
}

/// A bucket that fills at a rate and holds one second's worth. It can be overdrawn: by what was taken before it was known how much it is.
#[derive(Debug)]
pub(crate) struct Bucket {
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
        self.at = now;
    }

    /// Takes so much; gives how long until the bucket is not overdrawn.
    pub fn take(&mut self, amount: u64, now: Instant) -> Duration {
        self.fill(now);
        self.level -= amount as f64;
        Duration::from_secs_f64((-self.level).max(0.0) / self.per_second)
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
}

/// The rates of one client.
#[derive(Debug)]
pub(crate) struct Throttle {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    until: Option<Instant>,
}

impl Throttle {
    /// `None` where nothing is limited.
    pub fn new(rates: &Rates, now: Instant) -> Option<Box<Throttle>> {
        let messages = rates.messages.map(|rate| Bucket::new(rate.into(), now));
        let bytes = rates.bytes.map(|rate| Bucket::new(rate, now));
        let limited = messages.is_some() || bytes.is_some();
        limited.then(|| {
            Box::new(Throttle {
                messages,
                bytes,
                until: None,
            })
        })
    }

    fn wait(&mut self, wait: Duration, now: Instant) {
        if !wait.is_zero() {
            self.until = self.until.max(Some(now + wait));
        }
    }

    pub fn message(&mut self, now: Instant) {
        if let Some(messages) = &mut self.messages {
            let wait = messages.take(1, now);
            self.wait(wait, now);
        }
    }

    pub fn read(&mut self, bytes: usize, now: Instant) {
        if let Some(bucket) = &mut self.bytes {
            let wait = bucket.take(bytes as u64, now);
            self.wait(wait, now);
        }
    }

    /// The end of the last wait, which can be over.
    pub fn held_until(&self) -> Option<Instant> {
        self.until
    }

    /// When the client may be heard again; `None` = now.
    pub fn until(&mut self, now: Instant) -> Option<Instant> {
        self.until = self.until.filter(|until| *until > now);
        self.until
    }
}

/// The rate of new connections.
#[derive(Debug)]
pub(crate) struct ConnectionRate(Option<Mutex<Bucket>>);

impl ConnectionRate {
    pub fn new(rates: &Rates) -> ConnectionRate {
        let bucket = |rate: u32| Mutex::new(Bucket::new(rate.into(), Instant::now()));
        ConnectionRate(rates.connections.map(bucket))
    }

    pub fn admits(&self) -> bool {
        let bucket = self.0.as_ref();
        bucket.is_none_or(|bucket| bucket.lock().try_take(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_too_fast_waits_as_long_as_it_was_ahead() {
        let start = Instant::now();
        let rates = Rates {
            messages: Some(10),
            ..Rates::default()
        };
        let mut throttle = Throttle::new(&rates, start).unwrap();
        for _ in 0..10 {
            throttle.message(start);
        }
        assert_eq!(throttle.until(start), None, "a second's worth at once");
        for _ in 0..5 {
            throttle.message(start);
        }
        let half = start + Duration::from_millis(500);
        assert_eq!(throttle.until(start), Some(half));
        assert_eq!(throttle.until(half), None);
        assert!(Throttle::new(&Rates::default(), start).is_none());
    }
}
