//! ApiVersions (key 18): what this broker speaks.

use super::message::message;

message! {
    /// What a client asks.
    ApiVersionsRequest {
        client_software_name: String, 3..;
        client_software_version: String, 3..;
    }
}

message! {
    /// What it gets.
    ApiVersionsResponse {
        error_code: i16, 0..;
        api_keys: Vec<ApiVersion>, 0..;
        throttle_time_ms: i32, 1..;
    }
}

message! {
    /// Part of [`ApiVersionsResponse`].
    ApiVersion {
        api_key: i16, 0..;
        min_version: i16, 0..;
        max_version: i16, 0..;
    }
}
