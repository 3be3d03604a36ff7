//! A message as PUBLISH says it, and as bytes for storage (retained messages, wills).

use crate::{Message, MessageProperties};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use mqtt_codec::{Decoder, Packet, PacketId, Properties, Publish, Version, encode};

const FORMAT: u8 = 1;

impl MessageProperties {
    pub fn from_packet(p: Properties) -> MessageProperties {
        MessageProperties {
            payload_format_utf8: p.payload_format_indicator.map(|value| value == 1),
            content_type: p.content_type,
            response_topic: p.response_topic,
            correlation_data: p.correlation_data,
            user_properties: p.user_properties,
        }
    }

    pub fn to_packet(&self) -> Properties {
        Properties {
            payload_format_indicator: self.payload_format_utf8.map(u8::from),
            content_type: self.content_type.clone(),
            response_topic: self.response_topic.clone(),
            correlation_data: self.correlation_data.clone(),
            user_properties: self.user_properties.clone(),
            ..Properties::default()
        }
    }
}

impl Message {
    /// Seconds that are left, rounded up; `None` = does not expire. Never less than 1: the caller has checked [`Message::is_expired`].
    pub fn seconds_left(&self, now_ms: i64) -> Option<u32> {
        let left = self.expires_at.as_ref()?.at();
        let left = left.saturating_sub(now_ms).max(1);
        Some(u32::try_from((left.saturating_add(999)) / 1000).unwrap_or(u32::MAX))
    }

    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.expires_at.as_ref().is_some_and(|at| at.at() <= now_ms)
    }

    /// For storage: everything of the message, expiry as the absolute time. Versioned.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + self.payload.len());
        out.put_u8(FORMAT);
        let flags = u8::from(self.expires_at.is_some()) | u8::from(self.origin.is_some()) << 1;
        out.put_u8(flags);
        if let Some(at) = &self.expires_at {
            out.put_i64(at.at());
        }
        if let Some(origin) = self.origin {
            out.put_u64(origin);
        }
        let publish = Publish {
            dup: false,
            qos: self.qos,
            retain: self.retain,
            topic: Some(self.topic.clone()),
            packet_id: (self.qos != mqtt_codec::QoS::AtMostOnce).then_some(PacketId::MIN),
            properties: self.properties.to_packet(),
            payload: self.payload.clone(),
        };
        encode(&Packet::Publish(Box::new(publish)), Version::V5, &mut out);
        out.freeze()
    }

    /// `None` = not bytes of [`Message::to_bytes`], or of a newer version.
    pub fn from_bytes(mut bytes: Bytes) -> Option<Message> {
        if bytes.try_get_u8().ok()? != FORMAT {
            return None;
        }
        let flags = bytes.try_get_u8().ok()?;
        let expires_at = if flags & 1 != 0 {
            Some(bytes.try_get_i64().ok()?.into())
        } else {
            None
        };
        let origin = if flags & 2 != 0 {
            Some(bytes.try_get_u64().ok()?)
        } else {
            None
        };
        let mut buffer = BytesMut::from(bytes);
        let packet = Decoder::with_version(Version::V5, usize::MAX).decode(&mut buffer);
        let Ok(Some(Packet::Publish(publish))) = packet else {
            return None;
        };
        Some(Message {
            topic: publish.topic?,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            expires_at,
            origin,
            number: None,
            properties: MessageProperties::from_packet(publish.properties),
        })
    }
}
