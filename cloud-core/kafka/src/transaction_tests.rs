//! Transactions as readers see them. Clients can not write any yet, so the kernel does.

use bytes::Bytes;
use kernel::{Kernel, PartitionId, SequenceRule};
use record::{Batch, BatchBuilder, ControlRecord, NewRecord, StreamAddress, StreamName};

use crate::client_tests::{Client, Server, batch, fetched, values};
use crate::error_code::*;
use crate::wire::fetch::{FetchRequest, PartitionData};
use crate::wire::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsTopic,
};

const READ_UNCOMMITTED: i8 = 0;
const READ_COMMITTED: i8 = 1;

struct Log {
    kernel: Kernel,
    partition: PartitionId,
}

impl Log {
    fn of(server: &Server, topic: &str) -> Log {
        let name = StreamName::new(topic).unwrap();
        let address = StreamAddress::new(record::Namespace::default(), name);
        let stream = server.ctx.kernel.stream(&address).unwrap();
        Log {
            kernel: server.ctx.kernel.clone(),
            partition: stream.id.partition(0),
        }
    }

    /// A batch of a transaction; `timestamp` is that of its records, in ms.
    async fn write(&self, producer: i64, sequence: i32, timestamp: i64, values: &[&'static str]) {
        let mut builder = BatchBuilder::new()
            .producer(producer, 0, sequence)
            .transactional();
        for value in values {
            let value = Some(Bytes::from_static(value.as_bytes()));
            let record = NewRecord {
                timestamp,
                key: None,
                value,
                headers: Vec::new(),
            };
            builder.push(&record).unwrap();
        }
        let batch = builder.build().unwrap();
        let rule = SequenceRule::Window;
        self.kernel
            .append(self.partition, batch, rule)
            .await
            .unwrap();
    }

    async fn end(&self, producer: i64, commit: bool) {
        let partitions = vec![self.partition];
        self.kernel
            .end_transaction(producer, 0, partitions, commit, 1)
            .await
            .unwrap();
    }
}

fn committed(topic: &str, offset: i64, max_wait_ms: i32, min_bytes: i32) -> FetchRequest {
    FetchRequest {
        isolation_level: READ_COMMITTED,
        min_bytes,
        ..fetched(topic, offset, max_wait_ms, 1 << 20)
    }
}

async fn fetch(client: &mut Client, request: FetchRequest) -> PartitionData {
    client.ask(12, request).await.responses[0].partitions[0].clone()
}

async fn offset_at(
    client: &mut Client,
    timestamp: i64,
    isolation_level: i8,
) -> ListOffsetsPartitionResponse {
    let partitions = vec![ListOffsetsPartition {
        timestamp,
        ..Default::default()
    }];
    let request = ListOffsetsRequest {
        isolation_level,
        topics: vec![ListOffsetsTopic {
            name: "t".to_owned(),
            partitions,
        }],
        ..Default::default()
    };
    client.ask(9, request).await.topics[0].partitions[0].clone()
}

#[tokio::test]
async fn readers_of_committed_records_stop_at_what_is_undecided_and_are_told_what_was_aborted() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    client.produce("t", batch(&[b"plain"]).into_bytes()).await;
    let log = Log::of(&server, "t");
    log.write(7, 0, 10, &["aborted"]).await;
    log.write(8, 0, 20, &["open"]).await;
    log.end(7, false).await;
    client.produce("t", batch(&[b"after"]).into_bytes()).await;

    let data = fetch(&mut client, committed("t", 0, 0, 1)).await;
    assert_eq!(data.error_code, NONE);
    assert_eq!((data.high_watermark, data.last_stable_offset), (5, 2));
    assert_eq!(values(&data.records), ["plain", "aborted"]);
    let aborted = data.aborted_transactions.unwrap();
    let aborted: Vec<_> = aborted
        .iter()
        .map(|a| (a.producer_id, a.first_offset))
        .collect();
    assert_eq!(aborted, [(7, 1)]);

    // A reader that does not care sees all there is, and no list.
    let data = client.fetch("t", 0).await;
    assert_eq!((data.high_watermark, data.last_stable_offset), (5, 2));
    assert_eq!(data.aborted_transactions, None);
    let mut bytes: Bytes = data.records.0.concat().into();
    let mut markers = Vec::new();
    while !bytes.is_empty() {
        let batch = Batch::split_first(&mut bytes).unwrap();
        markers.extend(ControlRecord::from_batch(&batch).map(|m| (batch.base_offset(), m)));
    }
    let coordinator_epoch = 1;
    assert_eq!(markers, [(3, ControlRecord::Abort { coordinator_epoch })]);

    // At the last stable offset, and between it and the end, there is nothing to read yet, and no error.
    for offset in [2, 4] {
        let data = fetch(&mut client, committed("t", offset, 0, 1)).await;
        assert_eq!(data.error_code, NONE);
        assert!(data.records.0.is_empty());
    }
    let unknown = FetchRequest {
        isolation_level: 2,
        ..fetched("t", 0, 0, 100)
    };
    assert_eq!(client.ask(12, unknown).await.error_code, INVALID_REQUEST);
}

#[tokio::test]
async fn the_end_of_a_transaction_ends_the_wait_and_only_decided_bytes_count() {
    let server = Server::start().await;
    let (mut reader, mut writer) = (server.client().await, server.client().await);
    writer.create("t").await;
    let log = Log::of(&server, "t");
    log.write(7, 0, 10, &["in the transaction"]).await;
    // The wait is longer than any test: what is written meanwhile would be enough bytes, but nobody may see them yet.
    reader.send(12, &committed("t", 0, 250_000, 100)).await;
    writer.produce("t", batch(&[b"after"]).into_bytes()).await;
    log.end(7, true).await;
    let response = reader.receive::<FetchRequest>(12, 1).await;
    let data = &response.responses[0].partitions[0];
    assert_eq!(data.last_stable_offset, 3);
    assert_eq!(data.aborted_transactions.as_deref(), Some(&[][..]));
    let mut bytes: Bytes = data.records.0.concat().into();
    assert_eq!(Batch::split_first(&mut bytes).unwrap().base_offset(), 0);
}

#[tokio::test]
async fn the_latest_offset_of_a_reader_is_what_it_can_fetch() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    let log = Log::of(&server, "t");
    log.write(7, 0, 100, &["a"]).await;
    log.end(7, true).await;
    log.write(7, 1, 5_000_000_000_000, &["b"]).await;
    // -1: latest; -3: greatest timestamp; then a time that only the undecided record is late enough for.
    for (timestamp, isolation_level, offset) in [
        (-1, READ_UNCOMMITTED, 3),
        (-1, READ_COMMITTED, 2),
        (-3, READ_UNCOMMITTED, 2),
        (-3, READ_COMMITTED, -1),
        (4_999_999_999_999, READ_UNCOMMITTED, 2),
        (4_999_999_999_999, READ_COMMITTED, -1),
        (50, READ_COMMITTED, 0),
    ] {
        let found = offset_at(&mut client, timestamp, isolation_level).await;
        assert_eq!(
            (found.error_code, found.offset),
            (NONE, offset),
            "{timestamp} at isolation level {isolation_level}"
        );
    }
    let found = offset_at(&mut client, -1, 2).await;
    assert_eq!(found.error_code, INVALID_REQUEST);
}
