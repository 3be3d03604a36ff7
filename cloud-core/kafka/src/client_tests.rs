// long: tests that share one client and one broker.
//! The front end over a real kernel and a real socket, spoken to by a client that is made of the same descriptions.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::{Buf, Bytes};
use frontend::{Anonymous, Context};
use kernel::{Kernel, KernelConfig, Ports};
use quota::{Quota, Quotas};
use record::{Batch, BatchBuilder, Header, NewRecord};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::error_code::*;
use crate::wire::writer::Writer;
use crate::wire::{
    Api, Message, Reader, Records, Request, RequestHeader, api_versions, create_topics, fetch,
    find_coordinator, heartbeat, init_producer_id, join_group, list_offsets, metadata,
    offset_commit, offset_fetch, offset_for_leader_epoch, produce, sync_group,
};

pub(crate) struct Server {
    dir: tempfile::TempDir,
    pub(crate) ctx: Context,
    addr: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Server {
        Server::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(dir: tempfile::TempDir) -> Server {
        let ctx = Context::new(open(dir.path()), dir.path()).unwrap();
        Server::serve(dir, ctx)
    }

    /// Anybody may come.
    pub(crate) fn open_to_all(quotas: Vec<Quota>) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let anonymous = Context::with(open(dir.path()), dir.path(), Anonymous::Allow, None);
        let ctx = Context {
            quotas: Quotas::new(quotas),
            ..anonymous.unwrap()
        };
        Server::serve(dir, ctx)
    }

    fn serve(dir: tempfile::TempDir, ctx: Context) -> Server {
        let listener = frontend::bind_tcp(([127, 0, 0, 1], 0).into(), 16).unwrap();
        let addr = listener.local_addr().unwrap();
        let task = crate::start(ctx.clone(), listener);
        Server {
            dir,
            ctx,
            addr,
            task,
        }
    }

    /// Until every connection has ended.
    pub(crate) async fn stop(&mut self) {
        self.ctx.shutdown.cancel();
        (&mut self.task).await.unwrap();
    }

    async fn restart(mut self) -> Server {
        self.stop().await;
        self.ctx.kernel.shutdown().await;
        drop(self.ctx);
        Server::start_in(self.dir).await
    }

    pub(crate) async fn client(&self) -> Client {
        Client {
            stream: TcpStream::connect(self.addr).await.unwrap(),
            correlation_id: 0,
        }
    }
}

fn open(dir: &Path) -> Kernel {
    Kernel::open(
        Ports::system(
            dir,
            std::sync::Arc::new(kernel::ports::MemoryColdStore::default()),
        )
        .unwrap(),
        KernelConfig::default(),
    )
    .unwrap()
}

pub(crate) struct Client {
    stream: TcpStream,
    correlation_id: i32,
}

impl Client {
    pub(crate) async fn send<R: Request>(&mut self, version: i16, request: &R) {
        self.correlation_id += 1;
        let header = RequestHeader {
            key: R::API.key(),
            version,
            correlation_id: self.correlation_id,
            client_id: Some("test".to_owned()),
        };
        let mut writer = Writer::new(false);
        header.write(&mut writer, R::API);
        request.write(&mut writer, version);
        self.stream
            .write_all(&writer.into_frame().concat())
            .await
            .unwrap();
    }

    /// `None`: the connection has ended.
    pub(crate) async fn frame(&mut self) -> Option<Bytes> {
        let length = self.stream.read_u32().await.ok()?;
        let mut frame = vec![0; length as usize];
        self.stream.read_exact(&mut frame).await.ok()?;
        Some(frame.into())
    }

    pub(crate) async fn receive<R: Request>(
        &mut self,
        version: i16,
        correlation_id: i32,
    ) -> R::Response {
        let mut frame = self.frame().await.expect("an answer");
        assert_eq!(
            frame.get_i32(),
            correlation_id,
            "answers come in the order of the requests"
        );
        let flexible = version >= R::API.flexible_from();
        if flexible && R::API != Api::ApiVersions {
            assert_eq!(frame.get_u8(), 0);
        }
        let mut reader = Reader::new(frame, flexible);
        let response = R::Response::read(&mut reader, version).unwrap();
        assert_eq!(reader.left(), 0);
        response
    }

    pub(crate) async fn ask<R: Request>(&mut self, version: i16, request: R) -> R::Response {
        self.send(version, &request).await;
        self.receive::<R>(version, self.correlation_id).await
    }

    pub(crate) async fn create(&mut self, name: &str) {
        let topics = vec![create_topics::CreatableTopic {
            name: name.to_owned(),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        }];
        let request = create_topics::CreateTopicsRequest {
            topics,
            ..Default::default()
        };
        assert_eq!(self.ask(5, request).await.topics[0].error_code, NONE);
    }

    pub(crate) async fn produce(&mut self, topic: &str, records: Bytes) -> (i16, i64) {
        let response = self.ask(9, produced(topic, records, -1)).await;
        let partition = &response.responses[0].partition_responses[0];
        (partition.error_code, partition.base_offset)
    }

    pub(crate) async fn fetch(&mut self, topic: &str, offset: i64) -> fetch::PartitionData {
        let response = self.ask(12, fetched(topic, offset, 0, 1 << 20)).await;
        assert_eq!((response.error_code, response.session_id), (NONE, 0));
        response.responses[0].partitions[0].clone()
    }
}

pub(crate) fn batch(values: &[&'static [u8]]) -> Batch {
    numbered(values, -1, -1)
}

fn numbered(values: &[&'static [u8]], producer_id: i64, sequence: i32) -> Batch {
    let epoch = if producer_id < 0 { -1 } else { 0 };
    let mut builder = BatchBuilder::new().producer(producer_id, epoch, sequence);
    for value in values {
        let value = Some(Bytes::from_static(value));
        builder
            .push(&NewRecord {
                timestamp: 1_000,
                key: None,
                value,
                headers: Vec::new(),
            })
            .unwrap();
    }
    builder.build().unwrap()
}

pub(crate) fn produced(topic: &str, records: Bytes, acks: i16) -> produce::ProduceRequest {
    let partition = produce::PartitionProduceData {
        index: 0,
        records: Some(records),
    };
    produce::ProduceRequest {
        acks,
        timeout_ms: 30_000,
        topic_data: vec![produce::TopicProduceData {
            name: topic.to_owned(),
            partition_data: vec![partition],
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub(crate) fn fetched(
    topic: &str,
    fetch_offset: i64,
    max_wait_ms: i32,
    partition_max_bytes: i32,
) -> fetch::FetchRequest {
    let partition = fetch::FetchPartition {
        fetch_offset,
        partition_max_bytes,
        ..Default::default()
    };
    fetch::FetchRequest {
        max_wait_ms,
        min_bytes: 1,
        topics: vec![fetch::FetchTopic {
            topic: topic.to_owned(),
            partitions: vec![partition],
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub(crate) fn values(records: &Records) -> Vec<Bytes> {
    let mut bytes: Bytes = records.0.concat().into();
    let mut values = Vec::new();
    while !bytes.is_empty() {
        let batch = Batch::split_first(&mut bytes).unwrap();
        values.extend(
            batch
                .records()
                .unwrap()
                .map(|record| record.unwrap().value.unwrap()),
        );
    }
    values
}

#[tokio::test]
async fn what_was_produced_is_fetched_as_the_same_bytes_after_a_restart_too() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    let sent = batch(&[b"one", b"two"]);
    assert_eq!(client.produce("t", sent.bytes().clone()).await, (NONE, 0));
    assert_eq!(client.produce("t", sent.bytes().clone()).await, (NONE, 2));
    let server = server.restart().await;
    let mut client = server.client().await;
    let data = client.fetch("t", 2).await;
    assert_eq!(
        (data.error_code, data.high_watermark, data.log_start_offset),
        (NONE, 4, 0)
    );
    let got: Bytes = data.records.0.concat().into();
    // All but base offset and leader epoch, the two fields outside the checksum.
    assert_eq!(got[8..12], sent.bytes()[8..12]);
    assert_eq!(got[16..], sent.bytes()[16..]);
    assert_eq!(Batch::parse(got).unwrap().base_offset(), 2);
    assert_eq!(client.fetch("t", 5).await.error_code, OFFSET_OUT_OF_RANGE);
    assert_eq!(
        client.fetch("nowhere", 0).await.error_code,
        UNKNOWN_TOPIC_OR_PARTITION
    );
}

#[tokio::test]
async fn a_fetch_waits_for_a_commit_and_answers_stay_in_order() {
    let server = Server::start().await;
    let (mut reader, mut writer) = (server.client().await, server.client().await);
    writer.create("t").await;
    // The wait is longer than any test: only the commit can end it.
    reader.send(12, &fetched("t", 0, 250_000, 1 << 20)).await;
    reader
        .send(
            0,
            &find_coordinator::FindCoordinatorRequest {
                key: "g".to_owned(),
                ..Default::default()
            },
        )
        .await;
    assert_eq!(
        writer.produce("t", batch(&[b"now"]).into_bytes()).await,
        (NONE, 0)
    );
    let response = reader.receive::<fetch::FetchRequest>(12, 1).await;
    assert_eq!(
        values(&response.responses[0].partitions[0].records),
        ["now"]
    );
    assert_eq!(
        reader
            .receive::<find_coordinator::FindCoordinatorRequest>(0, 2)
            .await
            .node_id,
        1
    );
}

#[tokio::test]
async fn pipelined_produces_keep_their_order() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    let id = client
        .ask(4, init_producer_id::InitProducerIdRequest::default())
        .await
        .producer_id;
    let first = client.correlation_id + 1;
    for sequence in 0..200 {
        let records = numbered(&[b"x"], id, sequence).into_bytes();
        client.send(7, &produced("t", records, -1)).await;
    }
    for sequence in 0..200 {
        let response = client
            .receive::<produce::ProduceRequest>(7, first + sequence)
            .await;
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!(
            (partition.error_code, partition.base_offset),
            (NONE, i64::from(sequence))
        );
    }
    let again = numbered(&[b"x"], id, 199).into_bytes();
    assert_eq!(
        client.produce("t", again).await,
        (NONE, 199),
        "a repeated batch is not appended again"
    );
    let gap = numbered(&[b"x"], id, 300).into_bytes();
    assert_eq!(
        client.produce("t", gap).await.0,
        OUT_OF_ORDER_SEQUENCE_NUMBER
    );
}

#[tokio::test]
async fn bad_batches_are_refused_and_the_connection_goes_on() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    let good = batch(&[b"x"]).into_bytes();
    let changed = |at: usize, to: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = to;
        Bytes::from(bytes)
    };
    let transactional = {
        let mut builder = BatchBuilder::new().producer(7, 0, 0).transactional();
        builder
            .push(&NewRecord {
                timestamp: 0,
                key: None,
                value: None,
                headers: Vec::new(),
            })
            .unwrap();
        builder.build().unwrap().into_bytes()
    };
    let two = Bytes::from([&good[..], &good[..]].concat());
    for (what, bytes, code) in [
        ("old format", changed(16, 1), UNSUPPORTED_FOR_MESSAGE_FORMAT),
        ("damaged", changed(good.len() - 2, 0xff), CORRUPT_MESSAGE),
        ("cut off", good.slice(..good.len() - 1), CORRUPT_MESSAGE),
        ("nothing", Bytes::new(), CORRUPT_MESSAGE),
        ("two batches", two, INVALID_RECORD),
        ("transactional", transactional, INVALID_TXN_STATE),
        (
            "an edge's producer",
            numbered(&[b"x"], (1 << 62) | 5, 0).into_bytes(),
            INVALID_PRODUCER_ID_MAPPING,
        ),
    ] {
        assert_eq!(client.produce("t", bytes).await.0, code, "{what}");
    }
    assert_eq!(
        client
            .ask(9, produced("t", good.clone(), 2))
            .await
            .responses[0]
            .partition_responses[0]
            .error_code,
        INVALID_REQUIRED_ACKS
    );
    assert_eq!(
        client.produce("t", good).await,
        (NONE, 0),
        "nothing of the above is in the log"
    );
}

#[tokio::test]
async fn reserved_headers_of_clients_are_removed() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    let header = |name: &'static str| Header {
        name: Bytes::from_static(name.as_bytes()),
        value: Some(Bytes::from_static(b"v")),
    };
    let mut builder = BatchBuilder::new();
    builder
        .push(&NewRecord {
            timestamp: 0,
            key: None,
            value: None,
            headers: vec![header("_tl.mqtt"), header("mine")],
        })
        .unwrap();
    assert_eq!(
        client
            .produce("t", builder.build().unwrap().into_bytes())
            .await,
        (NONE, 0)
    );
    let stored: Bytes = client.fetch("t", 0).await.records.0.concat().into();
    let record = Batch::parse(stored)
        .unwrap()
        .records()
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(record.headers, [header("mine")]);
}

#[tokio::test]
async fn acks_0_has_no_answer_and_its_failure_closes_the_connection() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    client
        .send(9, &produced("t", batch(&[b"x"]).into_bytes(), 0))
        .await;
    // The next answer is that of the next request, and it sees what came before.
    let data = client.fetch("t", 0).await;
    assert_eq!(data.high_watermark, 1);
    client
        .send(9, &produced("nowhere", batch(&[b"x"]).into_bytes(), 0))
        .await;
    assert!(client.frame().await.is_none());
}

#[tokio::test]
async fn a_batch_larger_than_every_limit_of_a_fetch_comes_alone() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    for _ in 0..2 {
        assert_eq!(
            client
                .produce("t", batch(&[&[7; 5000]]).into_bytes())
                .await
                .0,
            NONE
        );
    }
    let response = client.ask(12, fetched("t", 0, 0, 100)).await;
    assert_eq!(
        values(&response.responses[0].partitions[0].records).len(),
        1
    );
}

#[tokio::test]
async fn offsets_by_name_and_by_time() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    for timestamps in [[10, 30], [20, 40]] {
        let mut builder = BatchBuilder::new();
        for timestamp in timestamps {
            builder
                .push(&NewRecord {
                    timestamp,
                    key: None,
                    value: None,
                    headers: Vec::new(),
                })
                .unwrap();
        }
        assert_eq!(
            client
                .produce("t", builder.build().unwrap().into_bytes())
                .await
                .0,
            NONE
        );
    }
    // -1 latest, -2 earliest, -3 greatest timestamp, -4 earliest local, -5 latest tiered; then timestamps.
    for (timestamp, offset, at) in [
        (-1, 4, -1),
        (-2, 0, -1),
        (-3, 3, 40),
        (-4, 0, -1),
        (-5, -1, -1),
        (0, 0, 10),
        (11, 1, 30),
        (31, 3, 40),
        (41, -1, -1),
    ] {
        let partitions = vec![list_offsets::ListOffsetsPartition {
            timestamp,
            ..Default::default()
        }];
        let topics = vec![list_offsets::ListOffsetsTopic {
            name: "t".to_owned(),
            partitions,
        }];
        let response = client
            .ask(
                9,
                list_offsets::ListOffsetsRequest {
                    topics,
                    ..Default::default()
                },
            )
            .await;
        let found = &response.topics[0].partitions[0];
        assert_eq!(
            (found.error_code, found.offset, found.timestamp),
            (NONE, offset, at),
            "{timestamp}"
        );
    }
}

#[tokio::test]
async fn a_topic_made_again_has_another_id_and_a_higher_epoch() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let ask = |create| metadata::MetadataRequest {
        topics: Some(vec![metadata::MetadataRequestTopic {
            name: Some("t".to_owned()),
            ..Default::default()
        }]),
        allow_auto_topic_creation: create,
        ..Default::default()
    };
    assert_eq!(
        client.ask(12, ask(false)).await.topics[0].error_code,
        UNKNOWN_TOPIC_OR_PARTITION
    );
    let before = client.ask(12, ask(true)).await.topics[0].clone();
    assert_eq!(before.error_code, NONE);
    let delete = crate::wire::delete_topics::DeleteTopicsRequest {
        topic_names: vec!["t".to_owned()],
        ..Default::default()
    };
    assert_eq!(client.ask(4, delete).await.responses[0].error_code, NONE);
    let after = client.ask(12, ask(true)).await.topics[0].clone();
    assert_ne!(after.topic_id, before.topic_id);
    assert!(after.partitions[0].leader_epoch > before.partitions[0].leader_epoch);
    // What the metadata says is what the batches carry, and the older epoch ended where this log begins.
    let epoch = after.partitions[0].leader_epoch;
    client.produce("t", batch(&[b"one"]).into_bytes()).await;
    let records: Bytes = client.fetch("t", 0).await.records.0.concat().into();
    assert_eq!(Batch::parse(records).unwrap().leader_epoch(), epoch);
    for (asked, found) in [
        (epoch, (epoch, 1)),
        (before.partitions[0].leader_epoch, (epoch - 1, 0)),
        (epoch + 1, (-1, -1)),
        (-1, (-1, -1)),
    ] {
        let partition = offset_for_leader_epoch::OffsetForLeaderPartition {
            leader_epoch: asked,
            ..Default::default()
        };
        let request = offset_for_leader_epoch::OffsetForLeaderEpochRequest {
            topics: vec![offset_for_leader_epoch::OffsetForLeaderTopic {
                topic: "t".to_owned(),
                partitions: vec![partition],
            }],
            ..Default::default()
        };
        let answer = client.ask(4, request).await.topics[0].partitions[0].clone();
        assert_eq!(answer.error_code, NONE);
        assert_eq!((answer.leader_epoch, answer.end_offset), found, "{asked}");
    }
    let mut old = fetched("", 0, 0, 100);
    old.topics[0].topic_id = before.topic_id;
    assert_eq!(
        client.ask(16, old).await.responses[0].partitions[0].error_code,
        UNKNOWN_TOPIC_ID
    );
}

#[tokio::test]
async fn commits_survive_a_restart_and_a_member_of_before_is_unknown() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create("t").await;
    assert_eq!(
        client
            .produce("t", batch(&[b"a", b"b"]).into_bytes())
            .await
            .0,
        NONE
    );
    let join = |member_id: &str| join_group::JoinGroupRequest {
        group_id: "g".to_owned(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        member_id: member_id.to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![join_group::JoinGroupRequestProtocol {
            name: "range".to_owned(),
            metadata: Bytes::new(),
        }],
        ..Default::default()
    };
    let first = client.ask(6, join("")).await;
    assert_eq!(first.error_code, MEMBER_ID_REQUIRED);
    let joined = client.ask(6, join(&first.member_id)).await;
    assert_eq!(
        (joined.error_code, joined.leader),
        (NONE, joined.member_id.clone())
    );
    let sync = sync_group::SyncGroupRequest {
        group_id: "g".to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        assignments: vec![sync_group::SyncGroupRequestAssignment {
            member_id: joined.member_id.clone(),
            assignment: Bytes::from_static(b"all"),
        }],
        ..Default::default()
    };
    assert_eq!(client.ask(4, sync).await.assignment, "all");
    let commit = |offset, generation| offset_commit::OffsetCommitRequest {
        group_id: "g".to_owned(),
        generation_id_or_member_epoch: generation,
        member_id: joined.member_id.clone(),
        topics: vec![offset_commit::OffsetCommitRequestTopic {
            name: "t".to_owned(),
            partitions: vec![offset_commit::OffsetCommitRequestPartition {
                committed_offset: offset,
                committed_metadata: Some("note".to_owned()),
                ..Default::default()
            }],
        }],
        ..Default::default()
    };
    let code =
        |response: offset_commit::OffsetCommitResponse| response.topics[0].partitions[0].error_code;
    assert_eq!(
        code(client.ask(8, commit(2, joined.generation_id)).await),
        NONE
    );
    assert_eq!(
        code(client.ask(8, commit(1, joined.generation_id - 1)).await),
        ILLEGAL_GENERATION
    );
    let server = server.restart().await;
    let mut client = server.client().await;
    let heartbeat = heartbeat::HeartbeatRequest {
        group_id: "g".to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        ..Default::default()
    };
    assert_eq!(client.ask(3, heartbeat).await.error_code, UNKNOWN_MEMBER_ID);
    let fetch = offset_fetch::OffsetFetchRequest {
        group_id: "g".to_owned(),
        topics: None,
        ..Default::default()
    };
    let found = client.ask(7, fetch).await;
    let position = &found.topics[0].partitions[0];
    assert_eq!(
        (position.committed_offset, position.metadata.as_deref()),
        (2, Some("note"))
    );
}

#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    let server = Server::start().await;
    let produce_of_4_gib = [&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 9][..], &[0; 100]].concat();
    let array_of_2_billion = [
        &[0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff][..],
        &[0x7f, 0xff, 0xff, 0xff],
    ]
    .concat();
    let unknown_api = [0, 0, 0, 10, 0, 68, 0, 0, 0, 0, 0, 1, 0xff, 0xff].to_vec();
    let http = b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n".to_vec();
    for bytes in [produce_of_4_gib, array_of_2_billion, unknown_api, http] {
        let mut client = server.client().await;
        client.stream.write_all(&bytes).await.unwrap();
        assert!(client.frame().await.is_none(), "{bytes:?}");
    }
    let versions = server
        .client()
        .await
        .ask(3, api_versions::ApiVersionsRequest::default())
        .await;
    assert_eq!(versions.api_keys.len(), Api::ALL.len());
    assert_eq!(
        (
            versions.api_keys[0].api_key,
            versions.api_keys[0].min_version
        ),
        (0, 0),
        "librdkafka looks at this one"
    );
    // A frame that never ends holds nobody up.
    let mut slow = server.client().await;
    slow.stream.write_all(&[0, 0, 1, 0, 0, 3]).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), server.client().await.create("t"))
        .await
        .unwrap();
}
