//! Fetch (key 1): reading batches, with long polling.

use uuid::Uuid;

use super::message::message;
use super::writer::Records;

message! {
    /// What a client asks.
    FetchRequest {
        replica_id: i32, 0..=14, default -1;
        max_wait_ms: i32, 0..;
        min_bytes: i32, 0..;
        max_bytes: i32, 0.., default 0x7fffffff;
        isolation_level: i8, 0..;
        session_id: i32, 7..;
        session_epoch: i32, 7.., default -1;
        topics: Vec<FetchTopic>, 0..;
        forgotten_topics_data: Vec<ForgottenTopic>, 7..;
        rack_id: String, 11..;
    }
}

message! {
    /// Part of [`FetchRequest`].
    FetchTopic {
        topic: String, 0..=12;
        topic_id: Uuid, 13..;
        partitions: Vec<FetchPartition>, 0..;
    }
}

message! {
    /// Part of [`FetchRequest`].
    FetchPartition {
        partition: i32, 0..;
        current_leader_epoch: i32, 9.., default -1;
        fetch_offset: i64, 0..;
        last_fetched_epoch: i32, 12.., default -1;
        log_start_offset: i64, 5.., default -1;
        partition_max_bytes: i32, 0..;
    }
}

message! {
    /// Part of [`FetchRequest`].
    ForgottenTopic {
        topic: String, 7..=12;
        topic_id: Uuid, 13..;
        partitions: Vec<i32>, 7..;
    }
}

message! {
    /// What it gets.
    FetchResponse {
        throttle_time_ms: i32, 0..;
        error_code: i16, 7..;
        session_id: i32, 7..;
        responses: Vec<FetchableTopicResponse>, 0..;
    }
}

message! {
    /// Part of [`FetchResponse`].
    FetchableTopicResponse {
        topic: String, 0..=12;
        topic_id: Uuid, 13..;
        partitions: Vec<PartitionData>, 0..;
    }
}

message! {
    /// Part of [`FetchResponse`].
    PartitionData {
        partition_index: i32, 0..;
        error_code: i16, 0..;
        high_watermark: i64, 0..;
        last_stable_offset: i64, 0.., default -1;
        log_start_offset: i64, 5.., default -1;
        aborted_transactions: Option<Vec<AbortedTransaction>>, 0..;
        preferred_read_replica: i32, 11.., default -1;
        records: Records, 0..;
    }
}

message! {
    /// Part of [`FetchResponse`].
    AbortedTransaction {
        producer_id: i64, 0..;
        first_offset: i64, 0..;
    }
}
