//! Requests of the Kafka protocol, written by another implementation of it: every API in its oldest and newest version that is served.

use bytes::BytesMut;
use kafka_protocol::messages as m;
use kafka_protocol::protocol::{Encodable, StrBytes};

fn name(text: &'static str) -> m::TopicName {
    m::TopicName(StrBytes::from_static_str(text))
}

fn write<T: Encodable>(key: u8, version: u8, request: &T, all: &mut Vec<Vec<u8>>) {
    let mut body = BytesMut::new();
    if request.encode(&mut body, i16::from(version)).is_ok() {
        all.push([&[key, version][..], &body].concat());
    }
}

macro_rules! empty {
    ($all:ident: $( $request:ident $key:literal $oldest:literal $newest:literal; )*) => { $(
        write($key, $oldest, &m::$request::default(), $all);
        write($key, $newest, &m::$request::default(), $all);
    )* };
}

/// Key, version, body.
pub fn kafka_bodies() -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let all = &mut bodies;
    empty! { all:
        ProduceRequest 0 3 13; FetchRequest 1 4 17; ListOffsetsRequest 2 1 10; MetadataRequest 3 1 13; OffsetCommitRequest 8 2 9;
        OffsetFetchRequest 9 2 9; FindCoordinatorRequest 10 0 6; JoinGroupRequest 11 0 9; HeartbeatRequest 12 0 4;
        LeaveGroupRequest 13 0 5; SyncGroupRequest 14 0 5; DescribeGroupsRequest 15 0 6; ListGroupsRequest 16 0 5;
        ApiVersionsRequest 18 0 4; CreateTopicsRequest 19 2 7; DeleteTopicsRequest 20 1 6; DeleteRecordsRequest 21 0 2;
        InitProducerIdRequest 22 0 5; OffsetForLeaderEpochRequest 23 2 4; DescribeConfigsRequest 32 1 4; AlterConfigsRequest 33 0 2;
        CreatePartitionsRequest 37 0 3; DeleteGroupsRequest 42 0 2; IncrementalAlterConfigsRequest 44 0 1; OffsetDeleteRequest 47 0 0;
        DescribeClusterRequest 60 0 2;
    }
    use m::{
        fetch_request as f, join_group_request as j, offset_commit_request as o,
        produce_request as p,
    };
    let records = super::inputs::batches().remove(0).into();
    let partition = p::PartitionProduceData::default().with_records(Some(records));
    let topic = p::TopicProduceData::default()
        .with_name(name("orders"))
        .with_partition_data(vec![partition]);
    let produce = m::ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(1_000)
        .with_topic_data(vec![topic]);
    let topic = f::FetchTopic::default()
        .with_topic(name("orders"))
        .with_partitions(vec![f::FetchPartition::default()]);
    let fetch = m::FetchRequest::default()
        .with_max_wait_ms(500)
        .with_topics(vec![topic]);
    let subscription = b"\0\x01\0\0\0\x01\0\x06orders\xff\xff\xff\xff".as_slice();
    let protocol = j::JoinGroupRequestProtocol::default()
        .with_name(StrBytes::from_static_str("range"))
        .with_metadata(subscription.into());
    let join = m::JoinGroupRequest::default()
        .with_group_id(m::GroupId(StrBytes::from_static_str("g")))
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![protocol]);
    let partition = o::OffsetCommitRequestPartition::default().with_committed_offset(7);
    let topic = o::OffsetCommitRequestTopic::default()
        .with_name(name("orders"))
        .with_partitions(vec![partition]);
    let commit = m::OffsetCommitRequest::default().with_topics(vec![topic]);
    for version in [3, 9, 12] {
        write(0, version, &produce, all);
    }
    for version in [4, 12] {
        write(1, version, &fetch, all);
    }
    for version in [0, 5, 9] {
        write(11, version, &join, all);
    }
    for version in [2, 8] {
        write(8, version, &commit, all);
    }
    bodies
}

/// The same as frames of a connection: all of them one by one, and a few together.
pub fn kafka_streams() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = kafka_bodies()
        .iter()
        .map(|body| {
            // Length, key, version, correlation id, client id. Flexible headers have a byte of tagged fields, which a zero is too
            // where the header has none: the body is then damaged, which is no loss here.
            let head = [0, body[0], 0, body[1], 0, 0, 0, 1, 0, 1, b'c'];
            let tags: &[u8] =
                if kafka::fuzzing::request([&head[..], &body[2..]].concat().into()).is_some() {
                    &[]
                } else {
                    &[0]
                };
            let frame = [&head[..], tags, &body[2..]].concat();
            [&(frame.len() as u32).to_be_bytes()[..], &frame].concat()
        })
        .collect();
    all.push(all.iter().take(12).flatten().copied().collect());
    all
}
