//! When edges come back: the more of them there are, the longer the time over which they are spread.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use sync_quic::Retry;

use crate::limits;

/// Counts what is connected, and says when to come back. From counts alone: no clock.
#[derive(Default)]
pub(crate) struct Pacing {
    connected: AtomicUsize,
    /// Hellos between their arrival and their answer.
    waiting: AtomicUsize,
    /// The spread that everybody who is connected has been told at least.
    told_ms: AtomicU32,
}

/// Counted as long as it is kept.
pub(crate) struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn count(counter: &AtomicUsize, limit: usize) -> Option<Counted<'_>> {
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
            (n < limit).then_some(n + 1)
        })
        .ok()
        .map(|_| Counted(counter))
}

impl Pacing {
    /// Takes a place for a hello that is to be answered; `None`: too many wait already.
    pub(crate) fn hello(&self) -> Option<Counted<'_>> {
        count(&self.waiting, limits::MAX_HELLOS_WAITING)
    }

    /// Takes a place for a connection; `None`: the core is full.
    pub(crate) fn connection(&self) -> Option<Counted<'_>> {
        count(&self.connected, limits::MAX_CONNECTIONS)
    }

    /// When an edge that is connected now is to come back, so that all of them together are no more than
    /// [`limits::RECONNECTS_PER_SECOND`].
    pub(crate) fn retry(&self) -> Retry {
        Retry {
            floor_ms: limits::RETRY_FLOOR_MS,
            spread_ms: spread_ms(self.connected.load(Ordering::Relaxed)),
        }
    }

    /// When an edge is to come back that could not be let in now: a fleet is at the door, of which only a part is known.
    pub(crate) fn retry_refused(&self) -> Retry {
        let connected = self.connected.load(Ordering::Relaxed);
        let waiting = self.waiting.load(Ordering::Relaxed);
        Retry {
            floor_ms: limits::RETRY_FLOOR_MS * 4,
            // As many again as there are, or twice as many as wait.
            spread_ms: spread_ms(connected.max(2 * waiting)).max(limits::REFUSED_SPREAD_MS),
        }
    }

    /// What everybody is to be told now, when what they were told has become far too short.
    pub(crate) fn news(&self) -> Option<Retry> {
        let retry = self.retry();
        let told = self.told_ms.load(Ordering::Relaxed);
        let due = retry.spread_ms >= told.saturating_mul(2).max(limits::RETRY_SPREAD_MS * 2);
        let mine = due
            && self
                .told_ms
                .compare_exchange(told, retry.spread_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        mine.then_some(retry)
    }
}

fn spread_ms(edges: usize) -> u32 {
    let spread = edges as u64 * 1000 / limits::RECONNECTS_PER_SECOND;
    u32::try_from(spread)
        .unwrap_or(u32::MAX)
        .clamp(limits::RETRY_SPREAD_MS, limits::MAX_RETRY_SPREAD_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10,000 edges that lose the core together: how many come back in the worst second, with what each was told last.
    #[test]
    fn a_fleet_comes_back_over_time() {
        let pacing = Pacing::default();
        let mut places = Vec::new();
        let mut told: Vec<Retry> = Vec::new();
        for _ in 0..10_000 {
            places.push(pacing.connection().unwrap());
            told.push(pacing.retry());
            if let Some(retry) = pacing.news() {
                told.fill(retry);
            }
        }
        let mut seconds = std::collections::BTreeMap::<u32, u64>::new();
        let mut chance = 0x2545_f491_4f6c_dd1d_u64;
        for retry in &told {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            let at = retry.floor_ms + (chance % u64::from(retry.spread_ms)) as u32;
            *seconds.entry(at / 1000).or_default() += 1;
        }
        let worst = seconds.values().max().unwrap();
        assert!(
            *worst <= 3 * limits::RECONNECTS_PER_SECOND,
            "{worst}: {seconds:?}"
        );
        drop(places);
        assert_eq!(pacing.retry().spread_ms, limits::RETRY_SPREAD_MS);
    }

    #[test]
    fn a_stampede_is_bounded() {
        let pacing = Pacing::default();
        let hellos: Vec<_> = std::iter::from_fn(|| pacing.hello()).collect();
        assert_eq!(hellos.len(), limits::MAX_HELLOS_WAITING);
        assert!(pacing.retry_refused().spread_ms >= limits::REFUSED_SPREAD_MS);
        drop(hellos);
        assert!(pacing.hello().is_some());
    }
}
