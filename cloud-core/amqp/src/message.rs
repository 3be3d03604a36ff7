//! Messages as records and back. The layout of `_tl.amqp`, version 1: `version(1) exchange(short string) property block`.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use kernel::Stream;
use record::{Envelope, Header, Native, NewRecord, Protocol, Record, topic_for_record};

use crate::{
    properties::Properties,
    routes::{Entrance, Origin},
    wire::{Reader, Table, Value, put_short},
};

const VERSION: u8 = 1;

/// The record of a published message. `now` in milliseconds; the client's own timestamp property (seconds) wins.
pub fn to_record(
    exchange: &str,
    routing_key: &str,
    block: &Bytes,
    properties: &Properties,
    body: Bytes,
    now: i64,
) -> NewRecord {
    let mut native = BytesMut::with_capacity(2 + exchange.len() + block.len());
    native.put_u8(VERSION);
    put_short(&mut native, exchange.as_bytes());
    native.put_slice(block);
    let text = |value: &Option<Bytes>| {
        value
            .as_ref()
            .and_then(|b| std::str::from_utf8(b).ok())
            .map(str::to_owned)
    };
    let headers = properties
        .headers
        .iter()
        .flat_map(|table| &table.0)
        .filter_map(|(name, value)| {
            neutral(value).map(|value| Header {
                name: name.clone(),
                value,
            })
        });
    Envelope {
        key: Some(Bytes::copy_from_slice(routing_key.as_bytes())),
        value: Some(body),
        timestamp: properties
            .timestamp
            .and_then(|s| i64::try_from(s).ok())
            .and_then(|s| s.checked_mul(1000))
            .unwrap_or(now),
        content_type: text(&properties.content_type),
        correlation_id: properties.correlation_id.clone(),
        reply_to: text(&properties.reply_to),
        message_id: text(&properties.message_id),
        expires_at: expiration(properties).and_then(|ms| now.checked_add(ms)),
        headers: headers.collect(),
        native: Some(Native {
            protocol: Protocol::Amqp,
            bytes: native.freeze(),
        }),
    }
    .into_record()
}

/// The `expiration` property in milliseconds, where it is a number.
pub fn expiration(properties: &Properties) -> Option<i64> {
    let text = properties.expiration.as_ref()?;
    std::str::from_utf8(text)
        .ok()?
        .parse()
        .ok()
        .filter(|ms| *ms >= 0)
}

/// Values that other protocols can see as a header; tables, arrays and the like stay in the native block alone.
fn neutral(value: &Value) -> Option<Option<Bytes>> {
    Some(Some(match value {
        Value::LongString(b) | Value::Bytes(b) => b.clone(),
        Value::Bool(v) => Bytes::from_static(if *v { b"true" } else { b"false" }),
        Value::Int(_, v) => Bytes::from(v.to_string()),
        Value::Float(v) => Bytes::from(v.to_string()),
        Value::Double(v) => Bytes::from(v.to_string()),
        Value::Timestamp(v) => Bytes::from(v.to_string()),
        Value::Void => return Some(None),
        Value::Decimal(..) | Value::Table(_) | Value::Array(_) => return None,
    }))
}

/// What routing looks at, without copying the body.
pub struct Routed {
    /// In order of preference: the first that reaches a queue gives the exchange a consumer is told.
    pub origins: Vec<Origin>,
    pub headers: Table,
}

/// How a record enters the routes.
pub fn routed(stream: &Stream, record: &Record) -> Routed {
    let key = record
        .key
        .as_deref()
        .map(String::from_utf8_lossy)
        .unwrap_or_default();
    if let Some(native) = record
        .headers
        .iter()
        .find(|h| h.name.as_ref() == b"_tl.amqp")
        .and_then(|h| h.value.clone())
        && let Some((exchange, block)) = split_native(native)
    {
        let headers = Properties::parse(block)
            .ok()
            .and_then(|p| p.headers)
            .unwrap_or_default();
        return Routed {
            origins: vec![Origin {
                at: Entrance::Exchange(exchange.into()),
                key: key.into_owned(),
            }],
            headers,
        };
    }
    let name = &stream.address.name;
    let mut origins = vec![Origin {
        at: Entrance::Stream(name.clone()),
        key: key.to_string(),
    }];
    if topic_for_record(name, record.key.as_deref()) == *key {
        // Words of a topic pattern are separated by dots.
        origins.push(Origin {
            at: Entrance::Topic,
            key: key.replace('/', "."),
        });
    }
    origins.push(Origin {
        at: Entrance::Own(name.clone()),
        key: key.into_owned(),
    });
    let headers = record
        .headers
        .iter()
        .filter(|h| !record::is_reserved(&h.name))
        .map(header_value)
        .collect();
    Routed {
        origins,
        headers: Table(headers),
    }
}

fn header_value(header: &Header) -> (Bytes, Value) {
    let mut name = header.name.clone();
    name.truncate(255);
    (
        name,
        header.value.clone().map_or(Value::Void, Value::LongString),
    )
}

fn split_native(native: Bytes) -> Option<(String, Bytes)> {
    let mut r = Reader::new(native);
    if r.u8().ok()? != VERSION {
        return None;
    }
    let exchange = r.short_str().ok()?;
    Some((exchange, r.rest()))
}

/// A message as a consumer gets it.
pub struct Message {
    /// `None`: not published by AMQP; the routes say which exchange shows it.
    pub exchange: Option<String>,
    pub routing_key: Bytes,
    pub properties: Bytes,
    pub body: Bytes,
    pub expires_at: Option<i64>,
}

pub fn from_record(record: &Record) -> Message {
    let envelope = Envelope::from_record(record);
    let key = envelope.key.clone().unwrap_or_default();
    let expires_at = envelope.expires_at;
    if let Some(Native {
        protocol: Protocol::Amqp,
        bytes,
    }) = &envelope.native
        && let Some((exchange, properties)) = split_native(bytes.clone())
    {
        return Message {
            exchange: Some(exchange),
            routing_key: key,
            properties,
            body: envelope.value.unwrap_or_default(),
            expires_at,
        };
    }
    let mut headers = Table(envelope.headers.iter().map(header_value).collect());
    if key.len() > 255 {
        // A routing key has at most 255 bytes; what does not fit is shown whole here.
        headers = headers.with("x-record-key", Value::LongString(key.clone()));
    }
    if envelope.value.is_none() {
        headers = headers.with("x-tombstone", Value::Bool(true));
    }
    let properties = Properties {
        content_type: envelope.content_type.map(Bytes::from),
        headers: (!headers.is_empty()).then_some(headers),
        correlation_id: envelope.correlation_id,
        reply_to: envelope.reply_to.map(Bytes::from),
        message_id: envelope.message_id.map(Bytes::from),
        timestamp: u64::try_from(envelope.timestamp).ok().map(|ms| ms / 1000),
        ..Properties::default()
    };
    Message {
        exchange: None,
        routing_key: key,
        properties: properties.block(),
        body: envelope.value.unwrap_or_default(),
        expires_at,
    }
}

/// Selects the records of one queue.
pub struct QueueSelector {
    pub queue: crate::routes::Node,
    pub routes: Arc<parking_lot::RwLock<crate::routes::Routes>>,
}

impl kernel::Selector for QueueSelector {
    fn selects(&self, stream: &Stream, partition: kernel::PartitionId, record: &Record) -> bool {
        let routed = routed(stream, record);
        let routes = self.routes.read();
        let at = Some((partition, record.offset));
        routed
            .origins
            .iter()
            .any(|origin| routes.reaches(&self.queue, origin, &routed.headers, at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_stored(new: NewRecord) -> Record {
        Record {
            offset: 0,
            timestamp: new.timestamp,
            key: new.key,
            value: new.value,
            headers: new.headers,
        }
    }

    #[test]
    fn a_message_comes_back_exactly() {
        let properties = Properties {
            content_type: Some("text/plain".into()),
            headers: Some(Table::default().with("n", Value::Int(b'I', 5)).with(
                "t",
                Value::Table(Table::default().with("a", Value::Bool(true))),
            )),
            correlation_id: Some("c".into()),
            expiration: Some("500".into()),
            ..Properties::default()
        };
        let block = properties.block();
        let record = as_stored(to_record(
            "orders",
            "a.b",
            &block,
            &properties,
            Bytes::new(),
            1000,
        ));
        assert_eq!(
            record.value.as_deref(),
            Some(&b""[..]),
            "an empty body is not a tombstone"
        );
        let back = from_record(&record);
        assert_eq!(
            (
                back.exchange.as_deref(),
                back.routing_key.as_ref(),
                back.properties,
                back.expires_at
            ),
            (Some("orders"), &b"a.b"[..], block, Some(1500))
        );
        let n = record
            .headers
            .iter()
            .find(|h| h.name.as_ref() == b"n")
            .unwrap();
        assert_eq!(
            n.value.as_deref(),
            Some(&b"5"[..]),
            "other protocols see a number as text"
        );
        assert!(!record.headers.iter().any(|h| h.name.as_ref() == b"t"));
    }

    #[test]
    fn a_foreign_record_has_neutral_properties() {
        let record = Record {
            offset: 3,
            timestamp: 12_345,
            key: None,
            value: None,
            headers: vec![
                Header {
                    name: "content-type".into(),
                    value: Some("x/y".into()),
                },
                Header {
                    name: "u".into(),
                    value: Some("v".into()),
                },
            ],
        };
        let m = from_record(&record);
        let p = Properties::parse(m.properties).unwrap();
        assert_eq!(
            (m.exchange, m.routing_key.len(), m.body.len()),
            (None, 0, 0)
        );
        assert_eq!(
            (p.content_type.as_deref(), p.timestamp),
            (Some(&b"x/y"[..]), Some(12))
        );
        assert_eq!(
            p.headers.unwrap(),
            Table::default()
                .with("u", Value::text("v"))
                .with("x-tombstone", Value::Bool(true))
        );
    }
}
