//! When to try again.

use std::time::{Duration, Instant};

use sync_quic::{Dialer, Retry};

use crate::limits;

/// What became of an attempt, for the pause before the next.
pub enum After {
    /// At once: there is something better to do than what was given up.
    Now,
    /// There was a connection, and it is gone.
    Connection,
    /// Nobody answers.
    Silence,
    /// The core can not take this edge now.
    Busy,
    /// Somebody has to do something first.
    Refusal,
}

/// The pauses between attempts. The core says how long they are after it was there; while nobody answers they grow.
pub struct Pauses {
    told: Retry,
    silent_since: Option<Instant>,
}

impl Pauses {
    pub fn new() -> Pauses {
        Pauses {
            told: Retry::default(),
            silent_since: None,
        }
    }

    /// What the core has said last.
    pub fn hear(&mut self, retry: Retry) {
        self.told = retry;
    }

    /// Waits. A new way to the network ends the wait, and so does a core that answers again after it has not.
    pub async fn wait(&mut self, after: After, dialer: &Dialer) {
        let silence = matches!(after, After::Silence);
        let pause = self.pause(after, Instant::now(), rand::random());
        if pause.is_zero() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = dialer.network_changed() => {}
            () = dialer.core_is_back(), if silence => {}
        }
    }

    /// `share`: random, 0 to 1.
    fn pause(&mut self, after: After, now: Instant, share: f64) -> Duration {
        let told = {
            let floor = Duration::from_millis(self.told.floor_ms.into());
            let spread = Duration::from_millis(self.told.spread_ms.into());
            (floor + spread.mul_f64(share)).max(limits::FIRST_RETRY)
        };
        // So that edges that lost the same core do not come back together.
        let spread = |longest: Duration| longest.mul_f64(0.5 + share / 2.0);
        let silent_since = self.silent_since.take();
        match after {
            After::Now => Duration::ZERO,
            After::Connection => told,
            After::Busy => told.max(spread(limits::MIN_RETRY)),
            After::Refusal => told.max(spread(limits::MAX_RETRY)),
            After::Silence => {
                let since = silent_since.unwrap_or(now);
                self.silent_since = Some(since);
                let silent = now.duration_since(since);
                let rarely = spread(if silent < limits::SILENCE_SHORT {
                    limits::MIN_RETRY
                } else if silent < limits::SILENCE_LONG {
                    limits::MAX_RETRY
                } else {
                    limits::RARE_RETRY
                });
                // Of a large fleet, all of which asks the core that was away.
                rarely.max(told)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_says_when_to_come_back() {
        let mut pauses = Pauses::new();
        let now = Instant::now();
        assert_eq!(
            pauses.pause(After::Connection, now, 0.0),
            limits::FIRST_RETRY
        );
        pauses.hear(Retry {
            floor_ms: 3000,
            spread_ms: 40_000,
        });
        assert_eq!(
            pauses.pause(After::Connection, now, 0.5),
            Duration::from_secs(23)
        );
        assert_eq!(pauses.pause(After::Busy, now, 0.0), Duration::from_secs(3));
        assert_eq!(pauses.pause(After::Now, now, 0.5), Duration::ZERO);
    }

    /// Also after an outage that was longer than the time over which they were to come back.
    #[test]
    fn a_fleet_that_met_silence_comes_back_over_the_time_that_the_core_said() {
        let mut pauses = Pauses::new();
        let began = Instant::now();
        let spread_ms = 40_000;
        pauses.hear(Retry {
            floor_ms: 250,
            spread_ms,
        });
        let mut seconds = std::collections::BTreeMap::<u64, u32>::new();
        for edge in 0..10_000 {
            let now = began + Duration::from_secs(60);
            let pause = pauses.pause(After::Silence, now, f64::from(edge) / 10_000.0);
            *seconds.entry(pause.as_secs()).or_default() += 1;
        }
        assert!(seconds.len() >= 40, "{seconds:?}");
        assert!(seconds.values().all(|edges| *edges <= 300), "{seconds:?}");
    }

    #[test]
    fn silence_is_asked_into_less_and_less() {
        let mut pauses = Pauses::new();
        let began = Instant::now();
        for (after, expected) in [
            (0, limits::MIN_RETRY),
            (500, limits::MIN_RETRY),
            (700, limits::MAX_RETRY),
            (4000, limits::RARE_RETRY),
        ] {
            let now = began + Duration::from_secs(after);
            assert_eq!(pauses.pause(After::Silence, now, 1.0), expected, "{after}");
        }
        let now = began + Duration::from_secs(5000);
        pauses.pause(After::Connection, now, 1.0);
        assert_eq!(pauses.pause(After::Silence, now, 1.0), limits::MIN_RETRY);
    }
}
