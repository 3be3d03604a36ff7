//! PUBLISH (section 3.3).

use crate::properties::id;
use crate::publish_head::PublishHead;
use crate::wire::{Reader, text};
use crate::{DecodeError, PacketId, Properties, QoS, TopicName, Version};
use bytes::{BufMut, Bytes, BytesMut};

#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    /// `None` only together with a topic alias: the topic is then the one the alias was set to.
    pub topic: Option<TopicName>,
    /// `Some` exactly when QoS is 1 or 2.
    pub packet_id: Option<PacketId>,
    pub properties: Properties,
    pub payload: Bytes,
}

const ALLOWED: &[u8] = &[
    id::PAYLOAD_FORMAT_INDICATOR,
    id::MESSAGE_EXPIRY_INTERVAL,
    id::TOPIC_ALIAS,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::USER_PROPERTY,
    id::SUBSCRIPTION_IDENTIFIER,
    id::CONTENT_TYPE,
];

impl Publish {
    /// `last` is the topic of the PUBLISH before, if there was one.
    pub(crate) fn decode(
        flags: u8,
        mut r: Reader,
        version: Version,
        last: &mut Option<TopicName>,
    ) -> Result<Publish, DecodeError> {
        let qos = QoS::from_u8((flags >> 1) & 3)
            .ok_or(DecodeError::Malformed("QoS 3 in PUBLISH [MQTT-3.3.1-4]"))?;
        let dup = flags & 8 != 0;
        if dup && qos == QoS::AtMostOnce {
            return Err(DecodeError::Malformed("DUP with QoS 0 [MQTT-3.3.1-2]"));
        }
        let name = r.binary()?;
        let known = last
            .as_ref()
            .filter(|last| name == last.as_str().as_bytes());
        let known = known.cloned();
        let new = match known {
            Some(_) => "",
            None => text(&name)?,
        };
        let packet_id = match qos {
            QoS::AtMostOnce => None,
            _ => Some(r.packet_id()?),
        };
        let properties = match version {
            Version::V5 => Properties::decode(&mut r, ALLOWED)?,
            _ => Properties::default(),
        };
        let topic = if name.is_empty() && properties.topic_alias.is_some() {
            None
        } else if name.is_empty() && version == Version::V5 {
            return Err(DecodeError::Protocol(
                "no topic and no topic alias (section 3.3.2.1)",
            ));
        } else {
            match known {
                Some(known) => Some(known),
                None => {
                    let topic = TopicName::new(new).map_err(DecodeError::TopicName)?;
                    *last = Some(topic.clone());
                    Some(topic)
                }
            }
        };
        Ok(Publish {
            dup,
            qos,
            retain: flags & 1 != 0,
            topic,
            packet_id,
            properties,
            payload: r.0,
        })
    }

    fn head<'a>(&'a self, properties: &'a [u8]) -> PublishHead<'a> {
        PublishHead {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: self.topic.as_ref().map_or("", TopicName::as_str),
            packet_id: self.packet_id,
            message_expiry_interval: None,
            topic_alias: None,
            subscription_identifiers: &[],
            properties,
            payload_len: self.payload.len(),
        }
    }

    fn encoded_properties(&self, version: Version) -> Bytes {
        match version {
            Version::V5 => self.properties.to_encoded(),
            Version::V31 | Version::V311 => Bytes::new(),
        }
    }

    /// Bytes on the wire, fixed header included: what Maximum Packet Size counts.
    pub fn encoded_len(&self, version: Version) -> usize {
        let properties = self.encoded_properties(version);
        self.head(&properties).encoded_len(version)
    }

    /// Writes the whole packet: payloads are large and should not be copied once more for the sake of the length.
    pub(crate) fn encode(&self, version: Version, out: &mut BytesMut) {
        let properties = self.encoded_properties(version);
        self.head(&properties).encode(version, out);
        out.put_slice(&self.payload);
    }
}
