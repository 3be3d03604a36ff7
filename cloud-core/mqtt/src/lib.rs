//! MQTT 3.1.1 and 5 in the core. The protocol is `bridge/mqtt-broker` (the same as on the edge); here is only where it
//! keeps things: messages in the kernel's streams, sessions, QoS 2 packet ids and retained messages in its tables.
//!
//! A topic's first level names its stream and the whole topic is the record's key, so a message lies in the partition
//! Kafka's own partitioner chooses. See `docs/reference/mapping.md`.

mod access;
mod backend;
mod delayed;
mod feeds;
pub mod limits;
mod metrics;
mod options;
mod publish;
mod retained;
mod sessions;
mod shares;
mod start;
mod tables;
mod walk;

pub use backend::CoreBackend;
pub use mqtt_broker::ALPN;
pub use mqtt_broker::extra::RetainedLimits;
pub use options::{Mqtt, MqttOptions};
pub use start::start;
