//! OffsetCommit (key 8): storing a group's positions.

use super::message::message;

message! {
    /// What a client asks.
    OffsetCommitRequest {
        group_id: String, 0..;
        generation_id_or_member_epoch: i32, 0.., default -1;
        member_id: String, 0..;
        group_instance_id: Option<String>, 7..;
        retention_time_ms: i64, 0..=4, default -1;
        topics: Vec<OffsetCommitRequestTopic>, 0..;
    }
}

message! {
    /// Part of [`OffsetCommitRequest`].
    OffsetCommitRequestTopic {
        name: String, 0..;
        partitions: Vec<OffsetCommitRequestPartition>, 0..;
    }
}

message! {
    /// Part of [`OffsetCommitRequest`].
    OffsetCommitRequestPartition {
        partition_index: i32, 0..;
        committed_offset: i64, 0..;
        committed_leader_epoch: i32, 6.., default -1;
        committed_metadata: Option<String>, 0..;
    }
}

message! {
    /// What it gets.
    OffsetCommitResponse {
        throttle_time_ms: i32, 3..;
        topics: Vec<OffsetCommitResponseTopic>, 0..;
    }
}

message! {
    /// Part of [`OffsetCommitResponse`].
    OffsetCommitResponseTopic {
        name: String, 0..;
        partitions: Vec<OffsetCommitResponsePartition>, 0..;
    }
}

message! {
    /// Part of [`OffsetCommitResponse`].
    OffsetCommitResponsePartition {
        partition_index: i32, 0..;
        error_code: i16, 0..;
    }
}
