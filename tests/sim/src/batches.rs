//! Batches and names as tests want them.

use record::{Batch, BatchBuilder, Namespace, NewRecord, StreamAddress, StreamName};

/// A stream of the default namespace.
pub fn address(name: &str) -> StreamAddress {
    StreamAddress::new(
        Namespace::default(),
        StreamName::new(name).expect("a valid stream name"),
    )
}

/// A batch of records with these values.
pub fn batch(values: &[&str]) -> Batch {
    build(BatchBuilder::new(), values)
}

/// A batch of an idempotent producer.
pub fn produced(id: i64, epoch: i16, sequence: i32, values: &[&str]) -> Batch {
    build(BatchBuilder::new().producer(id, epoch, sequence), values)
}

/// A batch of a transaction.
pub fn transactional(id: i64, epoch: i16, sequence: i32, values: &[&str]) -> Batch {
    let builder = BatchBuilder::new().producer(id, epoch, sequence);
    build(builder.transactional(), values)
}

/// A batch whose record has a timestamp.
pub fn stamped(timestamp: i64, value: &str) -> Batch {
    build_at(BatchBuilder::new(), timestamp, &[value])
}

fn build(builder: BatchBuilder, values: &[&str]) -> Batch {
    build_at(builder, 1000, values)
}

fn build_at(mut builder: BatchBuilder, timestamp: i64, values: &[&str]) -> Batch {
    for value in values {
        let record = NewRecord {
            timestamp,
            key: None,
            value: Some((*value).to_owned().into_bytes().into()),
            headers: Vec::new(),
        };
        builder.push(&record).expect("a small record");
    }
    builder.build().expect("a batch with records")
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
        let read = kernel
            .read(partition, offset, 1 << 20)
            .await
            .expect("a readable partition");
        for batch in &read.batches {
            batch.check_crc().expect("a sound batch");
            for record in batch.records().expect("records") {
                let record = record.expect("a record");
                if record.offset >= from {
                    let value = record.value.unwrap_or_default().to_vec();
                    values.push(String::from_utf8(value).expect("text"));
                }
            }
        }
        if read.batches.is_empty() {
            return values;
        }
        offset = read.next_offset;
    }
}

/// Offset and value of what a reader of committed records sees in the batches from an offset on.
pub async fn committed(
    kernel: &kernel::Kernel,
    partition: kernel::PartitionId,
    from: i64,
) -> Vec<(i64, String)> {
    let mut offset = from;
    let mut seen = Vec::new();
    loop {
        let read = kernel
            .read_committed(partition, offset, 200)
            .await
            .expect("a readable partition");
        for batch in &read.batches {
            batch.check_crc().expect("a sound batch");
            for record in batch.records().expect("records") {
                let record = record.expect("a record");
                let value = record.value.unwrap_or_default().to_vec();
                seen.push((record.offset, String::from_utf8(value).expect("text")));
            }
        }
        if read.next_offset == offset {
            return seen;
        }
        offset = read.next_offset;
    }
}
