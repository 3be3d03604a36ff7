//! Messages to records and back: the one place that knows how MQTT lies in the log.
//!
//! | MQTT | record |
//! |---|---|
//! | topic | key (and the stream, by `record::stream_for_topic`) |
//! | payload | value |
//! | content type, correlation data, response topic, message expiry | `content_type`, `correlation_id`, `reply_to`, `expires_at` of the envelope |
//! | user properties | headers |
//! | QoS, RETAIN, payload format indicator, No Local origin, number (`early.rs`) | `_tl.mqtt`, left out where it would say QoS 1 and nothing else |
//!
//! `_tl.mqtt`: version 1; flags (bits 0-1 QoS, 2 RETAIN, 3-4 payload format + 1, 5 origin follows, 6 exact properties
//! follow, 7 number follows); 8 bytes origin; 8 bytes number; the message as `Message::to_bytes` without its payload, where the headers alone could not give
//! the properties back exactly (a user property named like a well-known header).

use crate::backend::{Expiry, Message, MessageProperties, Publish};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use mqtt_codec::{QoS, TopicName};
use record::{Envelope, Header, Native, NewRecord, Protocol, Record, StreamName};

const NATIVE_FORMAT: u8 = 1;
const FLAG_RETAIN: u8 = 0x04;
const FLAG_ORIGIN: u8 = 0x20;
const FLAG_EXACT: u8 = 0x40;
const FLAG_NUMBER: u8 = 0x80;
/// What a record without `_tl.mqtt` is delivered as, if the subscriber was granted that: it is in a durable log.
const QOS_OF_FOREIGN: QoS = QoS::AtLeastOnce;
/// Headers that the envelope takes for its own fields.
const WELL_KNOWN: [&str; 4] = ["content-type", "correlation-id", "reply-to", "message-id"];
/// The longest string or binary field in an MQTT packet, in bytes.
const MAX_FIELD: usize = 65_535;

/// The record to append for a publish. `now_ms` becomes its timestamp.
pub fn new_record(publish: &Publish, now_ms: i64) -> NewRecord {
    let message = &publish.message;
    let properties = &message.properties;
    let headers = properties
        .user_properties
        .iter()
        .map(|(name, value)| Header::new(name.clone(), value.clone()));
    Envelope {
        key: Some(Bytes::copy_from_slice(message.topic.as_str().as_bytes())),
        value: Some(message.payload.clone()),
        timestamp: now_ms,
        content_type: properties.content_type.clone(),
        correlation_id: properties.correlation_data.clone(),
        reply_to: properties
            .response_topic
            .as_ref()
            .map(|topic| topic.as_str().to_owned()),
        message_id: None,
        expires_at: message.expires_at.as_ref().map(Expiry::at),
        headers: headers.collect(),
        native: native(message).map(|bytes| Native {
            protocol: Protocol::Mqtt,
            bytes,
        }),
    }
    .into_record()
}

fn native(message: &Message) -> Option<Bytes> {
    let properties = &message.properties;
    let exact = properties.user_properties.iter().any(|(name, _)| {
        WELL_KNOWN.contains(&name.as_str()) || record::is_reserved(name.as_bytes())
    });
    let mut flags = message.qos as u8;
    if message.retain {
        flags |= FLAG_RETAIN;
    }
    flags |= match properties.payload_format_utf8 {
        None => 0,
        Some(utf8) => (1 + u8::from(utf8)) << 3,
    };
    if message.origin.is_some() {
        flags |= FLAG_ORIGIN;
    }
    if exact {
        flags |= FLAG_EXACT;
    }
    if message.number.is_some() {
        flags |= FLAG_NUMBER;
    }
    if flags == QOS_OF_FOREIGN as u8 {
        return None;
    }
    let mut out = BytesMut::new();
    out.put_u8(NATIVE_FORMAT);
    out.put_u8(flags);
    if let Some(origin) = message.origin {
        out.put_u64(origin);
    }
    if let Some(number) = message.number {
        out.put_u64(number);
    }
    if exact {
        let bare = Message {
            payload: Bytes::new(),
            ..message.clone()
        };
        out.put_slice(&bare.to_bytes());
    }
    Some(out.freeze())
}

/// The message an MQTT subscriber gets for a record of any protocol, on the topic that `record::topic_for_record` says. `None` = nothing: a tombstone,
/// or a record whose stream and key give no valid topic.
pub fn message(stream: &StreamName, record: &Record) -> Option<Message> {
    let payload = record.value.clone()?;
    let topic = record::topic_for_record(stream, record.key.as_deref());
    let topic = TopicName::new(&topic).ok()?;
    let envelope = Envelope::from_record(record);
    let expires_at = envelope.expires_at.map(Expiry::from);
    let native = match &envelope.native {
        Some(Native {
            protocol: Protocol::Mqtt,
            bytes,
        }) => parse_native(bytes.clone()),
        _ => None,
    };
    let mut message = Message {
        topic,
        payload,
        qos: QOS_OF_FOREIGN,
        retain: false,
        expires_at,
        origin: None,
        number: None,
        properties: MessageProperties::default(),
    };
    let mut exact = None;
    if let Some(native) = native {
        message.qos = native.qos;
        message.retain = native.retain;
        message.origin = native.origin;
        message.number = native.number;
        message.properties.payload_format_utf8 = native.payload_format_utf8;
        exact = native.exact;
    }
    match exact {
        Some(properties) => message.properties = properties,
        None => neutral_properties(envelope, &mut message.properties),
    }
    Some(message)
}

struct ParsedNative {
    qos: QoS,
    retain: bool,
    origin: Option<u64>,
    number: Option<u64>,
    payload_format_utf8: Option<bool>,
    exact: Option<MessageProperties>,
}

/// `None` = of a newer version: the neutral properties are used.
fn parse_native(mut bytes: Bytes) -> Option<ParsedNative> {
    if bytes.try_get_u8().ok()? != NATIVE_FORMAT {
        return None;
    }
    let flags = bytes.try_get_u8().ok()?;
    let origin = if flags & FLAG_ORIGIN != 0 {
        Some(bytes.try_get_u64().ok()?)
    } else {
        None
    };
    let number = if flags & FLAG_NUMBER != 0 {
        Some(bytes.try_get_u64().ok()?)
    } else {
        None
    };
    let exact = if flags & FLAG_EXACT != 0 {
        Some(Message::from_bytes(bytes)?.properties)
    } else {
        None
    };
    Some(ParsedNative {
        qos: QoS::from_u8(flags & 3)?,
        retain: flags & FLAG_RETAIN != 0,
        origin,
        number,
        payload_format_utf8: match (flags >> 3) & 3 {
            1 => Some(false),
            2 => Some(true),
            _ => None,
        },
        exact,
    })
}

fn neutral_properties(envelope: Envelope, properties: &mut MessageProperties) {
    properties.content_type = envelope.content_type.filter(|text| is_field(text));
    properties.correlation_data = envelope
        .correlation_id
        .filter(|data| data.len() <= MAX_FIELD);
    properties.response_topic = envelope
        .reply_to
        .and_then(|text| TopicName::new(&text).ok());
    let message_id = envelope.message_id.map(|id| ("message-id".to_owned(), id));
    let headers = envelope.headers.iter().filter_map(|header| {
        // MQTT's user properties are text; a header that is not has no place in a packet.
        let name = std::str::from_utf8(&header.name).ok()?;
        let value = std::str::from_utf8(header.value.as_deref().unwrap_or_default()).ok()?;
        Some((name.to_owned(), value.to_owned()))
    });
    properties.user_properties = message_id
        .into_iter()
        .chain(headers)
        .filter(|(name, value)| is_field(name) && is_field(value))
        .take(mqtt_codec::limits::MAX_USER_PROPERTIES)
        .collect();
}

fn is_field(text: &str) -> bool {
    text.len() <= MAX_FIELD && !text.contains('\0')
}

/// A retained message as a host stores it under its topic.
pub fn encode_retained(message: &Message) -> Bytes {
    message.to_bytes()
}

/// `None` = not bytes of [`encode_retained`], or of a newer version.
pub fn decode_retained(bytes: Bytes) -> Option<Message> {
    Message::from_bytes(bytes).map(|message| Message {
        retain: true,
        ..message
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ClientId;

    fn round_trip(message: Message) -> (NewRecord, Message) {
        let publish = Publish {
            message,
            publisher: ClientId::new("c"),
        };
        let new = new_record(&publish, 5);
        let record = Record {
            offset: 0,
            timestamp: new.timestamp,
            key: new.key.clone(),
            value: new.value.clone(),
            headers: new.headers.clone(),
        };
        let stream = record::stream_for_topic(publish.message.topic.as_str());
        let back = super::message(&stream, &record).expect("a message");
        assert_eq!(back, publish.message);
        (new, back)
    }

    fn plain(topic: &str) -> Message {
        Message {
            topic: TopicName::new(topic).expect("topic"),
            payload: Bytes::from_static(b"21.5"),
            qos: QoS::AtLeastOnce,
            retain: false,
            expires_at: None,
            origin: None,
            number: None,
            properties: MessageProperties::default(),
        }
    }

    #[test]
    fn a_plain_qos_1_message_needs_no_header() {
        assert!(round_trip(plain("a/b")).0.headers.is_empty());
        round_trip(plain("/"));
        round_trip(plain("ä b/c"));
        round_trip(plain("$x/y"));
    }

    #[test]
    fn everything_comes_back_exactly() {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            for format in [None, Some(true), Some(false)] {
                for name in ["k", "content-type", "message-id", "_tl.mqtt"] {
                    let mut message = plain("a/b");
                    message.qos = qos;
                    message.retain = true;
                    message.origin = Some(7);
                    message.number = Some(u64::MAX - 8);
                    message.expires_at = Some(1_000.into());
                    message.properties = MessageProperties {
                        payload_format_utf8: format,
                        content_type: Some("text/plain".into()),
                        response_topic: TopicName::new("r/1").ok(),
                        correlation_data: Some(Bytes::from_static(&[0, 1])),
                        user_properties: vec![(name.into(), "1".into()), (name.into(), "2".into())],
                    };
                    round_trip(message.clone());
                    let retained = Message {
                        number: None,
                        ..message.clone()
                    };
                    assert_eq!(decode_retained(encode_retained(&message)), Some(retained));
                }
            }
        }
    }

    #[test]
    fn foreign_records() {
        let stream = StreamName::new("s").expect("name");
        let mut record = Record {
            offset: 0,
            timestamp: 0,
            key: None,
            value: None,
            headers: vec![
                Header::new("bin", vec![0xFF]),
                Header::new("_tl.mqtt", vec![9, 9]),
                Header::new("_tl.mqtt", vec![]),
            ],
        };
        assert_eq!(message(&stream, &record), None, "a tombstone");
        record.value = Some(Bytes::new());
        let found = message(&stream, &record).expect("a message");
        assert_eq!((found.topic.as_str(), found.qos), ("s", QoS::AtLeastOnce));
        assert!(found.properties.user_properties.is_empty());
    }
}
