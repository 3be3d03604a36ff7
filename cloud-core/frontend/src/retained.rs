//! Retained messages: the last message of a topic that was published with the retain flag, given to each new subscriber.
//! Written by whoever appends such a message (a client here, or an edge by way of the sync front end), read by MQTT.
//!
//! The table holds the record itself and not its offset: retention may delete the record, never the retained message.

use bytes::{BufMut, Bytes, BytesMut};
use kernel::Command;
use record::{Batch, BatchBuilder, Namespace, NewRecord, Record};

/// The kernel table. Key: namespace, NUL, topic (neither contains NUL). Value: [`VERSION`], then one RecordBatch v2 of
/// one uncompressed record as it was appended: key, headers, timestamp and body.
pub const TABLE: &str = "retained";

/// First byte of a value.
pub const VERSION: u8 = 1;

/// The command that makes `record` the retained message of `topic`; an empty body clears it (MQTT 5, 3.3.1.3). To be put
/// in the same [`kernel::Entry`] as the append.
pub fn command(namespace: &Namespace, topic: &str, record: &NewRecord) -> Result<Command, record::BatchError> {
    let key = key(namespace, topic);
    if record.value.as_ref().is_none_or(Bytes::is_empty) {
        return Ok(Command::TableDelete { table: TABLE.into(), key });
    }
    let mut builder = BatchBuilder::new();
    builder.push(record);
    let batch = builder.build();
    let mut value = BytesMut::with_capacity(1 + batch.len());
    value.put_u8(VERSION);
    value.extend_from_slice(batch.bytes());
    Ok(Command::TablePut { table: TABLE.into(), key, value: value.freeze() })
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
