//! ListGroups (key 16): names and states of groups.

use super::message::message;

message! {
    /// What a client asks.
    ListGroupsRequest {
        states_filter: Vec<String>, 4..;
        types_filter: Vec<String>, 5..;
    }
}

message! {
    /// What it gets.
    ListGroupsResponse {
        throttle_time_ms: i32, 1..;
        error_code: i16, 0..;
        groups: Vec<ListedGroup>, 0..;
    }
}

message! {
    /// Part of [`ListGroupsResponse`].
    ListedGroup {
        group_id: String, 0..;
        protocol_type: String, 0..;
        group_state: String, 4..;
        group_type: String, 5..;
    }
}
