//! SUBSCRIBE (section 3.8).

use crate::properties::id;
use crate::wire::{Reader, put_string};
use crate::{DecodeError, PacketId, Properties, QoS, TopicFilter, Version, limits};
use bytes::{BufMut, BytesMut};

#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe {
    pub packet_id: PacketId,
    pub properties: Properties,
    /// At least one.
    pub filters: Vec<SubscribeFilter>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SubscribeFilter {
    pub filter: TopicFilter,
    pub options: SubscriptionOptions,
}

/// Section 3.8.3.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionOptions {
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    /// Send retained messages at every subscribe.
    #[default]
    Send = 0,
    /// Only if the subscription did not exist.
    SendIfNew = 1,
    DoNotSend = 2,
}

impl SubscriptionOptions {
    pub fn from_u8(byte: u8) -> Result<SubscriptionOptions, DecodeError> {
        if byte & 0xC0 != 0 {
            return Err(DecodeError::Malformed(
                "reserved subscription options are set [MQTT-3.8.3-5]",
            ));
        }
        Ok(SubscriptionOptions {
            qos: QoS::from_u8(byte & 3)
                .ok_or(DecodeError::Malformed("QoS 3 in SUBSCRIBE [MQTT-3.8.3-4]"))?,
            no_local: byte & 4 != 0,
            retain_as_published: byte & 8 != 0,
            retain_handling: match byte >> 4 {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                _ => return Err(DecodeError::Protocol("Retain Handling 3 (section 3.8.3.1)")),
            },
        })
    }

    pub fn to_u8(self) -> u8 {
        self.qos as u8
            | u8::from(self.no_local) << 2
            | u8::from(self.retain_as_published) << 3
            | (self.retain_handling as u8) << 4
    }
}

impl Subscribe {
    pub(crate) fn decode(mut r: Reader, version: Version) -> Result<Subscribe, DecodeError> {
        let packet_id = r.packet_id()?;
        let properties = match version {
            Version::V5 => {
                Properties::decode(&mut r, &[id::SUBSCRIPTION_IDENTIFIER, id::USER_PROPERTY])?
            }
            _ => Properties::default(),
        };
        if properties.subscription_identifiers.len() > 1 {
            return Err(DecodeError::Protocol(
                "two subscription identifiers (section 3.8.2.1.2)",
            ));
        }
        let mut filters = Vec::new();
        while !r.is_empty() {
            if filters.len() >= limits::MAX_FILTERS_PER_PACKET {
                return Err(DecodeError::Quota("too many topic filters in one packet"));
            }
            let filter = TopicFilter::new(&r.string()?).map_err(DecodeError::TopicFilter)?;
            let byte = r.u8()?;
            if version != Version::V5 && byte & 0xFC != 0 {
                return Err(DecodeError::Malformed(
                    "reserved bits of a requested QoS are set [MQTT-3.8.3-4]",
                ));
            }
            let options = SubscriptionOptions::from_u8(byte)?;
            if options.no_local && filter.is_shared() {
                return Err(DecodeError::Protocol(
                    "No Local on a shared subscription [MQTT-3.8.3-4]",
                ));
            }
            filters.push(SubscribeFilter { filter, options });
        }
        if filters.is_empty() {
            return Err(DecodeError::Protocol(
                "SUBSCRIBE without a topic filter [MQTT-3.8.3-2]",
            ));
        }
        Ok(Subscribe {
            packet_id,
            properties,
            filters,
        })
    }

    pub(crate) fn encode(&self, version: Version, out: &mut BytesMut) {
        out.put_u16(self.packet_id.get());
        if version == Version::V5 {
            self.properties.encode(out);
        }
        for entry in &self.filters {
            put_string(out, entry.filter.as_str());
            out.put_u8(entry.options.to_u8());
        }
    }
}
