//! What the entries of a log mean for the ledger: retained messages, QoS 2 packet ids, and messages that have waited for their time.

use bytes::Bytes;
use record::{Batch, BatchBuilder, NewRecord, Record, StreamName};

use crate::frame::{Entry, Frame, Lane, PacketRef, View};
use crate::ledger::{Change, Table};
use crate::wire::{Reader, put_text};

/// A retained message: the record that set it, and its stream.
#[derive(Debug, Clone)]
pub struct Retained {
    /// Under which local readers know it; the record's own key may be another one.
    pub key: String,
    pub stream: StreamName,
    pub record: Record,
    /// The start that stamped it while the time was not known, and has not learnt it yet.
    pub blind: Option<u64>,
}

/// What the value of a retained message begins with that was stamped blind: the number of the start follows. Others begin with the length of
/// a stream's name, whose first byte is 0.
const BLIND: u8 = 1;

/// What the keys of a packet id begin with. The lane of the message follows: a packet id may be used again, in another lane, and a
/// replay of one log must not touch what another one says.
pub(crate) fn packet_prefix(packet: &PacketRef) -> Vec<u8> {
    let mut key = client_prefix(&packet.client);
    key.extend_from_slice(&packet.packet_id.to_be_bytes());
    key
}

pub(crate) fn packet_key(packet: &PacketRef, lane: Lane) -> Vec<u8> {
    let mut key = packet_prefix(packet);
    key.push(lane.0);
    key
}

/// A client id contains no zero character [MQTT-1.5.4-2], so that this is no prefix of another client's.
pub(crate) fn client_prefix(client: &str) -> Vec<u8> {
    let mut key = client.as_bytes().to_vec();
    key.push(0);
    key
}

/// What the entries of a lane (the inbox has no packet ids) change in the ledger.
pub(crate) fn changes(lane: Lane, entries: &[Entry], changes: &mut Vec<Change>) {
    for entry in entries {
        match entry {
            Entry::Release { packet, .. } => changes.push(Change::Delete {
                table: Table::Unreleased,
                key: packet_key(packet, lane),
            }),
            Entry::Dropped { .. } => {}
            Entry::Frame(frame) => {
                for packet in &frame.exactly_once {
                    changes.push(Change::Put {
                        table: Table::Unreleased,
                        key: packet_key(packet, lane),
                        value: Vec::new(),
                    });
                }
                changes.extend(frame.delayed.iter().map(|key| key.delete()));
                if !frame.retained.is_empty() {
                    retained_changes(frame, changes);
                }
            }
        }
    }
}

fn retained_changes(frame: &Frame, changes: &mut Vec<Change>) {
    let Ok(records) = frame.batch.records() else {
        return;
    };
    for (index, record) in records.enumerate() {
        // The rest can not be read either; the batch was checked when it was taken.
        let Ok(record) = record else { return };
        if frame.retained.binary_search(&(index as u32)).is_err() {
            continue;
        }
        let key = match frame.view(index as u32) {
            Some(View::Key(key)) => Some(key.clone().into_bytes()),
            Some(View::Hidden) => None,
            None => record.key.as_ref().map(|key| key.to_vec()),
        };
        let Some(key) = key else { continue };
        let table = Table::Retained;
        if record.value.as_ref().is_none_or(|value| value.is_empty()) {
            changes.push(Change::Delete { table, key });
        } else if let Some(value) = encode_retained(&frame.stream, record, frame.blind) {
            changes.push(Change::Put { table, key, value });
        }
    }
}

fn encode_retained(stream: &StreamName, record: Record, blind: Option<u64>) -> Option<Vec<u8>> {
    let mut builder = BatchBuilder::new();
    let record = NewRecord {
        timestamp: record.timestamp,
        key: record.key,
        value: record.value,
        headers: record.headers,
    };
    builder.push(&record).ok()?;
    let batch = builder.build().ok()?;
    let mut value = Vec::new();
    if let Some(boot) = blind {
        value.push(BLIND);
        value.extend_from_slice(&boot.to_be_bytes());
    }
    put_text(&mut value, stream.as_str());
    value.extend_from_slice(batch.bytes());
    Some(value)
}

/// With its right time, as far as `offset` knows what its start was off by. `None` = damaged.
pub(crate) fn decode_retained(
    key: &[u8],
    value: Bytes,
    offset: impl Fn(u64) -> Option<i64>,
) -> Option<Retained> {
    let key = String::from_utf8(key.to_vec()).ok()?;
    let mut r = Reader(value);
    let (mut blind, mut add) = (None, 0);
    if r.0.first() == Some(&BLIND) {
        r.get_u8().ok()?;
        let boot = r.get_u64().ok()?;
        match offset(boot) {
            Some(known) => add = known,
            None => blind = Some(boot),
        }
    }
    let stream = StreamName::new(&r.text().ok()?).ok()?;
    let mut record = Batch::parse(r.0).ok()?.records().ok()?.next()?.ok()?;
    record.timestamp = record.timestamp.saturating_add(add);
    Some(Retained {
        key,
        stream,
        record,
        blind,
    })
}
