//! Bans: by hand, and of clients that connect and drop again and again.

use crate::backend::ClientId;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

/// Client ids whose ends of connections are remembered. One more, and those that are quiet are forgotten.
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
    /// Milliseconds since the epoch; `None` = until it is lifted.
    pub until_ms: Option<i64>,
    pub reason: String,
}

/// All bans of a broker.
#[derive(Debug, Default)]
pub struct Bans {
    bans: Mutex<BTreeMap<BanKey, Ban>>,
    ends: Mutex<HashMap<ClientId, VecDeque<i64>>>,
}

impl Bans {
    /// `false`: there are too many.
    pub fn add(&self, key: BanKey, ban: Ban, now_ms: i64) -> bool {
        let mut bans = self.bans.lock();
        if bans.len() >= MAX_BANS {
            bans.retain(|_, ban| ban.until_ms.is_none_or(|until| until > now_ms));
        }
        let room = bans.len() < MAX_BANS || bans.contains_key(&key);
        if room {
            bans.insert(key, ban);
        }
        room
    }

    /// `false`: there was none.
    pub fn lift(&self, key: &BanKey) -> bool {
        self.bans.lock().remove(key).is_some()
    }

    /// Those that are in force.
    pub fn list(&self, now_ms: i64) -> Vec<(BanKey, Ban)> {
        let bans = self.bans.lock();
        let lasting = bans.iter();
        let lasting = lasting.filter(|(_, ban)| ban.until_ms.is_none_or(|until| until > now_ms));
        lasting
            .map(|(key, ban)| (key.clone(), ban.clone()))
            .collect()
    }

    pub fn is_banned(&self, key: &BanKey, now_ms: i64) -> bool {
        let bans = self.bans.lock();
        let ban = bans.get(key);
        ban.is_some_and(|ban| ban.until_ms.is_none_or(|until| until > now_ms))
    }

    /// A connection of this client has ended.
    pub(crate) fn ended(&self, flapping: &Flapping, client: &ClientId, now_ms: i64) {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let since = now_ms.saturating_sub(millis(flapping.window));
        let often = {
            let mut ends = self.ends.lock();
            if ends.len() >= MAX_WATCHED {
                ends.retain(|_, ends| ends.back().is_some_and(|last| *last > since));
            }
            if ends.len() >= MAX_WATCHED && !ends.contains_key(client) {
                return;
            }
            let of_client = ends.entry(client.clone()).or_default();
            of_client.push_back(now_ms);
            while of_client.front().is_some_and(|first| *first <= since) {
                of_client.pop_front();
            }
            let often = of_client.len() >= flapping.connects as usize;
            if often {
                ends.remove(client);
            }
            often
        };
        if often {
            tracing::warn!(%client, "a client is banned for a while: it connects and drops again and again");
            let ban = Ban {
                until_ms: Some(now_ms.saturating_add(millis(flapping.ban))),
                reason: "flapping".to_owned(),
            };
            self.add(BanKey::Client(client.as_str().to_owned()), ban, now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_drops_too_often_within_the_window_is_banned_for_a_while() {
        let (bans, client) = (Bans::default(), ClientId::new("c"));
        let key = BanKey::Client("c".into());
        let flapping = Flapping {
            connects: 3,
            window: Duration::from_secs(10),
            ban: Duration::from_secs(60),
        };
        for (at, banned) in [(0, false), (5_000, false), (12_000, false), (13_000, true)] {
            bans.ended(&flapping, &client, at);
            assert_eq!(bans.is_banned(&key, at), banned, "{at}");
        }
        assert!(!bans.is_banned(&key, 73_000));
        assert!(bans.list(73_000).is_empty());
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
