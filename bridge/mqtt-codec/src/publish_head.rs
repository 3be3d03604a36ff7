//! The part of a PUBLISH before its payload, from borrowed parts: what is the same for every receiver of a message (its properties,
//! its payload) is encoded once and lies beside the message; what differs is written here.

use crate::properties::id;
use crate::wire::{put_string, put_variable_byte_integer, variable_byte_integer_len};
use crate::{PacketId, QoS, Version};
use bytes::{BufMut, BytesMut};

/// A PUBLISH without its payload (section 3.3). The last four fields before `payload_len` are of MQTT 5 and left out in other versions.
#[derive(Clone, Copy, Debug)]
pub struct PublishHead<'a> {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    /// Empty only together with a topic alias that was set before.
    pub topic: &'a str,
    /// `Some` exactly when QoS is 1 or 2.
    pub packet_id: Option<PacketId>,
    /// Seconds.
    pub message_expiry_interval: Option<u32>,
    pub topic_alias: Option<u16>,
    pub subscription_identifiers: &'a [u32],
    /// More properties, as [`crate::Properties::to_encoded`] gives them.
    pub properties: &'a [u8],
    /// Bytes of the payload that follows.
    pub payload_len: usize,
}

impl PublishHead<'_> {
    fn properties_len(&self) -> usize {
        let identifiers = self.subscription_identifiers.iter();
        self.message_expiry_interval.map_or(0, |_| 5)
            + self.topic_alias.map_or(0, |_| 3)
            + identifiers
                .map(|value| 1 + variable_byte_integer_len(*value as usize))
                .sum::<usize>()
            + self.properties.len()
    }

    fn remaining_len(&self, version: Version) -> usize {
        let topic = self.topic.len().min(usize::from(u16::MAX));
        let packet_id = if self.packet_id.is_some() { 2 } else { 0 };
        let properties = match version {
            Version::V5 => {
                let len = self.properties_len();
                variable_byte_integer_len(len) + len
            }
            Version::V31 | Version::V311 => 0,
        };
        2 + topic + packet_id + properties + self.payload_len
    }

    /// Bytes of the whole packet, payload included: what Maximum Packet Size counts.
    pub fn encoded_len(&self, version: Version) -> usize {
        let remaining = self.remaining_len(version);
        1 + variable_byte_integer_len(remaining) + remaining
    }

    /// Appends everything before the payload, which must follow.
    pub fn encode(&self, version: Version, out: &mut BytesMut) {
        let remaining = self.remaining_len(version);
        out.reserve(remaining - self.payload_len + 5);
        let flags = u8::from(self.dup) << 3 | (self.qos as u8) << 1 | u8::from(self.retain);
        out.put_u8(0x30 | flags);
        put_variable_byte_integer(out, remaining);
        put_string(out, self.topic);
        if let Some(packet_id) = self.packet_id {
            out.put_u16(packet_id.get());
        }
        if version != Version::V5 {
            return;
        }
        put_variable_byte_integer(out, self.properties_len());
        if let Some(seconds) = self.message_expiry_interval {
            out.put_u8(id::MESSAGE_EXPIRY_INTERVAL);
            out.put_u32(seconds);
        }
        if let Some(alias) = self.topic_alias {
            out.put_u8(id::TOPIC_ALIAS);
            out.put_u16(alias);
        }
        for identifier in self.subscription_identifiers {
            out.put_u8(id::SUBSCRIPTION_IDENTIFIER);
            put_variable_byte_integer(out, *identifier as usize);
        }
        out.put_slice(self.properties);
    }
}
