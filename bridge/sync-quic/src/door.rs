//! How many clients may begin: so many handshakes at a time and in a second, so many that wait for that, and no more. Cryptography is what a fleet
//! that comes at once would take from the edges that are served.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How much of a core may go into handshakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshakes {
    /// Most that are in progress.
    pub at_once: usize,
    /// Most in a second that begin, once [`Handshakes::burst`] of them have.
    pub per_second: u32,
    pub burst: u32,
    /// Most that wait to begin; others are sent away.
    pub waiting: usize,
    /// Who has waited for longer is sent away: it may not be there any more. Less than a client waits for the next word (`ALONE` in `signs`).
    pub patience: Duration,
}

impl Default for Handshakes {
    fn default() -> Handshakes {
        Handshakes {
            at_once: 512,
            // Twice as many as the core invites: `RECONNECTS_PER_SECOND` of cloud-sync.
            per_second: 500,
            burst: 100,
            // What begins in a second.
            waiting: 512,
            patience: Duration::from_secs(2),
        }
    }
}

impl Handshakes {
    /// What one takes of a second.
    fn share(&self) -> Duration {
        Duration::from_secs(1) / self.per_second.max(1)
    }

    /// What may be taken ahead.
    fn credit(&self) -> Duration {
        self.share() * self.burst.max(1)
    }
}

/// What goes on at a [`crate::Listener`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AtTheDoor {
    pub in_progress: usize,
    pub waiting: usize,
    /// The most that were ever in progress.
    pub most: usize,
    /// Handshakes that were begun.
    pub begun: u64,
    /// Clients that were sent away, since too many waited or they did for too long.
    pub refused: u64,
}

struct State<T> {
    waiting: VecDeque<(Instant, T)>,
    /// When as much has begun as may: each takes its share of a second.
    paid_until: Instant,
    seen: AtTheDoor,
}

pub(crate) struct Door<T> {
    limits: Handshakes,
    state: Mutex<State<T>>,
    changed: Notify,
}

/// A handshake in progress, as long as it is kept.
pub(crate) struct Inside<T>(Arc<Door<T>>);

impl<T> Drop for Inside<T> {
    fn drop(&mut self) {
        self.0.state().seen.in_progress -= 1;
        self.0.changed.notify_one();
    }
}

/// Who is next.
enum Next<T> {
    Now(T),
    /// Waited for too long.
    Stale(T),
    /// Somebody, then.
    At(Instant),
    /// Somebody when one inside is done, or when somebody comes.
    Later,
}

impl<T> Door<T> {
    pub(crate) fn new(limits: Handshakes) -> Arc<Door<T>> {
        let state = State {
            waiting: VecDeque::new(),
            paid_until: Instant::now(),
            seen: AtTheDoor::default(),
        };
        Arc::new(Door {
            limits,
            state: Mutex::new(state),
            changed: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn seen(&self) -> AtTheDoor {
        let state = self.state();
        AtTheDoor {
            waiting: state.waiting.len(),
            ..state.seen
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.state().waiting.len() >= self.limits.waiting
    }

    /// Whether one that comes now can not begin at once.
    pub(crate) fn is_to_wait(&self) -> bool {
        let now = Instant::now();
        let share = self.limits.share();
        let state = self.state();
        let before = state.waiting.len();
        let paid_until = state.paid_until.max(now) + share * (before as u32 + 1);
        state.seen.in_progress + before >= self.limits.at_once
            || paid_until > now + self.limits.credit()
    }

    /// Lets one wait; it comes back where too many do.
    pub(crate) fn wait(&self, client: T) -> Result<(), T> {
        let mut state = self.state();
        if state.waiting.len() >= self.limits.waiting {
            state.seen.refused += 1;
            return Err(client);
        }
        state.waiting.push_back((Instant::now(), client));
        self.changed.notify_one();
        Ok(())
    }

    /// The next that may begin; `send_away` gets those who have waited for too long. Cancel-safe.
    pub(crate) async fn next(self: &Arc<Self>, send_away: impl Fn(T)) -> (T, Inside<T>) {
        loop {
            let changed = self.changed.notified();
            match self.take(Instant::now()) {
                Next::Now(client) => return (client, Inside(self.clone())),
                Next::Stale(client) => send_away(client),
                Next::At(at) => tokio::time::sleep_until(at).await,
                Next::Later => changed.await,
            }
        }
    }

    fn take(&self, now: Instant) -> Next<T> {
        let mut state = self.state();
        let Some((since, _)) = state.waiting.front() else {
            return Next::Later;
        };
        if now.duration_since(*since) > self.limits.patience {
            state.seen.refused += 1;
            let stale = state.waiting.pop_front();
            return stale.map_or(Next::Later, |(_, client)| Next::Stale(client));
        }
        if state.seen.in_progress >= self.limits.at_once {
            return Next::Later;
        }
        let paid_until = state.paid_until.max(now) + self.limits.share();
        let credit = self.limits.credit();
        if paid_until > now + credit {
            return Next::At(paid_until - credit);
        }
        state.paid_until = paid_until;
        state.seen.in_progress += 1;
        state.seen.most = state.seen.most.max(state.seen.in_progress);
        state.seen.begun += 1;
        let next = state.waiting.pop_front();
        next.map_or(Next::Later, |(_, client)| Next::Now(client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Handshakes = Handshakes {
        at_once: 20,
        per_second: 10,
        burst: 5,
        waiting: 8,
        patience: Duration::from_secs(2),
    };

    fn door(limits: Handshakes) -> Arc<Door<u32>> {
        Door::new(limits)
    }

    fn nobody(client: u32) {
        panic!("{client} has not waited for long");
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_begins_at_once_and_others_at_the_rate_in_their_order() {
        let door = door(LIMITS);
        for client in 0..8 {
            assert_eq!(door.is_to_wait(), client >= 5, "{client}");
            door.wait(client).unwrap();
        }
        assert_eq!(door.wait(8), Err(8), "too many wait");
        let began = Instant::now();
        let mut inside = Vec::new();
        for client in 0..8 {
            let (next, place) = door.next(nobody).await;
            assert_eq!(next, client);
            inside.push(place);
            let least = 100 * u128::from(client.saturating_sub(4));
            let after = began.elapsed().as_millis();
            assert!((least..least + 20).contains(&after), "{client}: {after}");
        }
        let seen = door.seen();
        assert_eq!((seen.in_progress, seen.most, seen.waiting), (8, 8, 0));
        assert_eq!((seen.begun, seen.refused), (8, 1));
        drop(inside);
        assert_eq!(door.seen().in_progress, 0);
        assert!(door.is_to_wait(), "all that may begin have");
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!door.is_to_wait());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_inside_than_may_be() {
        let limits = Handshakes {
            at_once: 2,
            per_second: 1000,
            ..LIMITS
        };
        let door = door(limits);
        for client in 0..4 {
            door.wait(client).unwrap();
        }
        let (_, first) = door.next(nobody).await;
        let (_, _second) = door.next(nobody).await;
        assert!(door.is_to_wait());
        let third = tokio::time::timeout(Duration::from_secs(1), door.next(nobody));
        assert!(third.await.is_err());
        drop(first);
        let (third, _place) = door.next(nobody).await;
        assert_eq!(third, 2, "the one that was waited for in vain is not lost");
        assert_eq!(door.seen().most, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_waited_for_too_long_is_sent_away() {
        let limits = Handshakes {
            at_once: 1,
            ..LIMITS
        };
        let door = door(limits);
        door.wait(0).unwrap();
        let (_, place) = door.next(nobody).await;
        door.wait(1).unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        door.wait(2).unwrap();
        drop(place);
        let away = Mutex::new(Vec::new());
        let (next, _place) = door.next(|client| away.lock().unwrap().push(client)).await;
        assert_eq!(next, 2);
        assert_eq!(*away.lock().unwrap(), [1]);
        assert_eq!(door.seen().refused, 1);
    }
}
