//! SyncGroup (key 14): handing out a group's assignment, second half of a rebalance.

use bytes::Bytes;

use super::message::message;

message! {
    /// What a client asks.
    SyncGroupRequest {
        group_id: String, 0..;
        generation_id: i32, 0..;
        member_id: String, 0..;
        group_instance_id: Option<String>, 3..;
        protocol_type: Option<String>, 5..;
        protocol_name: Option<String>, 5..;
        assignments: Vec<SyncGroupRequestAssignment>, 0..;
    }
}

message! {
    /// Part of [`SyncGroupRequest`].
    SyncGroupRequestAssignment {
        member_id: String, 0..;
        assignment: Bytes, 0..;
    }
}

message! {
    /// What it gets.
    SyncGroupResponse {
        throttle_time_ms: i32, 1..;
        error_code: i16, 0..;
        protocol_type: Option<String>, 5..;
        protocol_name: Option<String>, 5..;
        assignment: Bytes, 0..;
    }
}
