//! JoinGroup (key 11): entering a group, first half of a rebalance.

use bytes::Bytes;

use super::message::message;

message! {
    /// What a client asks.
    JoinGroupRequest {
        group_id: String, 0..;
        session_timeout_ms: i32, 0..;
        rebalance_timeout_ms: i32, 1.., default -1;
        member_id: String, 0..;
        group_instance_id: Option<String>, 5..;
        protocol_type: String, 0..;
        protocols: Vec<JoinGroupRequestProtocol>, 0..;
        reason: Option<String>, 8..;
    }
}

message! {
    /// Part of [`JoinGroupRequest`].
    JoinGroupRequestProtocol {
        name: String, 0..;
        metadata: Bytes, 0..;
    }
}

message! {
    /// What it gets.
    JoinGroupResponse {
        throttle_time_ms: i32, 2..;
        error_code: i16, 0..;
        generation_id: i32, 0.., default -1;
        protocol_type: Option<String>, 7..;
        protocol_name: Option<String>, 0.., null 7..;
        leader: String, 0..;
        skip_assignment: bool, 9..;
        member_id: String, 0..;
        members: Vec<JoinGroupResponseMember>, 0..;
    }
}

message! {
    /// Part of [`JoinGroupResponse`].
    JoinGroupResponseMember {
        member_id: String, 0..;
        group_instance_id: Option<String>, 5..;
        metadata: Bytes, 0..;
    }
}
