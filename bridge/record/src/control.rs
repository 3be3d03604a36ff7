//! The records of control batches: a version and a type in the key, the coordinator's epoch in the value.

use bytes::{BufMut, Bytes, BytesMut};

use crate::records::{NewRecord, Record};

/// How a transaction ended. Other control types (Kafka's Raft has some) are skipped by readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlRecord {
    Abort { coordinator_epoch: i32 },
    Commit { coordinator_epoch: i32 },
}

impl ControlRecord {
    /// `None`: not a transaction marker, or a malformed one.
    #[must_use]
    pub fn from_record(record: &Record) -> Option<ControlRecord> {
        let (version, kind) = record.key.as_ref()?.split_first_chunk::<2>()?;
        let kind = i16::from_be_bytes(*kind.first_chunk()?);
        let (value_version, epoch) = record.value.as_ref()?.split_first_chunk::<2>()?;
        if i16::from_be_bytes(*version) < 0 || i16::from_be_bytes(*value_version) < 0 {
            return None;
        }
        let coordinator_epoch = i32::from_be_bytes(*epoch.first_chunk()?);
        match kind {
            0 => Some(ControlRecord::Abort { coordinator_epoch }),
            1 => Some(ControlRecord::Commit { coordinator_epoch }),
            _ => None,
        }
    }

    /// The record to put into a batch made with [`control`](crate::BatchBuilder::control) and
    /// [`transactional`](crate::BatchBuilder::transactional). `timestamp`: milliseconds since the epoch.
    #[must_use]
    pub fn into_record(self, timestamp: i64) -> NewRecord {
        let (kind, coordinator_epoch) = match self {
            ControlRecord::Abort { coordinator_epoch } => (0i16, coordinator_epoch),
            ControlRecord::Commit { coordinator_epoch } => (1, coordinator_epoch),
        };
        let mut key = BytesMut::with_capacity(4);
        key.put_i16(0);
        key.put_i16(kind);
        let mut value = BytesMut::with_capacity(6);
        value.put_i16(0);
        value.put_i32(coordinator_epoch);
        NewRecord {
            timestamp,
            key: Some(Bytes::from(key)),
            value: Some(Bytes::from(value)),
            headers: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BatchBuilder;

    #[test]
    fn a_marker_survives_the_log() {
        for marker in [
            ControlRecord::Abort {
                coordinator_epoch: 7,
            },
            ControlRecord::Commit {
                coordinator_epoch: -1,
            },
        ] {
            let mut builder = BatchBuilder::new()
                .producer(9, 3, -1)
                .transactional()
                .control();
            builder.push(&marker.into_record(55)).unwrap();
            let batch = builder.build().unwrap();
            assert!(batch.is_control() && batch.is_transactional());
            let record = batch.records().unwrap().next().unwrap().unwrap();
            assert_eq!(ControlRecord::from_record(&record), Some(marker));
        }
    }

    #[test]
    fn other_records_are_not_markers() {
        let record = |key: &'static [u8]| Record {
            offset: 0,
            timestamp: 0,
            key: Some(Bytes::from_static(key)),
            value: Some(Bytes::from_static(&[0, 0, 0, 0, 0, 1])),
            headers: vec![],
        };
        assert!(ControlRecord::from_record(&record(&[0, 0, 0, 1])).is_some());
        for key in [&[0u8, 0, 0, 2][..], &[0, 0, 0], &[], &[0xff, 0xff, 0, 1]] {
            assert_eq!(ControlRecord::from_record(&record(key)), None);
        }
    }
}
