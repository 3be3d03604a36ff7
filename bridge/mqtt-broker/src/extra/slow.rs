//! Who could not take what was there for them, for how long: the slowest subscribers.

use crate::backend::ClientId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;

/// Clients on the list. A slower one takes the place of the least slow.
const MAX_SLOW: usize = 100;
/// A client that was not slow for so long leaves the list.
const KEPT_MS: i64 = 600_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowSubscriber {
    pub client: ClientId,
    /// The longest time for which something waited for it.
    pub longest: Duration,
    /// When it was seen to be slow last, milliseconds since the epoch.
    pub last_ms: i64,
}

#[derive(Debug, Default)]
pub(crate) struct SlowSubscribers(Mutex<HashMap<ClientId, (Duration, i64)>>);

impl SlowSubscribers {
    pub fn note(&self, client: &ClientId, waited: Duration, now_ms: i64) {
        let mut all = self.0.lock();
        all.retain(|_, (_, last)| now_ms.saturating_sub(*last) < KEPT_MS);
        if let Some((longest, last)) = all.get_mut(client) {
            *longest = waited.max(*longest);
            *last = now_ms;
            return;
        }
        if all.len() >= MAX_SLOW {
            let least = all.iter().min_by_key(|(_, (longest, _))| *longest);
            let Some(least) = least.map(|(client, (longest, _))| (client.clone(), *longest)) else {
                return;
            };
            if least.1 >= waited {
                return;
            }
            all.remove(&least.0);
        }
        all.insert(client.clone(), (waited, now_ms));
    }

    /// The slowest first, with those for whom something is `waiting` now.
    pub fn list(
        &self,
        waiting: impl IntoIterator<Item = (ClientId, Duration)>,
        now_ms: i64,
    ) -> Vec<SlowSubscriber> {
        let mut all = self.0.lock().clone();
        all.retain(|_, (_, last)| now_ms.saturating_sub(*last) < KEPT_MS);
        for (client, waited) in waiting {
            let (longest, last) = all.entry(client).or_default();
            *longest = waited.max(*longest);
            *last = now_ms;
        }
        let all = all.into_iter();
        let mut list: Vec<SlowSubscriber> = all
            .map(|(client, (longest, last_ms))| SlowSubscriber {
                client,
                longest,
                last_ms,
            })
            .collect();
        list.sort_by(|a, b| b.longest.cmp(&a.longest).then(a.client.cmp(&b.client)));
        list.truncate(MAX_SLOW);
        list
    }
}
