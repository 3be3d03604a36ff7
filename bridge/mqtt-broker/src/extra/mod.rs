//! Beyond the standard: what a host can switch on beside the protocol. `docs/reference/mqtt-extensions.md` says the same to users.

mod addresses;
mod auto_subscribe;
mod delayed;
mod exclusive;
mod flapping;
pub mod keys;
mod persist;
mod placeholders;
mod rates;
mod retained;
mod rewrite;
pub mod settings;
mod slow;

pub use addresses::AddressLimits;
pub(crate) use addresses::{AddressPlace, Addresses};
pub use auto_subscribe::AutoSubscribe;
pub(crate) use delayed::{Delayed, delayed};
pub(crate) use exclusive::Exclusives;
pub use exclusive::exclusive;
pub use flapping::{Ban, BanKey, Bans, Flapping};
pub use persist::{Persist, PersistRules};
pub(crate) use placeholders::fill;
pub use rates::Rates;
pub(crate) use rates::{ConnectionRate, Throttle};
pub use retained::{RetainedLimits, RetainedPlace, RetainedRoom, RetainedSum, RetainedThere};
pub use rewrite::{Rewrite, RewriteError, Rewrites, Verb};
pub use slow::SlowSubscriber;
pub(crate) use slow::SlowSubscribers;

use crate::limits;
use std::time::Duration;

/// What is switched on. The default is nothing, except `$SYS` and the list of slow subscribers.
#[derive(Clone, Debug)]
pub struct Extra {
    pub rewrites: Rewrites,
    pub auto_subscribe: Vec<AutoSubscribe>,
    /// Which topics are stored; all, where no rule matches.
    pub persist: PersistRules,
    /// Of topics that are not stored. Those of the others are the host's.
    pub retained: RetainedLimits,
    pub rates: Rates,
    /// Of each source address.
    pub addresses: AddressLimits,
    pub flapping: Option<Flapping>,
    /// A subscriber that could not take what is there for so long is on the list of slow ones.
    pub slow_after: Duration,
    /// How often `$SYS` topics are published to who subscribes to them; `None` = there are none.
    pub sys_interval: Option<Duration>,
    /// Every client is sent elsewhere.
    pub redirect: Option<Redirect>,
    /// For packets of which a part has come, of all connections together; for those whose client is not known yet a quarter of it.
    pub unfinished_bytes: usize,
    /// Response Information for clients that ask for it (section 3.2.2.3.15), with `%c` and `%u`.
    pub response_topic: Option<String>,
}

/// Where clients are told to go (section 4.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Server Reference: host names or addresses with ports, separated by spaces.
    pub server: String,
    /// 0x9D, server moved, in place of 0x9C, use another server.
    pub moved: bool,
}

impl Default for Extra {
    fn default() -> Extra {
        Extra {
            rewrites: Rewrites::default(),
            auto_subscribe: Vec::new(),
            persist: PersistRules::default(),
            retained: RetainedLimits::default(),
            rates: Rates::default(),
            addresses: AddressLimits::default(),
            flapping: None,
            slow_after: Duration::from_secs(1),
            sys_interval: Some(Duration::from_secs(10)),
            redirect: None,
            unfinished_bytes: limits::UNFINISHED_BYTES,
            response_topic: None,
        }
    }
}
