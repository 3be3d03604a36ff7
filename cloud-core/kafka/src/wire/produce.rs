//! Produce (key 0): appending batches.

use bytes::Bytes;
use uuid::Uuid;

use super::message::message;

message! {
    /// What a client asks.
    ProduceRequest {
        transactional_id: Option<String>, 0..;
        acks: i16, 0..;
        timeout_ms: i32, 0..;
        topic_data: Vec<TopicProduceData>, 0..;
    }
}

message! {
    /// Part of [`ProduceRequest`].
    TopicProduceData {
        name: String, 0..=12;
        topic_id: Uuid, 13..;
        partition_data: Vec<PartitionProduceData>, 0..;
    }
}

message! {
    /// Part of [`ProduceRequest`].
    PartitionProduceData {
        index: i32, 0..;
        records: Option<Bytes>, 0..;
    }
}

message! {
    /// What it gets.
    ProduceResponse {
        responses: Vec<TopicProduceResponse>, 0..;
        throttle_time_ms: i32, 0..;
    }
}

message! {
    /// Part of [`ProduceResponse`].
    TopicProduceResponse {
        name: String, 0..=12;
        topic_id: Uuid, 13..;
        partition_responses: Vec<PartitionProduceResponse>, 0..;
    }
}

message! {
    /// Part of [`ProduceResponse`].
    PartitionProduceResponse {
        index: i32, 0..;
        error_code: i16, 0..;
        base_offset: i64, 0..;
        log_append_time_ms: i64, 0.., default -1;
        log_start_offset: i64, 5.., default -1;
        record_errors: Vec<BatchIndexAndErrorMessage>, 8..;
        error_message: Option<String>, 8..;
    }
}

message! {
    /// Part of [`ProduceResponse`].
    BatchIndexAndErrorMessage {
        batch_index: i32, 8..;
        batch_index_error_message: Option<String>, 8..;
    }
}
