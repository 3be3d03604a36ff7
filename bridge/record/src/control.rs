//! The records of control batches: a version and a type in the key, the coordinator's epoch in the value.

use bytes::{BufMut, Bytes, BytesMut};

use crate::records::{NewRecord, Record};
use crate::{Batch, BatchBuilder, BuildError, NO_SEQUENCE};

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

    /// The marker of the batch, if the batch is one that ends a transaction.
    #[must_use]
    pub fn from_batch(batch: &Batch) -> Option<ControlRecord> {
        if !(batch.is_control() && batch.is_transactional()) {
            return None;
        }
        let record = batch.records().ok()?.next()?.ok()?;
        ControlRecord::from_record(&record)
    }

    /// The control batch that ends a transaction of a producer: one record, no sequence (markers do not count among the
    /// producer's records). `timestamp`: milliseconds since the epoch.
    pub fn into_batch(
        self,
        producer_id: i64,
        producer_epoch: i16,
        timestamp: i64,
    ) -> Result<Batch, BuildError> {
        let mut builder = BatchBuilder::new()
            .producer(producer_id, producer_epoch, NO_SEQUENCE)
            .transactional()
            .control();
        builder.push(&self.into_record(timestamp))?;
        builder.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let batch = marker.into_batch(9, 3, 55).unwrap();
            assert!(batch.is_control() && batch.is_transactional());
            let record = batch.records().unwrap().next().unwrap().unwrap();
            assert_eq!(ControlRecord::from_record(&record), Some(marker));
            assert_eq!(ControlRecord::from_batch(&batch), Some(marker));
        }
    }

    /// The other side of the comparison is `MemoryRecords.withEndTransactionMarker(0, 1732170000123, 0, 4711, 3, ...)` of
    /// kafka-clients 3.9.1 and 4.1.1, which agree.
    #[test]
    fn a_control_batch_is_what_the_original_broker_writes() {
        let commit = "0000000000000000000000420000000002fa75031d003000000000000001934d60a6fb\
            000001934d60a6fb00000000000012670003ffffffff000000012000000008000000010c00000000001b00";
        let abort = "00000000000000000000004200000000020e4bd555003000000000000001934d60a6fb\
            000001934d60a6fb00000000000012670003ffffffff000000012000000008000000000c00000000001b00";
        let coordinator_epoch = 27;
        for (marker, expected) in [
            (ControlRecord::Commit { coordinator_epoch }, commit),
            (ControlRecord::Abort { coordinator_epoch }, abort),
        ] {
            let batch = marker.into_batch(4711, 3, 1_732_170_000_123).unwrap();
            batch.check_records().unwrap();
            let bytes = batch.into_patched(0, 0).into_bytes();
            let found: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn data_is_not_a_marker() {
        let marker = ControlRecord::Commit {
            coordinator_epoch: 1,
        };
        let mut builder = BatchBuilder::new().producer(9, 3, 0).transactional();
        builder.push(&marker.into_record(5)).unwrap();
        assert_eq!(ControlRecord::from_batch(&builder.build().unwrap()), None);
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
