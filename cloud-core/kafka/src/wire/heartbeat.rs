//! Heartbeat (key 12): staying in a group.

use super::message::message;

message! {
    /// What a client asks.
    HeartbeatRequest {
        group_id: String, 0..;
        generation_id: i32, 0..;
        member_id: String, 0..;
        group_instance_id: Option<String>, 3..;
    }
}

message! {
    /// What it gets.
    HeartbeatResponse {
        throttle_time_ms: i32, 1..;
        error_code: i16, 0..;
    }
}
