//! ListOffsets (key 2): finding offsets by timestamp or by name.

use super::message::message;

message! {
    /// What a client asks.
    ListOffsetsRequest {
        replica_id: i32, 0..;
        isolation_level: i8, 2..;
        topics: Vec<ListOffsetsTopic>, 0..;
        timeout_ms: i32, 10..;
    }
}

message! {
    /// Part of [`ListOffsetsRequest`].
    ListOffsetsTopic {
        name: String, 0..;
        partitions: Vec<ListOffsetsPartition>, 0..;
    }
}

message! {
    /// Part of [`ListOffsetsRequest`].
    ListOffsetsPartition {
        partition_index: i32, 0..;
        current_leader_epoch: i32, 4.., default -1;
        timestamp: i64, 0..;
    }
}

message! {
    /// What it gets.
    ListOffsetsResponse {
        throttle_time_ms: i32, 2..;
        topics: Vec<ListOffsetsTopicResponse>, 0..;
    }
}

message! {
    /// Part of [`ListOffsetsResponse`].
    ListOffsetsTopicResponse {
        name: String, 0..;
        partitions: Vec<ListOffsetsPartitionResponse>, 0..;
    }
}

message! {
    /// Part of [`ListOffsetsResponse`].
    ListOffsetsPartitionResponse {
        partition_index: i32, 0..;
        error_code: i16, 0..;
        timestamp: i64, 0.., default -1;
        offset: i64, 0.., default -1;
        leader_epoch: i32, 4.., default -1;
    }
}
