//! CreatePartitions (key 37): adding partitions.

use super::message::message;

message! {
    /// What a client asks.
    CreatePartitionsRequest {
        topics: Vec<CreatePartitionsTopic>, 0..;
        timeout_ms: i32, 0..;
        validate_only: bool, 0..;
    }
}

message! {
    /// Part of [`CreatePartitionsRequest`].
    CreatePartitionsTopic {
        name: String, 0..;
        count: i32, 0..;
        assignments: Option<Vec<CreatePartitionsAssignment>>, 0..;
    }
}

message! {
    /// Part of [`CreatePartitionsRequest`].
    CreatePartitionsAssignment {
        broker_ids: Vec<i32>, 0..;
    }
}

message! {
    /// What it gets.
    CreatePartitionsResponse {
        throttle_time_ms: i32, 0..;
        results: Vec<CreatePartitionsTopicResult>, 0..;
    }
}

message! {
    /// Part of [`CreatePartitionsResponse`].
    CreatePartitionsTopicResult {
        name: String, 0..;
        error_code: i16, 0..;
        error_message: Option<String>, 0..;
    }
}
