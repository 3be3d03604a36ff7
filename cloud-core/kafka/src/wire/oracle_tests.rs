//! Every message in every version that is served, against another implementation of the same schemas: what we write, it
//! must read and write back as the same bytes, and those we must read back as the same values.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as oracle;
use kafka_protocol::protocol::{Decodable, Encodable};

use super::writer::Writer;
use super::*;

/// A small generator (splitmix64), so that a failure is replayed by its seed.
pub struct Random(u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

fn seed() -> u64 {
    match std::env::var("TOWLINE_SEED") {
        Ok(text) => text.parse().expect("TOWLINE_SEED is a number"),
        Err(_) => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |time| time.as_nanos() as u64),
    }
}

fn body<M: Message>(message: &M, api: Api, version: i16) -> Bytes {
    let mut writer = Writer::new(version >= api.flexible_from());
    message.write(&mut writer, version);
    writer.into_frame().into_iter().skip(1).flatten().collect()
}

fn check<M, O>(api: Api, random: &mut Random)
where
    M: Message + PartialEq + std::fmt::Debug,
    O: Encodable + Decodable + std::fmt::Debug,
{
    for version in api.versions() {
        for _ in 0..20 {
            let message = M::sample(random, version);
            let bytes = body(&message, api, version);
            let mut rest = bytes.clone();
            let theirs = O::decode(&mut rest, version).unwrap_or_else(|error| {
                panic!("{api:?} v{version}: the oracle cannot read {message:?}: {error}")
            });
            assert!(
                rest.is_empty(),
                "{api:?} v{version}: the oracle leaves {} bytes of {message:?}",
                rest.len()
            );
            let mut back = BytesMut::new();
            theirs
                .encode(&mut back, version)
                .unwrap_or_else(|error| panic!("{api:?} v{version}: {theirs:?}: {error}"));
            assert_eq!(
                back, bytes,
                "{api:?} v{version}: {message:?} against {theirs:?}"
            );
            let mut reader = Reader::new(back.freeze(), version >= api.flexible_from());
            let read = M::read(&mut reader, version)
                .unwrap_or_else(|error| panic!("{api:?} v{version}: {error}"));
            assert_eq!(reader.left(), 0, "{api:?} v{version}");
            assert_eq!(read, message, "{api:?} v{version}");
            cut(&message, bytes, api, version, random);
        }
    }
}

/// A message cut short is refused, wherever the cut is, and a damaged one never does worse than being refused.
fn cut<M>(message: &M, bytes: Bytes, api: Api, version: i16, random: &mut Random)
where
    M: Message + std::fmt::Debug,
{
    let flexible = version >= api.flexible_from();
    if !bytes.is_empty() {
        let at = random.below(bytes.len() as u64) as usize;
        let mut reader = Reader::new(bytes.slice(..at), flexible);
        assert!(
            M::read(&mut reader, version).is_err(),
            "{api:?} v{version}: {message:?} cut at {at} is read"
        );
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1 << random.below(8);
        let _ = M::read(&mut Reader::new(damaged.into(), flexible), version);
    }
}

macro_rules! agree {
    ($( $test:ident: $module:ident, $request:ident, $response:ident; )*) => { $(
        #[test]
        fn $test() {
            let seed = seed();
            println!("TOWLINE_SEED={seed}");
            let random = &mut Random(seed);
            let api = <$module::$request as Request>::API;
            check::<$module::$request, oracle::$request>(api, random);
            check::<$module::$response, oracle::$response>(api, random);
        }
    )* };
}

agree! {
    produce: produce, ProduceRequest, ProduceResponse;
    fetch: fetch, FetchRequest, FetchResponse;
    list_offsets: list_offsets, ListOffsetsRequest, ListOffsetsResponse;
    metadata: metadata, MetadataRequest, MetadataResponse;
    offset_commit: offset_commit, OffsetCommitRequest, OffsetCommitResponse;
    offset_fetch: offset_fetch, OffsetFetchRequest, OffsetFetchResponse;
    find_coordinator: find_coordinator, FindCoordinatorRequest, FindCoordinatorResponse;
    join_group: join_group, JoinGroupRequest, JoinGroupResponse;
    heartbeat: heartbeat, HeartbeatRequest, HeartbeatResponse;
    leave_group: leave_group, LeaveGroupRequest, LeaveGroupResponse;
    sync_group: sync_group, SyncGroupRequest, SyncGroupResponse;
    describe_groups: describe_groups, DescribeGroupsRequest, DescribeGroupsResponse;
    list_groups: list_groups, ListGroupsRequest, ListGroupsResponse;
    api_versions: api_versions, ApiVersionsRequest, ApiVersionsResponse;
    create_topics: create_topics, CreateTopicsRequest, CreateTopicsResponse;
    delete_topics: delete_topics, DeleteTopicsRequest, DeleteTopicsResponse;
    delete_records: delete_records, DeleteRecordsRequest, DeleteRecordsResponse;
    init_producer_id: init_producer_id, InitProducerIdRequest, InitProducerIdResponse;
    offset_for_leader_epoch: offset_for_leader_epoch, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse;
    describe_configs: describe_configs, DescribeConfigsRequest, DescribeConfigsResponse;
    alter_configs: alter_configs, AlterConfigsRequest, AlterConfigsResponse;
    create_partitions: create_partitions, CreatePartitionsRequest, CreatePartitionsResponse;
    delete_groups: delete_groups, DeleteGroupsRequest, DeleteGroupsResponse;
    incremental_alter_configs: incremental_alter_configs, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse;
    offset_delete: offset_delete, OffsetDeleteRequest, OffsetDeleteResponse;
    sasl_handshake: sasl_handshake, SaslHandshakeRequest, SaslHandshakeResponse;
    sasl_authenticate: sasl_authenticate, SaslAuthenticateRequest, SaslAuthenticateResponse;
    describe_cluster: describe_cluster, DescribeClusterRequest, DescribeClusterResponse;
}
