//! Doors for `tests/fuzz`, no part of the API: what is read before anything is known about who sends it.

use bytes::Bytes;
use futures_util::FutureExt;

use crate::receive::Receiver;
use crate::wire::{self, Api, Reader, Request, RequestHeader};

/// Everything a connection reads, up to the first error: the frames.
pub fn stream(bytes: &[u8]) -> Vec<Bytes> {
    let mut receiver = Receiver::new(bytes);
    let mut frames = Vec::new();
    while let Some(Ok(Some(frame))) = receiver.next().now_or_never() {
        frames.push(frame);
    }
    frames
}

/// A request: its API key, its version, and its body as it is written again.
pub fn request(frame: Bytes) -> Option<(i16, i16, Bytes)> {
    let mut reader = Reader::new(frame, false);
    let (header, api) = RequestHeader::read(&mut reader).ok()?;
    Some((
        header.key,
        header.version,
        body_of(api.ok()?, header.version, reader)?,
    ))
}

/// The body of a request.
pub fn body(key: i16, version: i16, bytes: Bytes) -> Option<Bytes> {
    let api = Api::from_key(key)?;
    body_of(
        api,
        version,
        Reader::new(bytes, version >= api.flexible_from()),
    )
}

/// The metadata that a consumer joins a group with.
pub fn subscription(metadata: &Bytes) -> Option<Vec<String>> {
    crate::group::subscription::topics(metadata)
}

fn body_of(api: Api, version: i16, reader: Reader) -> Option<Bytes> {
    match api {
        Api::Produce => again::<wire::produce::ProduceRequest>(version, reader),
        Api::Fetch => again::<wire::fetch::FetchRequest>(version, reader),
        Api::ListOffsets => again::<wire::list_offsets::ListOffsetsRequest>(version, reader),
        Api::Metadata => again::<wire::metadata::MetadataRequest>(version, reader),
        Api::OffsetCommit => again::<wire::offset_commit::OffsetCommitRequest>(version, reader),
        Api::OffsetFetch => again::<wire::offset_fetch::OffsetFetchRequest>(version, reader),
        Api::FindCoordinator => {
            again::<wire::find_coordinator::FindCoordinatorRequest>(version, reader)
        }
        Api::JoinGroup => again::<wire::join_group::JoinGroupRequest>(version, reader),
        Api::Heartbeat => again::<wire::heartbeat::HeartbeatRequest>(version, reader),
        Api::LeaveGroup => again::<wire::leave_group::LeaveGroupRequest>(version, reader),
        Api::SyncGroup => again::<wire::sync_group::SyncGroupRequest>(version, reader),
        Api::DescribeGroups => {
            again::<wire::describe_groups::DescribeGroupsRequest>(version, reader)
        }
        Api::ListGroups => again::<wire::list_groups::ListGroupsRequest>(version, reader),
        Api::SaslHandshake => again::<wire::sasl_handshake::SaslHandshakeRequest>(version, reader),
        Api::SaslAuthenticate => {
            again::<wire::sasl_authenticate::SaslAuthenticateRequest>(version, reader)
        }
        Api::ApiVersions => again::<wire::api_versions::ApiVersionsRequest>(version, reader),
        Api::CreateTopics => again::<wire::create_topics::CreateTopicsRequest>(version, reader),
        Api::DeleteTopics => again::<wire::delete_topics::DeleteTopicsRequest>(version, reader),
        Api::DeleteRecords => again::<wire::delete_records::DeleteRecordsRequest>(version, reader),
        Api::InitProducerId => {
            again::<wire::init_producer_id::InitProducerIdRequest>(version, reader)
        }
        Api::OffsetForLeaderEpoch => {
            again::<wire::offset_for_leader_epoch::OffsetForLeaderEpochRequest>(version, reader)
        }
        Api::DescribeConfigs => {
            again::<wire::describe_configs::DescribeConfigsRequest>(version, reader)
        }
        Api::AlterConfigs => again::<wire::alter_configs::AlterConfigsRequest>(version, reader),
        Api::CreatePartitions => {
            again::<wire::create_partitions::CreatePartitionsRequest>(version, reader)
        }
        Api::DeleteGroups => again::<wire::delete_groups::DeleteGroupsRequest>(version, reader),
        Api::IncrementalAlterConfigs => again::<
            wire::incremental_alter_configs::IncrementalAlterConfigsRequest,
        >(version, reader),
        Api::OffsetDelete => again::<wire::offset_delete::OffsetDeleteRequest>(version, reader),
        Api::DescribeCluster => {
            again::<wire::describe_cluster::DescribeClusterRequest>(version, reader)
        }
    }
}

fn again<R: Request>(version: i16, mut reader: Reader) -> Option<Bytes> {
    let request = R::read(&mut reader, version).ok()?;
    let mut writer = wire::Writer::new(version >= R::API.flexible_from());
    request.write(&mut writer, version);
    Some(writer.into_frame().into_iter().skip(1).flatten().collect())
}
