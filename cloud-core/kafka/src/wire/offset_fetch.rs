//! OffsetFetch (key 9): reading a group's positions.

use super::message::message;

message! {
    /// What a client asks.
    OffsetFetchRequest {
        group_id: String, 0..=7;
        topics: Option<Vec<OffsetFetchRequestTopic>>, 0..=7, null 2..=7;
        groups: Vec<OffsetFetchRequestGroup>, 8..;
        require_stable: bool, 7..;
    }
}

message! {
    /// Part of [`OffsetFetchRequest`].
    OffsetFetchRequestTopic {
        name: String, 0..=7;
        partition_indexes: Vec<i32>, 0..=7;
    }
}

message! {
    /// Part of [`OffsetFetchRequest`].
    OffsetFetchRequestGroup {
        group_id: String, 8..;
        member_id: Option<String>, 9..;
        member_epoch: i32, 9.., default -1;
        topics: Option<Vec<OffsetFetchRequestTopics>>, 8..;
    }
}

message! {
    /// Part of [`OffsetFetchRequest`].
    OffsetFetchRequestTopics {
        name: String, 8..;
        partition_indexes: Vec<i32>, 8..;
    }
}

message! {
    /// What it gets.
    OffsetFetchResponse {
        throttle_time_ms: i32, 3..;
        topics: Vec<OffsetFetchResponseTopic>, 0..=7;
        error_code: i16, 2..=7;
        groups: Vec<OffsetFetchResponseGroup>, 8..;
    }
}

message! {
    /// Part of [`OffsetFetchResponse`].
    OffsetFetchResponseTopic {
        name: String, 0..=7;
        partitions: Vec<OffsetFetchResponsePartition>, 0..=7;
    }
}

message! {
    /// Part of [`OffsetFetchResponse`].
    OffsetFetchResponsePartition {
        partition_index: i32, 0..=7;
        committed_offset: i64, 0..=7;
        committed_leader_epoch: i32, 5..=7, default -1;
        metadata: Option<String>, 0..=7;
        error_code: i16, 0..=7;
    }
}

message! {
    /// Part of [`OffsetFetchResponse`].
    OffsetFetchResponseGroup {
        group_id: String, 8..;
        topics: Vec<OffsetFetchResponseTopics>, 8..;
        error_code: i16, 8..;
    }
}

message! {
    /// Part of [`OffsetFetchResponse`].
    OffsetFetchResponseTopics {
        name: String, 8..;
        partitions: Vec<OffsetFetchResponsePartitions>, 8..;
    }
}

message! {
    /// Part of [`OffsetFetchResponse`].
    OffsetFetchResponsePartitions {
        partition_index: i32, 8..;
        committed_offset: i64, 8..;
        committed_leader_epoch: i32, 8.., default -1;
        metadata: Option<String>, 8..;
        error_code: i16, 8..;
    }
}
