//! Bans: by hand, and of clients that connect and drop again and again.

use crate::backend::ClientId;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;
use tokio::time::Instant;

/// Client ids whose ends of connections are remembered. One more, and the one that has been quiet longest is forgotten.
const MAX_WATCHED: usize = 10_000;
/// Bans that can be there at a time.
const MAX_BANS: usize = 100_000;

/// A client whose connection ends `connects` times within `window` is banned for `ban`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flapping {
    pub connects: u32,
    pub window: Duration,
    pub ban: Duration,
}

/// Who is banned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BanKey {
    Client(String),
    User(String),
    Address(IpAddr),
}

impl BanKey {
    /// All by which this one can be banned.
    pub(crate) fn all_of(
        client: &ClientId,
        user: Option<&str>,
        address: Option<IpAddr>,
    ) -> impl Iterator<Item = BanKey> + use<> {
        let client = BanKey::Client(client.as_str().to_owned());
        let user = user.map(|user| BanKey::User(user.to_owned()));
        let address = address.map(BanKey::Address);
        [Some(client), user, address].into_iter().flatten()
    }
}

impl fmt::Display for BanKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BanKey::Client(client) => write!(f, "client:{client}"),
            BanKey::User(user) => write!(f, "user:{user}"),
            BanKey::Address(address) => write!(f, "address:{address}"),
        }
    }
}

/// `client:ID`, `user:NAME` or `address:IP`.
impl FromStr for BanKey {
    type Err = String;

    fn from_str(text: &str) -> Result<BanKey, String> {
        let wrong = || format!("{text:?} is not client:ID, user:NAME or address:IP");
        let (kind, value) = text.split_once(':').ok_or_else(wrong)?;
        match kind {
            "client" if !value.is_empty() => Ok(BanKey::Client(value.to_owned())),
            "user" if !value.is_empty() => Ok(BanKey::User(value.to_owned())),
            "address" => {
                let address: IpAddr = value.parse().map_err(|_| wrong())?;
                // As the addresses of clients are.
                Ok(BanKey::Address(address.to_canonical()))
            }
            _ => Err(wrong()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// From now on; `None` = until it is lifted.
    pub lasts: Option<Duration>,
    pub reason: String,
}

/// A ban that is there. It ends by no clock that can be set: a board may learn only later what time it is.
#[derive(Debug)]
struct Standing {
    until: Option<Instant>,
    reason: String,
}

impl Standing {
    fn is_in_force(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until > now)
    }

    /// Is nothing taken from it by one that ends then?
    fn lasts_beyond(&self, end: Option<Instant>) -> bool {
        self.until
            .is_none_or(|until| end.is_some_and(|end| until >= end))
    }
}

/// All bans of a broker.
#[derive(Debug, Default)]
pub struct Bans {
    bans: Mutex<BTreeMap<BanKey, Standing>>,
    ends: Mutex<Ends>,
}

impl Bans {
    /// In place of the one that is there. `false`: there are too many.
    pub fn add(&self, key: BanKey, ban: Ban) -> bool {
        self.put(key, ban, |_| true)
    }

    fn put(&self, key: BanKey, ban: Ban, replaces: impl Fn(&Standing) -> bool) -> bool {
        let now = Instant::now();
        // One that ends later than can be counted has no end.
        let until = ban.lasts.and_then(|time| now.checked_add(time));
        let mut bans = self.bans.lock();
        if bans.len() >= MAX_BANS {
            bans.retain(|_, ban| ban.is_in_force(now));
        }
        match bans.get(&key) {
            None if bans.len() >= MAX_BANS => return false,
            Some(standing) if standing.is_in_force(now) && !replaces(standing) => return true,
            _ => {}
        }
        let reason = ban.reason;
        bans.insert(key, Standing { until, reason });
        true
    }

    /// `false`: there was none.
    pub fn lift(&self, key: &BanKey) -> bool {
        self.bans.lock().remove(key).is_some()
    }

    /// Those that are in force, with the time that is left of them.
    pub fn list(&self) -> Vec<(BanKey, Ban)> {
        let now = Instant::now();
        let bans = self.bans.lock();
        let lasting = bans.iter().filter(|(_, ban)| ban.is_in_force(now));
        let left = |ban: &Standing| Ban {
            lasts: ban.until.map(|until| until.duration_since(now)),
            reason: ban.reason.clone(),
        };
        lasting.map(|(key, ban)| (key.clone(), left(ban))).collect()
    }

    pub fn is_banned(&self, key: &BanKey) -> bool {
        let bans = self.bans.lock();
        let ban = bans.get(key);
        ban.is_some_and(|ban| ban.is_in_force(Instant::now()))
    }

    /// A connection of this client has ended.
    pub(crate) fn ended(&self, flapping: &Flapping, client: &ClientId) {
        let now = Instant::now();
        if !self.ends.lock().is_too_often(flapping, client, now) {
            return;
        }
        tracing::warn!(%client, "a client is banned for a while: it connects and drops again and again");
        let until = now.checked_add(flapping.ban);
        let ban = Ban {
            lasts: Some(flapping.ban),
            reason: "flapping".to_owned(),
        };
        let key = BanKey::Client(client.as_str().to_owned());
        self.put(key, ban, |standing| !standing.lasts_beyond(until));
    }
}

/// The ends of one client's connections, the last ones.
#[derive(Debug, Default)]
struct EndsOfClient {
    at: VecDeque<Instant>,
    /// Its place in [`Ends::by_last`].
    place: Option<u64>,
}

/// The ends of connections, of clients that may be flapping.
#[derive(Debug, Default)]
struct Ends {
    clients: HashMap<ClientId, EndsOfClient>,
    /// Who was quiet longest comes first: nobody is looked for.
    by_last: BTreeMap<u64, ClientId>,
    next_place: u64,
}

impl Ends {
    /// Notes one more, and forgets the client when there were too many.
    fn is_too_often(&mut self, flapping: &Flapping, client: &ClientId, now: Instant) -> bool {
        let is_old = |at: Instant| now.duration_since(at) >= flapping.window;
        while let Some(first) = self.by_last.first_entry() {
            let last = self.clients.get(first.get());
            let last = last.and_then(|ends| ends.at.back());
            let is_full = self.clients.len() >= MAX_WATCHED && !self.clients.contains_key(client);
            if !is_full && last.is_some_and(|last| !is_old(*last)) {
                break;
            }
            self.clients.remove(&first.remove());
        }
        let place = self.next_place;
        self.next_place += 1;
        let ends = self.clients.entry(client.clone()).or_default();
        if let Some(before) = ends.place.replace(place) {
            self.by_last.remove(&before);
        }
        ends.at.push_back(now);
        while ends.at.front().is_some_and(|first| is_old(*first)) {
            ends.at.pop_front();
        }
        if ends.at.len() >= flapping.connects as usize {
            self.clients.remove(client);
            return true;
        }
        self.by_last.insert(place, client.clone());
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAPPING: Flapping = Flapping {
        connects: 3,
        window: Duration::from_secs(10),
        ban: Duration::from_secs(60),
    };

    fn key(client: &str) -> BanKey {
        BanKey::Client(client.to_owned())
    }

    fn by_hand(seconds: Option<u64>) -> Ban {
        Ban {
            lasts: seconds.map(Duration::from_secs),
            reason: "by hand".to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_drops_too_often_within_the_window_is_banned_for_a_while() {
        let (bans, client) = (Bans::default(), ClientId::new("c"));
        let start = Instant::now();
        for (at, banned) in [(0, false), (5, false), (12, false), (13, true)] {
            tokio::time::advance(start + Duration::from_secs(at) - Instant::now()).await;
            bans.ended(&FLAPPING, &client);
            assert_eq!(bans.is_banned(&key("c")), banned, "{at}");
        }
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(bans.list()[0].1.lasts, Some(Duration::from_secs(40)));
        tokio::time::advance(Duration::from_secs(40)).await;
        assert!(!bans.is_banned(&key("c")));
        assert!(bans.list().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_ban_that_lasts_longer_is_left_alone() {
        for (seconds, stays) in [
            (None, true),
            (Some(3600), true),
            (Some(60), true),
            (Some(59), false),
        ] {
            let (bans, client) = (Bans::default(), ClientId::new("c"));
            assert!(bans.add(key("c"), by_hand(seconds)));
            for _ in 0..3 {
                bans.ended(&FLAPPING, &client);
            }
            let is_by_hand = bans.list()[0].1 == by_hand(seconds);
            assert_eq!(is_by_hand, stays, "{seconds:?}");
        }
        // By hand it becomes what was said last, and one that is over is none.
        let bans = Bans::default();
        assert!(bans.add(key("c"), by_hand(None)));
        assert!(bans.add(key("c"), by_hand(Some(1))));
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..3 {
            bans.ended(&FLAPPING, &ClientId::new("c"));
        }
        assert_eq!(bans.list()[0].1.reason, "flapping");
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_come_once_hide_nobody_and_are_forgotten() {
        let bans = Bans::default();
        for n in 0..MAX_WATCHED + 10 {
            bans.ended(&FLAPPING, &ClientId::new(&format!("once-{n}")));
        }
        for _ in 0..3 {
            assert!(!bans.is_banned(&key("c")));
            bans.ended(&FLAPPING, &ClientId::new("c"));
        }
        assert!(bans.is_banned(&key("c")));
        let counted = || {
            let ends = bans.ends.lock();
            (ends.clients.len(), ends.by_last.len())
        };
        let most = MAX_WATCHED - 1;
        assert_eq!(counted(), (most, most), "the last one is banned");
        tokio::time::advance(FLAPPING.window).await;
        bans.ended(&FLAPPING, &ClientId::new("d"));
        assert_eq!(counted(), (1, 1));
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        for text in ["client:a:b", "user:u", "address:10.0.0.1", "address:::1"] {
            assert_eq!(text.parse::<BanKey>().unwrap().to_string(), text);
        }
        for text in ["", "client", "client:", "address:x", "what:x"] {
            assert!(text.parse::<BanKey>().is_err(), "{text}");
        }
    }
}
