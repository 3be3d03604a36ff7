//! UNSUBSCRIBE (section 3.10).

use crate::properties::id;
use crate::wire::{Reader, put_string};
use crate::{DecodeError, PacketId, Properties, TopicFilter, Version, limits};
use bytes::{BufMut, BytesMut};

#[derive(Clone, Debug, PartialEq)]
pub struct Unsubscribe {
    pub packet_id: PacketId,
    pub properties: Properties,
    /// At least one.
    pub filters: Vec<TopicFilter>,
}

impl Unsubscribe {
    pub(crate) fn decode(mut r: Reader, version: Version) -> Result<Unsubscribe, DecodeError> {
        let packet_id = r.packet_id()?;
        let properties = match version {
            Version::V5 => Properties::decode(&mut r, &[id::USER_PROPERTY])?,
            _ => Properties::default(),
        };
        let mut filters = Vec::new();
        while !r.is_empty() {
            if filters.len() >= limits::MAX_FILTERS_PER_PACKET {
                return Err(DecodeError::Quota("too many topic filters in one packet"));
            }
            filters.push(TopicFilter::new(&r.string()?).map_err(DecodeError::TopicFilter)?);
        }
        if filters.is_empty() {
            return Err(DecodeError::Protocol(
                "UNSUBSCRIBE without a topic filter [MQTT-3.10.3-2]",
            ));
        }
        Ok(Unsubscribe {
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
        for filter in &self.filters {
            put_string(out, filter.as_str());
        }
    }
}
