//! OffsetDelete (key 47): deleting positions of a group.

use super::message::message;

message! {
    /// What a client asks.
    OffsetDeleteRequest {
        group_id: String, 0..;
        topics: Vec<OffsetDeleteRequestTopic>, 0..;
    }
}

message! {
    /// Part of [`OffsetDeleteRequest`].
    OffsetDeleteRequestTopic {
        name: String, 0..;
        partitions: Vec<OffsetDeleteRequestPartition>, 0..;
    }
}

message! {
    /// Part of [`OffsetDeleteRequest`].
    OffsetDeleteRequestPartition {
        partition_index: i32, 0..;
    }
}

message! {
    /// What it gets.
    OffsetDeleteResponse {
        error_code: i16, 0..;
        throttle_time_ms: i32, 0..;
        topics: Vec<OffsetDeleteResponseTopic>, 0..;
    }
}

message! {
    /// Part of [`OffsetDeleteResponse`].
    OffsetDeleteResponseTopic {
        name: String, 0..;
        partitions: Vec<OffsetDeleteResponsePartition>, 0..;
    }
}

message! {
    /// Part of [`OffsetDeleteResponse`].
    OffsetDeleteResponsePartition {
        partition_index: i32, 0..;
        error_code: i16, 0..;
    }
}
