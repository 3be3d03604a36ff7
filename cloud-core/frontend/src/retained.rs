//! Retained messages: the last message of a topic that was published with the retain flag, given to each new subscriber.
//! Written by whoever appends such a message (a client here, or an edge by way of the sync front end), read by MQTT.
//!
//! The table holds the record itself and not its offset: retention may delete the record, never the retained message.

use bytes::{BufMut, Bytes, BytesMut};
use kernel::Command;
use record::{Batch, BatchBuilder, Envelope, Namespace, NewRecord, Protocol, Record};

/// The kernel table. Key: namespace, NUL, topic (neither contains NUL). Value: [`VERSION`], then one RecordBatch v2 of
/// one uncompressed record as it was appended: key, headers, timestamp and body.
pub const TABLE: &str = "retained";

/// First byte of a value.
pub const VERSION: u8 = 1;

/// Was this record published with the retain flag? The flag is bit 2 of the second byte of `_tl.mqtt`, first byte 1 (the
/// layout is written by `bridge/mqtt-broker`, on the edge and in the core).
pub fn is_retained(record: &Record) -> bool {
    const NATIVE_VERSION: u8 = 1;
    const FLAG_RETAIN: u8 = 0x04;
    let native = Envelope::from_record(record).native;
    native.is_some_and(|native| {
        native.protocol == Protocol::Mqtt
            && matches!(*native.bytes, [NATIVE_VERSION, flags, ..] if flags & FLAG_RETAIN != 0)
    })
}

/// The command that makes `record` the retained message of `topic`; an empty body clears it (MQTT 5, 3.3.1.3). To be put
/// in the same [`kernel::Entry`] as the append.
pub fn command(
    namespace: &Namespace,
    topic: &str,
    record: &NewRecord,
) -> Result<Command, record::BuildError> {
    let key = key(namespace, topic);
    if record.value.as_ref().is_none_or(Bytes::is_empty) {
        return Ok(Command::TableDelete {
            table: TABLE.into(),
            key,
        });
    }
    let mut builder = BatchBuilder::new();
    builder.push(record)?;
    let batch = builder.build()?;
    let mut value = BytesMut::with_capacity(1 + batch.len());
    value.put_u8(VERSION);
    value.extend_from_slice(batch.bytes());
    Ok(Command::TablePut {
        table: TABLE.into(),
        key,
        value: value.freeze(),
    })
}

/// The key of `topic`.
pub fn key(namespace: &Namespace, topic: &str) -> Bytes {
    let mut key = BytesMut::from(&*prefix(namespace));
    key.extend_from_slice(topic.as_bytes());
    key.freeze()
}

/// What the keys of a namespace start with.
pub fn prefix(namespace: &Namespace) -> Bytes {
    let mut prefix = BytesMut::from(namespace.as_str().as_bytes());
    prefix.put_u8(0);
    prefix.freeze()
}

/// Topic of a key that was scanned with [`prefix`]. `None`: not one of ours.
pub fn topic<'k>(namespace: &Namespace, key: &'k [u8]) -> Option<&'k str> {
    std::str::from_utf8(key.strip_prefix(&*prefix(namespace))?).ok()
}

/// The record in a value. `None` when it is of a later version or damaged: the caller says so and leaves it out.
pub fn record(mut value: Bytes) -> Option<Record> {
    if value.first() != Some(&VERSION) {
        return None;
    }
    let batch = Batch::parse(value.split_off(1)).ok()?;
    batch.records().ok()?.next()?.ok()
}

/// When the message in a value expires, milliseconds since the epoch. `None`: never, or [`record`] can not read it.
pub fn expires_at(value: Bytes) -> Option<i64> {
    Envelope::from_record(&record(value)?).expires_at
}

#[cfg(test)]
mod tests {
    use super::*;
    use record::Header;

    fn new_record(value: &'static [u8], headers: Vec<Header>) -> NewRecord {
        NewRecord {
            timestamp: 7,
            key: Some(Bytes::from_static(b"a/b")),
            value: Some(Bytes::from_static(value)),
            headers,
        }
    }

    #[test]
    fn what_is_put_is_what_is_read() {
        let namespace = Namespace::default();
        let new = new_record(b"21.5", vec![Header::new("unit", "C")]);
        let Command::TablePut { table, key, value } = command(&namespace, "a/b", &new).unwrap()
        else {
            panic!("a put");
        };
        assert_eq!((&*table, topic(&namespace, &key)), (TABLE, Some("a/b")));
        let read = record(value).unwrap();
        assert_eq!(
            (read.timestamp, read.value, read.headers),
            (7, new.value, new.headers)
        );
        assert!(
            record(Bytes::from_static(&[9, 1])).is_none(),
            "a later version"
        );
    }

    #[test]
    fn an_empty_body_clears_mqtt5_3_3_1_3() {
        let command = command(&Namespace::default(), "a/b", &new_record(b"", vec![])).unwrap();
        assert!(matches!(command, Command::TableDelete { .. }));
    }

    #[test]
    fn the_retain_flag_is_seen() {
        for (native, expected) in [
            (&[1u8, 0x05][..], true),
            (&[1, 0x01], false),
            (&[2, 0x05], false),
            (&[], false),
        ] {
            let new = new_record(b"x", vec![Header::new("_tl.mqtt", native.to_vec())]);
            let record = Record {
                offset: 0,
                timestamp: 0,
                key: new.key,
                value: new.value,
                headers: new.headers,
            };
            assert_eq!(is_retained(&record), expected, "{native:?}");
        }
    }
}
