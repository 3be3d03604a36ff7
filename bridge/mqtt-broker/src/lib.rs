//! The MQTT broker over a [`Backend`]: one task a connection, a session registry, wills, the delivery loop.
//! The host opens sockets, gives each stream to [`Broker::serve`], and says where things are kept.

mod accept;
pub mod access;
mod aside;
mod authenticate;
pub mod backend;
mod broker;
mod client_first;
mod clients;
mod clock;
mod connection;
pub mod convert;
mod deadlines;
mod delivery;
mod early;
mod ending;
pub mod extra;
mod fence;
mod fit;
mod follower;
mod given;
mod held;
mod hub;
mod inbound;
mod incoming;
mod input;
mod inspect;
pub mod later;
pub mod limits;
mod lingering;
mod mailbox;
mod memory_shares;
mod metrics;
mod output;
mod packets;
mod passing;
mod progress;
mod registry;
mod retained;
mod route_cache;
mod running;
mod saving;
mod shared;
mod subscribing;
pub mod sweeping;
mod sys;
mod timers;
mod turns;
mod unfinished;
mod unsettled;
mod unstored;
mod unstored_groups;

pub use access::{Access, Peer};
pub use backend::Backend;
pub use broker::Broker;
pub use clients::{ConnectedClient, SubscriptionInfo};
pub use extra::Extra;
pub use inspect::StoredSession;
pub use memory_shares::{Joins, MemoryShares};
pub use metrics::Metrics;
pub use mqtt_session::Limits;
pub use turns::{Turn, Turns};

/// How a WebSocket for MQTT begins: the sub-protocol is of section 6 of both versions, the path everybody's habit.
pub const WEBSOCKET: transport::Offer = transport::Offer {
    path: "/mqtt",
    protocol: "mqtt",
    origins: Vec::new(),
};

/// What clients ask TLS for where it matters (QUIC).
pub const ALPN: &[u8] = b"mqtt";
