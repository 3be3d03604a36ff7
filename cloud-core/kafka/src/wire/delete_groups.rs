//! DeleteGroups (key 42): deleting groups and their positions.

use super::message::message;

message! {
    /// What a client asks.
    DeleteGroupsRequest {
        groups_names: Vec<String>, 0..;
    }
}

message! {
    /// What it gets.
    DeleteGroupsResponse {
        throttle_time_ms: i32, 0..;
        results: Vec<DeletableGroupResult>, 0..;
    }
}

message! {
    /// Part of [`DeleteGroupsResponse`].
    DeletableGroupResult {
        group_id: String, 0..;
        error_code: i16, 0..;
    }
}
