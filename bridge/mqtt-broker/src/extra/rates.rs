//! How fast clients may connect and publish. A client that is too fast is read later, nothing of it is dropped; connections above the rate
//! are refused (0x9F).

use parking_lot::Mutex;
use quota::{Bucket, Share};
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

/// The rates of one client, and its share of the quotas.
#[derive(Debug)]
pub(crate) struct Throttle {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    share: Share,
    until: Option<Instant>,
}

impl Throttle {
    /// `None` where nothing is limited.
    pub fn new(rates: &Rates, mut share: Share, now: Instant) -> Option<Box<Throttle>> {
        let messages = rates.messages.map(|rate| Bucket::new(rate.into(), now));
        let bytes = rates.bytes.map(|rate| Bucket::new(rate, now));
        let limited = messages.is_some() || bytes.is_some() || !share.is_free();
        limited.then(|| {
            Box::new(Throttle {
                messages,
                bytes,
                // What its account owed when it came, and what its CONNECT made more.
                until: share.until(now),
                share,
            })
        })
    }

    fn wait(&mut self, wait: Duration, now: Instant) {
        if !wait.is_zero() {
            self.until = self.until.max(now.checked_add(wait));
        }
    }

    pub fn message(&mut self, now: Instant) {
        if let Some(messages) = &mut self.messages {
            let wait = messages.take(1, now);
            self.wait(wait, now);
        }
        let wait = self.share.take(1, 0, now);
        self.wait(wait, now);
    }

    pub fn read(&mut self, bytes: usize, now: Instant) {
        if let Some(bucket) = &mut self.bytes {
            let wait = bucket.take(bytes as u64, now);
            self.wait(wait, now);
        }
        let wait = self.share.take(0, bytes as u64, now);
        self.wait(wait, now);
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
        let mut throttle = Throttle::new(&rates, Share::default(), start).unwrap();
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
        assert!(Throttle::new(&Rates::default(), Share::default(), start).is_none());
    }
}
