//! Waiting a moment for those who were just answered. Producers that wait for their answers come in turns otherwise: while one half of them
//! is written the other half arrives, and each sync is for half of them. The next group waits until as many have arrived as were answered,
//! never for longer than a part of what the last write took, and not at all for one producer alone.

use std::thread;

use super::intake::Intake;
use crate::limits::{GATHER_MAX_BYTES, GATHER_MAX_SKIPS, GATHER_MAX_US};
use crate::ports::Clock;

/// The last group, once it is answered.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Answered {
    pub entries: usize,
    /// Bytes of its frames.
    pub bytes: u64,
    /// How long its write and sync took, in microseconds.
    pub took_us: u64,
    /// What [`Intake::arrivals`] said before it was answered.
    pub arrivals: u64,
}

/// Whether waiting is worth it.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    /// Groups after which not to wait, because waiting was in vain.
    skip: u32,
    /// How many they were the last time.
    skipped: u32,
}

impl Gather {
    /// The number of arrivals to wait for, and for how long at most (µs); `None` for not at all.
    fn wish(&mut self, last: &Answered) -> Option<(u64, u64)> {
        // What is large is bound by the bandwidth of the device, and larger groups do not make it faster.
        if last.entries < 2 || last.bytes > GATHER_MAX_BYTES {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        let longest = (last.took_us / 2).min(GATHER_MAX_US);
        Some((last.arrivals + last.entries as u64, longest))
    }

    /// Learns from what came.
    fn learn(&mut self, last: &Answered, arrivals: u64) {
        let came = arrivals.saturating_sub(last.arrivals);
        if came.saturating_mul(2) >= last.entries as u64 {
            self.skipped = 0;
        } else {
            self.skipped = (self.skipped * 2).clamp(1, GATHER_MAX_SKIPS);
            self.skip = self.skipped;
        }
    }

    /// Waits, if that is worth it. It gives way to whoever wants the core meanwhile: on one core those that are waited for run then.
    pub fn wait(&mut self, last: &Answered, intake: &Intake, clock: &dyn Clock) {
        let Some((wanted, longest)) = self.wish(last) else {
            return;
        };
        let until = clock.monotonic_us().saturating_add(longest);
        while intake.arrivals() < wanted && clock.monotonic_us() < until {
            thread::yield_now();
        }
        self.learn(last, intake.arrivals());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(entries: usize) -> Answered {
        Answered {
            entries,
            bytes: 1000,
            took_us: 100,
            arrivals: 7,
        }
    }

    #[test]
    fn waits_for_as_many_as_were_answered_and_not_for_long() {
        let wish = |last: Answered| Gather::default().wish(&last);
        assert_eq!(wish(answered(0)), None);
        assert_eq!(wish(answered(1)), None, "one producer never waits");
        assert_eq!(wish(answered(2)), Some((9, 50)));
        let slow = Answered {
            took_us: 1_000_000,
            ..answered(2)
        };
        assert_eq!(wish(slow), Some((9, GATHER_MAX_US)));
        let large = Answered {
            bytes: GATHER_MAX_BYTES + 1,
            ..answered(2)
        };
        assert_eq!(wish(large), None);
    }

    #[test]
    fn waiting_in_vain_is_done_ever_less_until_it_helps() {
        let mut gather = Gather::default();
        let last = answered(4);
        let mut waited = 0;
        for _ in 0..1000 {
            if gather.wish(&last).is_some() {
                waited += 1;
                gather.learn(&last, last.arrivals + 1);
            }
        }
        assert!(waited < 30, "{waited} of 1000");
        while gather.wish(&last).is_none() {}
        gather.learn(&last, last.arrivals + 2);
        assert!((0..10).all(|_| gather.wish(&last).is_some()));
    }
}
