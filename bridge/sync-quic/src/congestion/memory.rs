//! What one connection leaves to the next over the same link.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Of what the link held before, so much is sent in the first round on which it looks like the same link (a half, as in
/// draft-ietf-tsvwg-careful-resume).
const RESUMED: f64 = 0.5;
/// It looks so where the first round trips are at most so many times as long as they were, or as short.
const ALIKE: u32 = 2;

/// What was found out about the link, for the next connection over it: who comes back after an outage has much to send, and from 20
/// packets on takes four round trips to send a batch of 256 KiB. Cheap to clone; the copies share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Remembered>>);

#[derive(Debug, Default)]
pub(super) struct Remembered {
    pub(super) known: Option<Known>,
    /// As it was when the last connection began.
    rtt: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Known {
    /// What the link holds, in bytes, with the round trip that it had.
    pub(super) held: f64,
    pub(super) rtt: Duration,
}

impl Memory {
    pub(super) fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_rtt(&self, rtt: Duration) {
        self.remembered().rtt = Some(rtt);
    }

    /// The round trip of the link, as far as anything is known of it.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.remembered().rtt
    }

    /// `at_least`: the link may hold more than this.
    pub(super) fn note(&self, now: Known, at_least: bool) {
        let known = &mut self.remembered().known;
        if !at_least || known.is_none_or(|known| known.held < now.held) {
            *known = Some(now);
        }
    }

    /// What may be sent over a link with this round trip, as far as it is the one that is known.
    pub(super) fn window(&self, rtt: Duration) -> Option<u64> {
        let known = self.remembered().known?;
        let is_alike = rtt <= known.rtt * ALIKE && known.rtt <= rtt * ALIKE;
        is_alike.then_some((known.held * RESUMED) as u64)
    }

    pub(super) fn forget(&self) {
        self.remembered().known = None;
    }
}
