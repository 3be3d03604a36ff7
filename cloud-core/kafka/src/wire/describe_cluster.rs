//! DescribeCluster (key 60): brokers and the cluster id.

use super::message::message;

message! {
    /// What a client asks.
    DescribeClusterRequest {
        include_cluster_authorized_operations: bool, 0..;
        endpoint_type: i8, 1.., default 1;
        include_fenced_brokers: bool, 2..;
    }
}

message! {
    /// What it gets.
    DescribeClusterResponse {
        throttle_time_ms: i32, 0..;
        error_code: i16, 0..;
        error_message: Option<String>, 0..;
        endpoint_type: i8, 1.., default 1;
        cluster_id: String, 0..;
        controller_id: i32, 0.., default -1;
        brokers: Vec<DescribeClusterBroker>, 0..;
        cluster_authorized_operations: i32, 0.., default -2147483648;
    }
}

message! {
    /// Part of [`DescribeClusterResponse`].
    DescribeClusterBroker {
        broker_id: i32, 0..;
        host: String, 0..;
        port: i32, 0..;
        rack: Option<String>, 0..;
        is_fenced: bool, 2..;
    }
}
