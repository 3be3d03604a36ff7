//! DeleteRecords (key 21): moving the start of a log.

use super::message::message;

message! {
    /// What a client asks.
    DeleteRecordsRequest {
        topics: Vec<DeleteRecordsTopic>, 0..;
        timeout_ms: i32, 0..;
    }
}

message! {
    /// Part of [`DeleteRecordsRequest`].
    DeleteRecordsTopic {
        name: String, 0..;
        partitions: Vec<DeleteRecordsPartition>, 0..;
    }
}

message! {
    /// Part of [`DeleteRecordsRequest`].
    DeleteRecordsPartition {
        partition_index: i32, 0..;
        offset: i64, 0..;
    }
}

message! {
    /// What it gets.
    DeleteRecordsResponse {
        throttle_time_ms: i32, 0..;
        topics: Vec<DeleteRecordsTopicResult>, 0..;
    }
}

message! {
    /// Part of [`DeleteRecordsResponse`].
    DeleteRecordsTopicResult {
        name: String, 0..;
        partitions: Vec<DeleteRecordsPartitionResult>, 0..;
    }
}

message! {
    /// Part of [`DeleteRecordsResponse`].
    DeleteRecordsPartitionResult {
        partition_index: i32, 0..;
        low_watermark: i64, 0..;
        error_code: i16, 0..;
    }
}
