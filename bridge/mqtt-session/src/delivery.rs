//! What goes to the client on behalf of a message.

use crate::SharedMessage;
use bytes::{Bytes, BytesMut};
use mqtt_codec::{Ack, Packet, PacketId, PublishHead, QoS, ReasonCode, Version, encode};
use std::sync::Arc;

/// The next step of a message towards the client.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivery {
    Publish(OutgoingPublish),
    PubRel {
        packet_id: PacketId,
        reason_code: ReasonCode,
    },
}

/// A PUBLISH to the client: the shared message, and what is of this delivery.
#[derive(Clone, Debug, PartialEq)]
pub struct OutgoingPublish {
    pub(crate) message: Arc<SharedMessage>,
    pub(crate) dup: bool,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// `Some` exactly when QoS is 1 or 2.
    pub(crate) packet_id: Option<PacketId>,
    pub(crate) identifiers: Vec<u32>,
    /// With a topic alias: whether the client knows it already, and need not be told the topic.
    pub(crate) alias: Option<(u16, bool)>,
}

impl OutgoingPublish {
    pub fn qos(&self) -> QoS {
        self.qos
    }

    /// Follows what [`OutgoingPublish::encode_head`] wrote.
    pub fn payload(&self) -> &Bytes {
        &self.message.payload
    }

    fn head(&self, version: Version, now_ms: i64) -> PublishHead<'_> {
        PublishHead {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: match self.alias {
                Some((_, true)) => "",
                _ => self.message.topic.as_str(),
            },
            packet_id: self.packet_id,
            // What is left of it when it leaves [MQTT-3.3.2-6].
            message_expiry_interval: self.message.seconds_left(now_ms),
            topic_alias: self.alias.map(|(alias, _)| alias),
            subscription_identifiers: &self.identifiers,
            properties: match version {
                Version::V5 => self.message.encoded_properties(),
                Version::V31 | Version::V311 => &[],
            },
            payload_len: self.message.payload.len(),
        }
    }

    /// Appends everything before the payload.
    pub fn encode_head(&self, version: Version, now_ms: i64, out: &mut BytesMut) {
        self.head(version, now_ms).encode(version, out);
    }

    /// Bytes on the wire: what Maximum Packet Size counts.
    pub fn encoded_len(&self, version: Version, now_ms: i64) -> usize {
        self.head(version, now_ms).encoded_len(version)
    }
}

impl Delivery {
    /// Appends the whole packet.
    pub fn encode(&self, version: Version, now_ms: i64, out: &mut BytesMut) {
        match self {
            Delivery::Publish(publish) => {
                publish.encode_head(version, now_ms, out);
                out.extend_from_slice(publish.payload());
            }
            Delivery::PubRel {
                packet_id,
                reason_code,
            } => {
                let ack = Ack::new(*packet_id, *reason_code);
                encode(&Packet::PubRel(ack), version, out);
            }
        }
    }
}
