//! The neutral view of a record, which every front end converts from and to. The table is
//! `docs/reference/mapping.md`.

use bytes::Bytes;

use crate::records::{Header, NewRecord, Record};
use crate::reserved::is_reserved;

const CONTENT_TYPE: &str = "content-type";
const CORRELATION_ID: &str = "correlation-id";
const REPLY_TO: &str = "reply-to";
const MESSAGE_ID: &str = "message-id";
const EXPIRES: &[u8] = b"_tl.expires";
const EXPIRES_AFTER: &[u8] = b"_tl.expires-after";
const NATIVE_MQTT: &[u8] = b"_tl.mqtt";
const NATIVE_AMQP: &[u8] = b"_tl.amqp";

/// A record with its well-known properties told apart from user properties.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Envelope {
    pub key: Option<Bytes>,
    /// Empty is not null: null is a tombstone, which only Kafka producers write.
    pub value: Option<Bytes>,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    pub content_type: Option<String>,
    pub correlation_id: Option<Bytes>,
    pub reply_to: Option<String>,
    pub message_id: Option<String>,
    /// Milliseconds since the epoch after which the message is of no use.
    pub expires_at: Option<i64>,
    /// User properties, in order, duplicates kept. Never a reserved name.
    pub headers: Vec<Header>,
    /// When it is of the protocol that reads, it wins over the fields above: that reader gets exactly what was sent.
    pub native: Option<Native>,
}

/// A protocol's own properties, for an exact way back. The first byte is the version of the layout, which belongs to
/// that protocol's front end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Native {
    pub protocol: Protocol,
    pub bytes: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    Mqtt,
    Amqp,
}

impl Envelope {
    /// Never fails: a well-known header that does not have its form stays a user property, a reserved one is dropped.
    /// Of several well-known headers of one name the first counts and the others stay user properties.
    #[must_use]
    pub fn from_record(record: &Record) -> Envelope {
        let mut envelope = Envelope {
            key: record.key.clone(),
            value: record.value.clone(),
            timestamp: record.timestamp,
            ..Envelope::default()
        };
        for header in &record.headers {
            if !envelope.recognise(header) && !is_reserved(&header.name) {
                envelope.headers.push(header.clone());
            }
        }
        envelope
    }

    /// Sets the field that `header` stands for, if it stands for one that is not set yet.
    fn recognise(&mut self, header: &Header) -> bool {
        let Some(value) = &header.value else {
            return false;
        };
        if header.name == CONTENT_TYPE {
            set_text(&mut self.content_type, value)
        } else if header.name == CORRELATION_ID {
            self.correlation_id.is_none() && self.correlation_id.replace(value.clone()).is_none()
        } else if header.name == REPLY_TO {
            set_text(&mut self.reply_to, value)
        } else if header.name == MESSAGE_ID {
            set_text(&mut self.message_id, value)
        } else if header.name == EXPIRES {
            self.expires_at = number(value);
            true
        } else if header.name == EXPIRES_AFTER {
            self.expires_at = number(value).map(|after| self.timestamp.saturating_add(after));
            true
        } else if header.name == NATIVE_MQTT {
            self.native = Some(Native {
                protocol: Protocol::Mqtt,
                bytes: value.clone(),
            });
            true
        } else if header.name == NATIVE_AMQP {
            self.native = Some(Native {
                protocol: Protocol::Amqp,
                bytes: value.clone(),
            });
            true
        } else {
            false
        }
    }

    /// The record to append. User properties with a reserved name are left out: no client may set those.
    #[must_use]
    pub fn into_record(self) -> NewRecord {
        let mut headers = Vec::with_capacity(self.headers.len() + 2);
        let mut put = |name: &'static [u8], value: Option<Bytes>| {
            if value.is_some() {
                headers.push(Header {
                    name: Bytes::from_static(name),
                    value,
                });
            }
        };
        put(CONTENT_TYPE.as_bytes(), self.content_type.map(Bytes::from));
        put(CORRELATION_ID.as_bytes(), self.correlation_id);
        put(REPLY_TO.as_bytes(), self.reply_to.map(Bytes::from));
        put(MESSAGE_ID.as_bytes(), self.message_id.map(Bytes::from));
        put(
            EXPIRES,
            self.expires_at.map(|at| Bytes::from(at.to_string())),
        );
        if let Some(Native { protocol, bytes }) = self.native {
            let name = match protocol {
                Protocol::Mqtt => NATIVE_MQTT,
                Protocol::Amqp => NATIVE_AMQP,
            };
            put(name, Some(bytes));
        }
        headers.extend(
            self.headers
                .into_iter()
                .filter(|header| !is_reserved(&header.name)),
        );
        NewRecord {
            timestamp: self.timestamp,
            key: self.key,
            value: self.value,
            headers,
        }
    }
}

/// Has a record say only how long after its timestamp it expires: where the timestamp is still to be put right, so is the end.
pub fn expire_after_timestamp(record: &mut NewRecord) {
    let timestamp = record.timestamp;
    let expires = record.headers.iter_mut().find(|h| h.name == EXPIRES);
    if let Some(header) = expires
        && let Some(at) = header.value.as_deref().and_then(number)
    {
        let after = at.saturating_sub(timestamp);
        header.name = Bytes::from_static(EXPIRES_AFTER);
        header.value = Some(Bytes::from(after.to_string()));
    }
}

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn set_text(field: &mut Option<String>, value: &Bytes) -> bool {
    match std::str::from_utf8(value) {
        Ok(text) if field.is_none() => {
            *field = Some(text.to_owned());
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_follows_the_timestamp() {
        let mut record = Envelope {
            timestamp: 1000,
            expires_at: Some(61_000),
            ..Envelope::default()
        }
        .into_record();
        expire_after_timestamp(&mut record);
        let read = |timestamp| {
            let record = NewRecord {
                timestamp,
                ..record.clone()
            };
            let mut builder = crate::BatchBuilder::new();
            builder.push(&record).unwrap();
            let batch = builder.build().unwrap();
            let record = batch.records().unwrap().next().unwrap().unwrap();
            let envelope = Envelope::from_record(&record);
            assert!(envelope.headers.is_empty());
            envelope.expires_at
        };
        assert_eq!(read(1000), Some(61_000));
        assert_eq!(read(5_000_000), Some(5_060_000));
        // One that never expires stays so.
        let mut record = Envelope::default().into_record();
        expire_after_timestamp(&mut record);
        assert!(record.headers.is_empty());
    }
}
