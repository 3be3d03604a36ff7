//! IncrementalAlterConfigs (key 44): changing single configuration keys.

use super::message::message;

message! {
    /// What a client asks.
    IncrementalAlterConfigsRequest {
        resources: Vec<AlterConfigsResource>, 0..;
        validate_only: bool, 0..;
    }
}

message! {
    /// Part of [`IncrementalAlterConfigsRequest`].
    AlterConfigsResource {
        resource_type: i8, 0..;
        resource_name: String, 0..;
        configs: Vec<AlterableConfig>, 0..;
    }
}

message! {
    /// Part of [`IncrementalAlterConfigsRequest`].
    AlterableConfig {
        name: String, 0..;
        config_operation: i8, 0..;
        value: Option<String>, 0..;
    }
}

message! {
    /// What it gets.
    IncrementalAlterConfigsResponse {
        throttle_time_ms: i32, 0..;
        responses: Vec<AlterConfigsResourceResponse>, 0..;
    }
}

message! {
    /// Part of [`IncrementalAlterConfigsResponse`].
    AlterConfigsResourceResponse {
        error_code: i16, 0..;
        error_message: Option<String>, 0..;
        resource_type: i8, 0..;
        resource_name: String, 0..;
    }
}
