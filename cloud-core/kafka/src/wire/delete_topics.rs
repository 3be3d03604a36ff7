//! DeleteTopics (key 20): deleting topics.

use uuid::Uuid;

use super::message::message;

message! {
    /// What a client asks.
    DeleteTopicsRequest {
        topics: Vec<DeleteTopicState>, 6..;
        topic_names: Vec<String>, 0..=5;
        timeout_ms: i32, 0..;
    }
}

message! {
    /// Part of [`DeleteTopicsRequest`].
    DeleteTopicState {
        name: Option<String>, 6..;
        topic_id: Uuid, 6..;
    }
}

message! {
    /// What it gets.
    DeleteTopicsResponse {
        throttle_time_ms: i32, 0..;
        responses: Vec<DeletableTopicResult>, 0..;
    }
}

message! {
    /// Part of [`DeleteTopicsResponse`].
    DeletableTopicResult {
        name: Option<String>, 0.., null 6..;
        topic_id: Uuid, 6..;
        error_code: i16, 0..;
        error_message: Option<String>, 5..;
    }
}
