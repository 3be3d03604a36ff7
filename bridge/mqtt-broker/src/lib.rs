//! The MQTT broker over a [`Backend`]: one task a connection, a session registry, wills, the delivery loop.
//! The host opens sockets, gives each stream to [`Broker::serve`], and says where things are kept.

mod accept;
pub mod access;
pub mod acl;
pub mod backend;
mod broker;
mod connection;
pub mod convert;
mod deadlines;
mod delivery;
mod fit;
mod inbound;
mod input;
pub mod limits;
mod metrics;
mod output;
mod registry;

pub use access::{Access, Peer};
pub use backend::Backend;
pub use broker::Broker;
pub use metrics::Metrics;
pub use mqtt_session::Limits;
