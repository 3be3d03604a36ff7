//! MQTT 3.1.1 and 5: bytes to packets and back. Knows no session, no socket, no clock.

mod ack;
mod connack;
mod connect;
mod disconnect;
mod error;
mod framing;
pub mod limits;
mod packet;
mod properties;
mod publish;
mod publish_head;
mod qos;
mod reason;
mod suback;
mod subscribe;
mod topic;
mod unsubscribe;
mod wire;

pub use ack::Ack;
pub use connack::ConnAck;
pub use connect::{Connect, Will};
pub use disconnect::{Auth, Disconnect};
pub use error::DecodeError;
pub use framing::{Decoder, encode};
pub use packet::{Packet, Version};
pub use properties::Properties;
pub use publish::Publish;
pub use publish_head::PublishHead;
pub use qos::QoS;
pub use reason::ReasonCode;
pub use suback::{SubAck, UnsubAck};
pub use subscribe::{RetainHandling, Subscribe, SubscribeFilter, SubscriptionOptions};
pub use topic::{TopicError, TopicFilter, TopicName, filter_matches};
pub use unsubscribe::Unsubscribe;

/// A packet identifier: never zero [MQTT-2.2.1-3].
pub type PacketId = std::num::NonZeroU16;
