//! AlterConfigs (key 33): replacing configuration.

use super::message::message;

message! {
    /// What a client asks.
    AlterConfigsRequest {
        resources: Vec<AlterConfigsResource>, 0..;
        validate_only: bool, 0..;
    }
}

message! {
    /// Part of [`AlterConfigsRequest`].
    AlterConfigsResource {
        resource_type: i8, 0..;
        resource_name: String, 0..;
        configs: Vec<AlterableConfig>, 0..;
    }
}

message! {
    /// Part of [`AlterConfigsRequest`].
    AlterableConfig {
        name: String, 0..;
        value: Option<String>, 0..;
    }
}

message! {
    /// What it gets.
    AlterConfigsResponse {
        throttle_time_ms: i32, 0..;
        responses: Vec<AlterConfigsResourceResponse>, 0..;
    }
}

message! {
    /// Part of [`AlterConfigsResponse`].
    AlterConfigsResourceResponse {
        error_code: i16, 0..;
        error_message: Option<String>, 0..;
        resource_type: i8, 0..;
        resource_name: String, 0..;
    }
}
