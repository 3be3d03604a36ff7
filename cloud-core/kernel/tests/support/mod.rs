//! What the tests of this crate share.
#![allow(dead_code)]

use record::{Batch, BatchBuilder, Namespace, NewRecord, StreamAddress, StreamName};

pub mod sim_disk;
pub mod stepped;

pub fn address(name: &str) -> StreamAddress {
    StreamAddress::new(Namespace::default(), StreamName::new(name).unwrap())
}

/// A batch of records with these values.
pub fn batch(values: &[&str]) -> Batch {
    build(BatchBuilder::new(), values)
}

/// A batch of an idempotent producer.
pub fn produced(id: i64, epoch: i16, sequence: i32, values: &[&str]) -> Batch {
    build(BatchBuilder::new().producer(id, epoch, sequence), values)
}

/// A batch whose record has a timestamp.
pub fn stamped(timestamp: i64, value: &str) -> Batch {
    let mut builder = BatchBuilder::new();
    let value = value.to_owned().into_bytes();
    builder
        .push(&NewRecord {
            timestamp,
            key: None,
            value: Some(value.into()),
            headers: Vec::new(),
        })
        .unwrap();
    builder.build().unwrap()
}

fn build(mut builder: BatchBuilder, values: &[&str]) -> Batch {
    for value in values {
        let value = (*value).to_owned().into_bytes();
        builder
            .push(&NewRecord {
                timestamp: 1000,
                key: None,
                value: Some(value.into()),
                headers: Vec::new(),
            })
            .unwrap();
    }
    builder.build().unwrap()
}

/// The values of all records from an offset on.
pub async fn values(
    kernel: &kernel::Kernel,
    partition: kernel::PartitionId,
    from: i64,
) -> Vec<String> {
    let mut offset = from;
    let mut values = Vec::new();
    loop {
        let read = kernel.read(partition, offset, 1 << 20).await.unwrap();
        for batch in &read.batches {
            batch.check_crc().unwrap();
            for record in batch.records().unwrap() {
                let record = record.unwrap();
                if record.offset >= from {
                    values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
                }
            }
        }
        if read.batches.is_empty() {
            return values;
        }
        offset = read.next_offset;
    }
}
