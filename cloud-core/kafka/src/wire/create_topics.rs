//! CreateTopics (key 19): creating topics.

use uuid::Uuid;

use super::message::message;

message! {
    /// What a client asks.
    CreateTopicsRequest {
        topics: Vec<CreatableTopic>, 0..;
        timeout_ms: i32, 0.., default 60000;
        validate_only: bool, 0..;
    }
}

message! {
    /// Part of [`CreateTopicsRequest`].
    CreatableTopic {
        name: String, 0..;
        num_partitions: i32, 0..;
        replication_factor: i16, 0..;
        assignments: Vec<CreatableReplicaAssignment>, 0..;
        configs: Vec<CreatableTopicConfig>, 0..;
    }
}

message! {
    /// Part of [`CreateTopicsRequest`].
    CreatableReplicaAssignment {
        partition_index: i32, 0..;
        broker_ids: Vec<i32>, 0..;
    }
}

message! {
    /// Part of [`CreateTopicsRequest`].
    CreatableTopicConfig {
        name: String, 0..;
        value: Option<String>, 0..;
    }
}

message! {
    /// What it gets.
    CreateTopicsResponse {
        throttle_time_ms: i32, 0..;
        topics: Vec<CreatableTopicResult>, 0..;
    }
}

message! {
    /// Part of [`CreateTopicsResponse`].
    CreatableTopicResult {
        name: String, 0..;
        topic_id: Uuid, 7..;
        error_code: i16, 0..;
        error_message: Option<String>, 0..;
        num_partitions: i32, 5.., default -1;
        replication_factor: i16, 5.., default -1;
        configs: Option<Vec<CreatableTopicConfigs>>, 5..;
    }
}

message! {
    /// Part of [`CreateTopicsResponse`].
    CreatableTopicConfigs {
        name: String, 5..;
        value: Option<String>, 5..;
        read_only: bool, 5..;
        config_source: i8, 5.., default -1;
        is_sensitive: bool, 5..;
    }
}
