//! What is put into a log.

use std::collections::BTreeMap;
use std::sync::Arc;

use record::{Batch, NewRecord, StreamName};

use crate::delayed::DelayedKey;
use crate::frame::{Origin, PacketRef, View};
use crate::segment::Producer;

/// What can be put into a log.
pub(crate) enum Item {
    /// A record that is still to be put into a batch.
    Record {
        stream: StreamName,
        record: NewRecord,
        retained: bool,
        packet: Option<PacketRef>,
        blind: Option<u64>,
        view: Option<View>,
        delayed: Option<DelayedKey>,
    },
    /// A batch that is encoded already.
    Batch {
        stream: StreamName,
        batch: Batch,
        retained: Vec<u32>,
        origin: Origin,
    },
    Release(PacketRef),
    Control(Control),
}

/// What the writer does between two writes.
#[derive(Debug, Clone)]
pub(crate) enum Control {
    /// Begins a new segment.
    Roll,
    /// Evicts what is too old.
    Expire {
        now_ms: i64,
        /// What is to be added to the timestamps of boots that did not know the time.
        boots: Arc<BTreeMap<u64, i64>>,
    },
    /// Writes as somebody else from now on.
    Become(Producer),
    /// Counts what was dropped, without waiting for a record to come.
    Count,
}

impl Item {
    /// When a record was stamped, and its key and value in bytes.
    pub fn stamp_and_bytes(&self) -> (i64, u64) {
        match self {
            Item::Record { record, .. } => {
                let key = record.key.as_ref().map_or(0, |key| key.len());
                let value = record.value.as_ref().map_or(0, |value| value.len());
                (record.timestamp, (key + value) as u64)
            }
            _ => (-1, 0),
        }
    }

    pub fn weight(&self) -> usize {
        match self {
            Item::Record { record, .. } => {
                let headers = record.headers.iter().map(|header| {
                    header.name.len() + header.value.as_ref().map_or(0, |v| v.len()) + 8
                });
                record.key.as_ref().map_or(0, |key| key.len())
                    + record.value.as_ref().map_or(0, |value| value.len())
                    + headers.sum::<usize>()
                    + 64
            }
            Item::Batch { batch, .. } => batch.len() + 64,
            Item::Release(packet) => packet.client.len() + 64,
            Item::Control(_) => 64,
        }
    }
}
