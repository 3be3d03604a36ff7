//! LeaveGroup (key 13): leaving a group.

use super::message::message;

message! {
    /// What a client asks.
    LeaveGroupRequest {
        group_id: String, 0..;
        member_id: String, 0..=2;
        members: Vec<MemberIdentity>, 3..;
    }
}

message! {
    /// Part of [`LeaveGroupRequest`].
    MemberIdentity {
        member_id: String, 3..;
        group_instance_id: Option<String>, 3..;
        reason: Option<String>, 5..;
    }
}

message! {
    /// What it gets.
    LeaveGroupResponse {
        throttle_time_ms: i32, 1..;
        error_code: i16, 0..;
        members: Vec<MemberResponse>, 3..;
    }
}

message! {
    /// Part of [`LeaveGroupResponse`].
    MemberResponse {
        member_id: String, 3..;
        group_instance_id: Option<String>, 3..;
        error_code: i16, 3..;
    }
}
