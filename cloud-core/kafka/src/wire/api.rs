//! The APIs that are served, in which versions. What is not here is not advertised and not understood.

use std::ops::RangeInclusive;

use super::message::Message;

/// A request, and what answers it.
pub trait Request: Message {
    /// Which API it belongs to.
    const API: Api;
    /// The type of its answer.
    type Response: Message + Default;
}

macro_rules! apis {
    ($( $name:ident = $key:literal, $module:ident :: $request:ident => $response:ident, $versions:expr, flexible $flexible:expr; )*) => {
        /// An API by its name in the protocol.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(clippy::enum_variant_names, reason = "ApiVersions is the protocol's own word")]
        pub enum Api { $( $name = $key, )* }

        impl Api {
            /// All of them, by key.
            pub const ALL: &[Api] = &[ $( Api::$name, )* ];

            /// The API with this key.
            pub fn from_key(key: i16) -> Option<Api> {
                match key { $( $key => Some(Api::$name), )* _ => None }
            }

            /// The versions that are understood.
            pub fn versions(self) -> RangeInclusive<i16> {
                match self { $( Api::$name => $versions, )* }
            }

            /// The first version with compact lengths and tagged fields.
            pub fn flexible_from(self) -> i16 {
                match self { $( Api::$name => $flexible, )* }
            }
        }

        $(
            impl Request for super::$module::$request {
                const API: Api = Api::$name;
                type Response = super::$module::$response;
            }
        )*
    };
}

apis! {
    Produce = 0, produce::ProduceRequest => ProduceResponse, 3..=13, flexible 9;
    Fetch = 1, fetch::FetchRequest => FetchResponse, 4..=17, flexible 12;
    ListOffsets = 2, list_offsets::ListOffsetsRequest => ListOffsetsResponse, 1..=10, flexible 6;
    Metadata = 3, metadata::MetadataRequest => MetadataResponse, 0..=13, flexible 9;
    OffsetCommit = 8, offset_commit::OffsetCommitRequest => OffsetCommitResponse, 2..=9, flexible 8;
    OffsetFetch = 9, offset_fetch::OffsetFetchRequest => OffsetFetchResponse, 1..=9, flexible 6;
    FindCoordinator = 10, find_coordinator::FindCoordinatorRequest => FindCoordinatorResponse, 0..=6, flexible 3;
    JoinGroup = 11, join_group::JoinGroupRequest => JoinGroupResponse, 0..=9, flexible 6;
    Heartbeat = 12, heartbeat::HeartbeatRequest => HeartbeatResponse, 0..=4, flexible 4;
    LeaveGroup = 13, leave_group::LeaveGroupRequest => LeaveGroupResponse, 0..=5, flexible 4;
    SyncGroup = 14, sync_group::SyncGroupRequest => SyncGroupResponse, 0..=5, flexible 4;
    DescribeGroups = 15, describe_groups::DescribeGroupsRequest => DescribeGroupsResponse, 0..=6, flexible 5;
    ListGroups = 16, list_groups::ListGroupsRequest => ListGroupsResponse, 0..=5, flexible 3;
    SaslHandshake = 17, sasl_handshake::SaslHandshakeRequest => SaslHandshakeResponse, 0..=1, flexible i16::MAX;
    ApiVersions = 18, api_versions::ApiVersionsRequest => ApiVersionsResponse, 0..=4, flexible 3;
    CreateTopics = 19, create_topics::CreateTopicsRequest => CreateTopicsResponse, 2..=7, flexible 5;
    DeleteTopics = 20, delete_topics::DeleteTopicsRequest => DeleteTopicsResponse, 1..=6, flexible 4;
    DeleteRecords = 21, delete_records::DeleteRecordsRequest => DeleteRecordsResponse, 0..=2, flexible 2;
    InitProducerId = 22, init_producer_id::InitProducerIdRequest => InitProducerIdResponse, 0..=5, flexible 2;
    OffsetForLeaderEpoch = 23, offset_for_leader_epoch::OffsetForLeaderEpochRequest => OffsetForLeaderEpochResponse, 2..=4, flexible 4;
    DescribeConfigs = 32, describe_configs::DescribeConfigsRequest => DescribeConfigsResponse, 1..=4, flexible 4;
    AlterConfigs = 33, alter_configs::AlterConfigsRequest => AlterConfigsResponse, 0..=2, flexible 2;
    SaslAuthenticate = 36, sasl_authenticate::SaslAuthenticateRequest => SaslAuthenticateResponse, 0..=2, flexible 2;
    CreatePartitions = 37, create_partitions::CreatePartitionsRequest => CreatePartitionsResponse, 0..=3, flexible 2;
    DeleteGroups = 42, delete_groups::DeleteGroupsRequest => DeleteGroupsResponse, 0..=2, flexible 2;
    IncrementalAlterConfigs = 44, incremental_alter_configs::IncrementalAlterConfigsRequest => IncrementalAlterConfigsResponse, 0..=1, flexible 1;
    OffsetDelete = 47, offset_delete::OffsetDeleteRequest => OffsetDeleteResponse, 0..=0, flexible i16::MAX;
    DescribeCluster = 60, describe_cluster::DescribeClusterRequest => DescribeClusterResponse, 0..=2, flexible 0;
}

impl Api {
    /// The number on the wire.
    pub fn key(self) -> i16 {
        self as i16
    }

    /// The oldest version that ApiVersions names. librdkafka takes a broker whose Produce begins above 2 for one without
    /// lz4 and message timestamps, so Produce is said to begin at 0, as Kafka 4 itself does (KIP-896); what comes below
    /// [`Api::versions`] is refused.
    pub fn advertised_from(self) -> i16 {
        match self {
            Api::Produce => 0,
            other => *other.versions().start(),
        }
    }
}
