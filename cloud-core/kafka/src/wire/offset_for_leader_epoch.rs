//! OffsetForLeaderEpoch (key 23): the end of a leader epoch.

use super::message::message;

message! {
    /// What a client asks.
    OffsetForLeaderEpochRequest {
        replica_id: i32, 3.., default -2;
        topics: Vec<OffsetForLeaderTopic>, 0..;
    }
}

message! {
    /// Part of [`OffsetForLeaderEpochRequest`].
    OffsetForLeaderTopic {
        topic: String, 0..;
        partitions: Vec<OffsetForLeaderPartition>, 0..;
    }
}

message! {
    /// Part of [`OffsetForLeaderEpochRequest`].
    OffsetForLeaderPartition {
        partition: i32, 0..;
        current_leader_epoch: i32, 0.., default -1;
        leader_epoch: i32, 0..;
    }
}

message! {
    /// What it gets.
    OffsetForLeaderEpochResponse {
        throttle_time_ms: i32, 0..;
        topics: Vec<OffsetForLeaderTopicResult>, 0..;
    }
}

message! {
    /// Part of [`OffsetForLeaderEpochResponse`].
    OffsetForLeaderTopicResult {
        topic: String, 0..;
        partitions: Vec<EpochEndOffset>, 0..;
    }
}

message! {
    /// Part of [`OffsetForLeaderEpochResponse`].
    EpochEndOffset {
        error_code: i16, 0..;
        partition: i32, 0..;
        leader_epoch: i32, 0.., default -1;
        end_offset: i64, 0.., default -1;
    }
}
