//! MQTT 3.1.1 and 5: bytes to packets and back, server side. Knows no session, no socket, no clock.

mod qos;
mod topic;

pub use qos::QoS;
pub use topic::{TopicError, TopicFilter, TopicName, filter_matches};

/// A packet identifier: never zero [MQTT-2.2.1-3].
pub type PacketId = std::num::NonZeroU16;
