//! How often one may be wrong.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Instant;

use parking_lot::Mutex;

use crate::limits;

#[derive(Clone)]
struct Count {
    wrong: u32,
    /// Being looked at now: each may turn out to be wrong.
    trying: u32,
    /// When it was wrong last, or else when it was first tried.
    last: Instant,
    /// Its place in the order of these times.
    turn: u64,
}

/// What is counted by one kind of key.
struct Counted<K> {
    limit: u32,
    of: HashMap<K, Count>,
    /// By time: the oldest is forgotten first, without looking for it.
    order: BTreeMap<u64, K>,
    turns: u64,
}

fn is_over(last: Instant, now: Instant) -> bool {
    now.saturating_duration_since(last) >= limits::PAUSE
}

impl<K: Clone + Eq + Hash> Counted<K> {
    fn new(limit: u32) -> Counted<K> {
        Counted {
            limit,
            of: HashMap::new(),
            order: BTreeMap::new(),
            turns: 0,
        }
    }

    fn may_try(&self, key: &K, now: Instant) -> bool {
        self.of.get(key).is_none_or(|count| {
            let wrong = if is_over(count.last, now) {
                0
            } else {
                count.wrong
            };
            wrong.saturating_add(count.trying) < self.limit
        })
    }

    fn begin(&mut self, key: &K, now: Instant) {
        match self.of.get_mut(key) {
            Some(count) => count.trying += 1,
            None => self.put(key, 0, 1, now),
        }
    }

    fn give_back(&mut self, key: &K) {
        if let Some(count) = self.of.get_mut(key) {
            count.trying = count.trying.saturating_sub(1);
            if count.trying == 0 && count.wrong == 0 {
                self.remove(key);
            }
        }
    }

    fn failed(&mut self, key: &K, now: Instant) {
        let before = self.remove(key);
        let trying = before.as_ref().map_or(0, |one| one.trying);
        let wrong = before.filter(|one| !is_over(one.last, now));
        let wrong = wrong.map_or(0, |one| one.wrong).saturating_add(1);
        self.put(key, wrong, trying.saturating_sub(1), now);
    }

    fn begin_anew(&mut self, key: &K) {
        if let Some(count) = self.of.get_mut(key) {
            count.wrong = 0;
        }
        self.give_back(key);
    }

    fn put(&mut self, key: &K, wrong: u32, trying: u32, now: Instant) {
        self.make_room(now);
        let turn = self.turns;
        self.turns += 1;
        let last = now;
        self.order.insert(turn, key.clone());
        self.of.insert(
            key.clone(),
            Count {
                wrong,
                trying,
                last,
                turn,
            },
        );
    }

    /// Forgets those whose pause is over, and the oldest where there are too many.
    fn make_room(&mut self, now: Instant) {
        while let Some(oldest) = self.order.first_entry() {
            let key = oldest.get();
            let over = self.of.get(key).is_none_or(|one| is_over(one.last, now));
            if !over && self.of.len() < limits::REMEMBERED {
                return;
            }
            self.of.remove(key);
            oldest.remove();
        }
    }

    fn remove(&mut self, key: &K) -> Option<Count> {
        let count = self.of.remove(key)?;
        self.order.remove(&count.turn);
        Some(count)
    }
}

/// A table for each kind: many addresses do not make a user forgotten, nor many users an address.
struct Counts {
    users_from: Counted<(String, Option<IpAddr>)>,
    sources: Counted<IpAddr>,
    users: Counted<String>,
}

/// Attempts that failed, of late. Who failed too often is not looked at until a pause is over, so guessing is slow and costs us
/// nothing. An attempt counts from when it is looked at, so as many as come together are no more than may come one after the other. Bounded: the
/// oldest is forgotten first.
///
/// `from` is the source of a client, the addresses that one owner has together; `None`: it came over no network.
pub struct Attempts {
    counts: Mutex<Counts>,
}

impl Default for Attempts {
    fn default() -> Attempts {
        Attempts {
            counts: Mutex::new(Counts {
                users_from: Counted::new(limits::TRIES_OF_USER_FROM_ADDRESS),
                sources: Counted::new(limits::TRIES_FROM_ADDRESS),
                users: Counted::new(limits::TRIES_OF_USER),
            }),
        }
    }
}

enum Outcome {
    NotCompared,
    Right,
    Wrong,
}

/// One that is being looked at. Dropped without an outcome, it did not count.
pub struct Attempt<'a> {
    attempts: &'a Attempts,
    who: (String, Option<IpAddr>),
    outcome: Outcome,
}

fn bounded(user: &str) -> String {
    user.chars().take(limits::MAX_NAME).collect()
}

impl Counts {
    fn may_try(&self, who: &(String, Option<IpAddr>), now: Instant) -> bool {
        self.users_from.may_try(who, now)
            && self.users.may_try(&who.0, now)
            && who.1.is_none_or(|from| self.sources.may_try(&from, now))
    }
}

impl Attempts {
    pub fn may_try(&self, user: &str, from: Option<IpAddr>) -> bool {
        let who = (bounded(user), from);
        self.counts.lock().may_try(&who, Instant::now())
    }

    /// To be called right before the secret is looked at. `None`: too many were wrong.
    pub fn begin(&self, user: &str, from: Option<IpAddr>) -> Option<Attempt<'_>> {
        let (who, now) = ((bounded(user), from), Instant::now());
        let mut counts = self.counts.lock();
        if !counts.may_try(&who, now) {
            return None;
        }
        counts.users_from.begin(&who, now);
        counts.users.begin(&who.0, now);
        if let Some(from) = from {
            counts.sources.begin(&from, now);
        }
        Some(Attempt {
            attempts: self,
            who,
            outcome: Outcome::NotCompared,
        })
    }
}

impl Attempt<'_> {
    pub fn was_wrong(mut self) {
        self.outcome = Outcome::Wrong;
    }

    /// This user from this source begins anew.
    pub fn was_right(mut self) {
        self.outcome = Outcome::Right;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let (user, from) = &self.who;
        let now = Instant::now();
        let mut counts = self.attempts.counts.lock();
        if matches!(self.outcome, Outcome::Wrong) {
            counts.users_from.failed(&self.who, now);
            counts.users.failed(user, now);
            if let Some(from) = from {
                counts.sources.failed(from, now);
            }
            return;
        }
        match self.outcome {
            Outcome::Right => counts.users_from.begin_anew(&self.who),
            _ => counts.users_from.give_back(&self.who),
        }
        counts.users.give_back(user);
        if let Some(from) = from {
            counts.sources.give_back(from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn from(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    fn fail(attempts: &Attempts, user: &str, from: Option<IpAddr>) {
        attempts
            .begin(user, from)
            .expect("may be tried")
            .was_wrong();
    }

    #[test]
    fn a_user_an_address_and_everybody_have_their_tries() {
        let attempts = Attempts::default();
        for _ in 0..limits::TRIES_OF_USER_FROM_ADDRESS {
            fail(&attempts, "ann", from(1));
        }
        assert!(!attempts.may_try("ann", from(1)) && attempts.begin("ann", from(1)).is_none());
        assert!(attempts.may_try("ann", from(2)) && attempts.may_try("bob", from(1)));
        for n in 0..limits::TRIES_FROM_ADDRESS {
            fail(&attempts, &format!("user-{n}"), from(3));
        }
        assert!(!attempts.may_try("ann", from(3)));
        for n in 0..limits::TRIES_OF_USER {
            fail(&attempts, "carl", from(n as u8 + 4));
        }
        assert!(!attempts.may_try("carl", from(200)));
    }

    #[test]
    fn as_many_as_come_together_are_no_more_than_may_come_one_after_the_other() {
        let attempts = Attempts::default();
        let all = limits::TRIES_OF_USER_FROM_ADDRESS;
        let together: Vec<_> = (0..all).map(|_| attempts.begin("ann", from(1))).collect();
        assert!(together.iter().all(Option::is_some));
        assert!(attempts.begin("ann", from(1)).is_none());
        // Not compared after all, as when the client left: nothing was tried.
        drop(together);
        for _ in 1..all {
            fail(&attempts, "ann", from(1));
        }
        let last = attempts.begin("ann", from(1)).expect("the last");
        assert!(attempts.begin("ann", from(1)).is_none());
        last.was_right();
        for _ in 0..all {
            fail(&attempts, "ann", from(1));
        }
        assert!(attempts.begin("ann", from(1)).is_none());
    }

    #[test]
    fn what_is_right_leaves_nothing_behind() {
        let attempts = Attempts::default();
        attempts.begin("ann", from(1)).expect("open").was_right();
        drop(attempts.begin("ann", from(1)));
        let counts = attempts.counts.lock();
        assert!(counts.users.of.is_empty() && counts.users.order.is_empty());
        assert!(counts.users_from.of.is_empty() && counts.sources.of.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_newest_stay() {
        let attempts = Attempts::default();
        let many = 2 * limits::REMEMBERED as u32;
        fail(&attempts, "forgotten", None);
        for n in 0..many {
            fail(&attempts, &n.to_string(), None);
        }
        let counts = attempts.counts.lock();
        for (kept, order) in [
            (counts.users.of.len(), counts.users.order.len()),
            (counts.users_from.of.len(), counts.users_from.order.len()),
        ] {
            assert_eq!((kept, order), (limits::REMEMBERED, limits::REMEMBERED));
        }
        assert!(!counts.users.of.contains_key("forgotten"));
        assert!(counts.users.of.contains_key(&(many - 1).to_string()));
    }

    /// Three entries a failure in one table: some 1,400 addresses made a user forgotten.
    #[test]
    fn many_addresses_do_not_make_a_user_forgotten() {
        let attempts = Attempts::default();
        for n in 0..limits::TRIES_OF_USER {
            fail(&attempts, "ann", from(n as u8));
        }
        for n in 0..limits::REMEMBERED as u32 {
            let address = Ipv4Addr::from_bits(0x0b00_0000 + n);
            fail(
                &attempts,
                &format!("user-{}", n % 1000),
                Some(address.into()),
            );
        }
        assert!(!attempts.may_try("ann", from(200)));
    }
}
