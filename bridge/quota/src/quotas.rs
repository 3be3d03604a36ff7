//! Who has used how much.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use access_rules::Subject;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{Bucket, Each, Quota, Share, limits};

/// There are as many connections as there may be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{whose} has {limit} connections and may have no more")]
pub struct Exceeded {
    /// `user ada`, `client sensor-7`.
    pub whose: String,
    pub limit: usize,
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections refused.
    pub refused: u64,
    /// Times that a connection was read later than it could have been.
    pub delayed: u64,
}

/// All quotas, and the accounts of those whom they are about.
#[derive(Debug, Default)]
pub struct Quotas {
    quotas: Vec<Quota>,
    accounts: Mutex<Accounts>,
    refused: AtomicU64,
    delayed: AtomicU64,
}

#[derive(Debug, Default)]
struct Accounts {
    /// By a hash of whose they are: names have up to 64 KiB, and clients choose their own. It has a key of this process, so that nobody can
    /// make a name that has the account of another.
    all: HashMap<u64, Arc<Account>>,
    hashes: RandomState,
    /// Looked through when there are so many.
    sweep_at: usize,
}

/// The place of the quota, and whose account it is.
#[derive(Clone, Copy, Debug, Hash)]
struct Whose<'a> {
    quota: usize,
    user: Option<&'a str>,
    /// `None` where all clients of a user count together.
    client: Option<&'a str>,
}

#[derive(Debug)]
pub(crate) struct Account {
    used: Mutex<Used>,
}

#[derive(Debug)]
struct Used {
    connections: usize,
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Account {
    fn new(quota: &Quota, now: Instant) -> Account {
        Account {
            used: Mutex::new(Used {
                connections: 0,
                messages: quota.messages.map(|rate| Bucket::new(rate, now)),
                bytes: quota.bytes.map(|rate| Bucket::new(rate, now)),
            }),
        }
    }

    /// Takes so much; gives how long it is to be waited for.
    pub(crate) fn take(&self, messages: u64, bytes: u64, now: Instant) -> Duration {
        let mut used = self.used.lock();
        let wait = |bucket: &mut Option<Bucket>, amount| match bucket {
            Some(bucket) if amount > 0 => bucket.take(amount, now),
            _ => Duration::ZERO,
        };
        wait(&mut used.messages, messages).max(wait(&mut used.bytes, bytes))
    }

    /// How long until all that was taken is made up for.
    pub(crate) fn owes(&self, now: Instant) -> Duration {
        let mut used = self.used.lock();
        let owes = |bucket: &mut Option<Bucket>| match bucket {
            Some(bucket) => bucket.owes(now),
            None => Duration::ZERO,
        };
        owes(&mut used.messages).max(owes(&mut used.bytes))
    }

    pub(crate) fn leave(&self) {
        let mut used = self.used.lock();
        used.connections = used.connections.saturating_sub(1);
    }

    /// A new account would say the same.
    fn is_idle(&self, now: Instant) -> bool {
        let mut used = self.used.lock();
        let is_full = |bucket: &mut Option<Bucket>| match bucket {
            Some(bucket) => bucket.is_full(now),
            None => true,
        };
        used.connections == 0 && is_full(&mut used.messages) && is_full(&mut used.bytes)
    }
}

impl Accounts {
    /// Whoever reconnects finds his account as he left it.
    fn account(&mut self, whose: Whose<'_>, quota: &Quota, now: Instant) -> Arc<Account> {
        if self.all.len() >= self.sweep_at.max(limits::SWEEP) {
            self.all.retain(|_, account| !account.is_idle(now));
            self.sweep_at = self.all.len() * 2;
            self.all.shrink_to(self.sweep_at.max(limits::SWEEP));
        }
        let account = self.all.entry(self.hashes.hash_one(whose));
        account
            .or_insert_with(|| Arc::new(Account::new(quota, now)))
            .clone()
    }
}

impl Quotas {
    pub fn new(quotas: Vec<Quota>) -> Arc<Quotas> {
        Arc::new(Quotas {
            quotas,
            ..Quotas::default()
        })
    }

    pub fn is_empty(&self) -> bool {
        self.quotas.is_empty()
    }

    /// Whether any of them is about a group: groups need not be looked up otherwise.
    pub fn name_groups(&self) -> bool {
        self.quotas.iter().any(|quota| quota.who.group.is_some())
    }

    pub fn counts(&self) -> Counts {
        Counts {
            refused: self.refused.load(Ordering::Relaxed),
            delayed: self.delayed.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn note_refusal(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_delay(&self) {
        self.delayed.fetch_add(1, Ordering::Relaxed);
    }

    /// One connection more of `who`, as long as the share lives. Of the quotas for each user the first that fits counts, and of those
    /// for each client too.
    pub fn enter(self: &Arc<Quotas>, who: &Subject<'_>) -> Result<Share, Exceeded> {
        let mut share = Share::default();
        if self.quotas.is_empty() {
            return Ok(share);
        }
        let now = Instant::now();
        for each in [Each::User, Each::Client] {
            let mut quotas = self.quotas.iter().enumerate();
            let fits = |quota: &Quota| quota.each == each && quota.who.is_about(who);
            let Some((place, quota)) = quotas.find(|(_, quota)| fits(quota)) else {
                continue;
            };
            let whose = Whose {
                quota: place,
                user: who.user,
                // Clients that nobody knows are not one user: each counts by what it calls itself.
                client: (each == Each::Client || who.user.is_none()).then_some(who.client),
            };
            // Under the lock of all accounts: none is swept away between being found and being used.
            let mut accounts = self.accounts.lock();
            let account = accounts.account(whose, quota, now);
            let mut used = account.used.lock();
            if let Some(limit) = quota.connections
                && used.connections >= limit
            {
                self.note_refusal();
                let whose = match (each, who.user) {
                    (Each::User, Some(user)) => format!("user {user}"),
                    _ => format!("client {}", who.client),
                };
                return Err(Exceeded { whose, limit });
            }
            used.connections += 1;
            drop(used);
            share.add(self, account);
        }
        Ok(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use access_rules::Who;

    /// Message, of each client.
    fn one_a_second() -> Arc<Quotas> {
        Quotas::new(vec![Quota {
            messages: Some(1),
            who: Who::default(),
            each: Each::Client,
            connections: None,
            bytes: None,
        }])
    }

    fn enter(quotas: &Arc<Quotas>, client: &str) -> Share {
        let who = Subject {
            client,
            ..Subject::default()
        };
        quotas.enter(&who).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn accounts_of_who_is_gone_are_swept_away() {
        let quotas = one_a_second();
        for n in 0..10 * limits::SWEEP {
            enter(&quotas, &format!("c{n}")).take(1, 0, Instant::now());
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        assert!(quotas.accounts.lock().all.len() <= 2 * limits::SWEEP);
    }

    #[tokio::test(start_paused = true)]
    async fn accounts_of_who_owes_much_are_swept_away_an_hour_later() {
        let quotas = one_a_second();
        for n in 0..limits::SWEEP {
            enter(&quotas, &format!("c{n}")).take(u64::MAX, 0, Instant::now());
        }
        tokio::time::advance(limits::MAX_DEBT + Duration::from_secs(2)).await;
        let _one = enter(&quotas, "another");
        assert_eq!(quotas.accounts.lock().all.len(), 1);
    }
}
