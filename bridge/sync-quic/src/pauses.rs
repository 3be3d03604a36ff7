//! When to try again.

use std::time::{Duration, Instant};

use sync::Retry;

use crate::Dialer;

/// Shortest pause before the first attempt after a connection that stood.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// Pauses between attempts while nobody answers: this long for the first `SILENCE_SHORT` ...
const MIN_RETRY: Duration = Duration::from_secs(1);
const SILENCE_SHORT: Duration = Duration::from_secs(10 * 60);
/// ... then this long up to `SILENCE_LONG`. Also where somebody has to do something first ...
const MAX_RETRY: Duration = Duration::from_secs(30);
const SILENCE_LONG: Duration = Duration::from_secs(3600);
/// ... and from then on: what a metered link can afford.
const RARE_RETRY: Duration = Duration::from_secs(180);

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

/// An edge's pauses between attempts. The core says how long they are after it was there; while nobody answers they grow.
#[derive(Default)]
pub struct Pauses {
    told: Retry,
    silent_since: Option<Instant>,
    /// How often in a row the core could not take this edge.
    busy: u32,
}

impl Pauses {
    /// What the core has said last.
    pub fn hear(&mut self, retry: Retry) {
        self.told = retry;
    }

    /// How long to wait, where nothing else ends that.
    pub fn next(&mut self, after: After) -> Duration {
        self.pause(after, Instant::now(), rand::random())
    }

    /// Waits. A new way to the network ends the wait, and so does a core that answers again after it has not.
    pub async fn wait(&mut self, after: After, dialer: &Dialer) {
        let silence = matches!(after, After::Silence);
        let pause = self.next(after);
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
            (floor + spread.mul_f64(share)).max(FIRST_RETRY)
        };
        // So that edges that lost the same core do not come back together.
        let spread = |longest: Duration| longest.mul_f64(0.5 + share / 2.0);
        let silent_since = self.silent_since.take();
        let busy = std::mem::take(&mut self.busy);
        match after {
            After::Now => Duration::ZERO,
            After::Connection => told,
            After::Busy => {
                self.busy = busy.saturating_add(1);
                // A fleet that nobody has told anything yet, as after its first start.
                let longer = MIN_RETRY.saturating_mul(2_u32.saturating_pow(busy));
                told.max(spread(longer.min(MAX_RETRY)))
            }
            After::Refusal => told.max(spread(MAX_RETRY)),
            After::Silence => {
                let since = silent_since.unwrap_or(now);
                self.silent_since = Some(since);
                let silent = now.duration_since(since);
                let rarely = spread(if silent < SILENCE_SHORT {
                    MIN_RETRY
                } else if silent < SILENCE_LONG {
                    MAX_RETRY
                } else {
                    RARE_RETRY
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
        let mut pauses = Pauses::default();
        let now = Instant::now();
        assert_eq!(pauses.pause(After::Connection, now, 0.0), FIRST_RETRY);
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

    #[test]
    fn a_core_that_stays_busy_is_asked_less_and_less() {
        let mut pauses = Pauses::default();
        let now = Instant::now();
        let mut seconds = |after| pauses.pause(after, now, 1.0).as_secs();
        let asked: Vec<u64> = (0..7).map(|_| seconds(After::Busy)).collect();
        assert_eq!(asked, [1, 2, 4, 8, 16, 30, 30]);
        seconds(After::Connection);
        assert_eq!(seconds(After::Busy), 1);
    }

    /// Also after an outage that was longer than the time over which they were to come back.
    #[test]
    fn a_fleet_that_met_silence_comes_back_over_the_time_that_the_core_said() {
        let mut pauses = Pauses::default();
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
        let mut pauses = Pauses::default();
        let began = Instant::now();
        for (after, expected) in [
            (0, MIN_RETRY),
            (500, MIN_RETRY),
            (700, MAX_RETRY),
            (4000, RARE_RETRY),
        ] {
            let now = began + Duration::from_secs(after);
            assert_eq!(pauses.pause(After::Silence, now, 1.0), expected, "{after}");
        }
        let now = began + Duration::from_secs(5000);
        pauses.pause(After::Connection, now, 1.0);
        assert_eq!(pauses.pause(After::Silence, now, 1.0), MIN_RETRY);
    }
}
