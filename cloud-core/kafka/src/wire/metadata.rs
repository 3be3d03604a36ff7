//! Metadata (key 3): brokers, topics and partitions.

use uuid::Uuid;

use super::message::message;

message! {
    /// What a client asks.
    MetadataRequest {
        topics: Option<Vec<MetadataRequestTopic>>, 0.., null 1..;
        allow_auto_topic_creation: bool, 4.., default true;
        include_cluster_authorized_operations: bool, 8..=10;
        include_topic_authorized_operations: bool, 8..;
    }
}

message! {
    /// Part of [`MetadataRequest`].
    MetadataRequestTopic {
        topic_id: Uuid, 10..;
        name: Option<String>, 0.., null 10..;
    }
}

message! {
    /// What it gets.
    MetadataResponse {
        throttle_time_ms: i32, 3..;
        brokers: Vec<MetadataResponseBroker>, 0..;
        cluster_id: Option<String>, 2..;
        controller_id: i32, 1.., default -1;
        topics: Vec<MetadataResponseTopic>, 0..;
        cluster_authorized_operations: i32, 8..=10, default -2147483648;
        error_code: i16, 13..;
    }
}

message! {
    /// Part of [`MetadataResponse`].
    MetadataResponseBroker {
        node_id: i32, 0..;
        host: String, 0..;
        port: i32, 0..;
        rack: Option<String>, 1..;
    }
}

message! {
    /// Part of [`MetadataResponse`].
    MetadataResponseTopic {
        error_code: i16, 0..;
        name: Option<String>, 0.., null 12..;
        topic_id: Uuid, 10..;
        is_internal: bool, 1..;
        partitions: Vec<MetadataResponsePartition>, 0..;
        topic_authorized_operations: i32, 8.., default -2147483648;
    }
}

message! {
    /// Part of [`MetadataResponse`].
    MetadataResponsePartition {
        error_code: i16, 0..;
        partition_index: i32, 0..;
        leader_id: i32, 0..;
        leader_epoch: i32, 7.., default -1;
        replica_nodes: Vec<i32>, 0..;
        isr_nodes: Vec<i32>, 0..;
        offline_replicas: Vec<i32>, 5..;
    }
}
