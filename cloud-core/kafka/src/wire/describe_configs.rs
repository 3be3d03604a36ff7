//! DescribeConfigs (key 32): reading configuration.

use super::message::message;

message! {
    /// What a client asks.
    DescribeConfigsRequest {
        resources: Vec<DescribeConfigsResource>, 0..;
        include_synonyms: bool, 0..;
        include_documentation: bool, 3..;
    }
}

message! {
    /// Part of [`DescribeConfigsRequest`].
    DescribeConfigsResource {
        resource_type: i8, 0..;
        resource_name: String, 0..;
        configuration_keys: Option<Vec<String>>, 0..;
    }
}

message! {
    /// What it gets.
    DescribeConfigsResponse {
        throttle_time_ms: i32, 0..;
        results: Vec<DescribeConfigsResult>, 0..;
    }
}

message! {
    /// Part of [`DescribeConfigsResponse`].
    DescribeConfigsResult {
        error_code: i16, 0..;
        error_message: Option<String>, 0..;
        resource_type: i8, 0..;
        resource_name: String, 0..;
        configs: Vec<DescribeConfigsResourceResult>, 0..;
    }
}

message! {
    /// Part of [`DescribeConfigsResponse`].
    DescribeConfigsResourceResult {
        name: String, 0..;
        value: Option<String>, 0..;
        read_only: bool, 0..;
        config_source: i8, 0.., default -1;
        is_sensitive: bool, 0..;
        synonyms: Vec<DescribeConfigsSynonym>, 0..;
        config_type: i8, 3..;
        documentation: Option<String>, 3..;
    }
}

message! {
    /// Part of [`DescribeConfigsResponse`].
    DescribeConfigsSynonym {
        name: String, 0..;
        value: Option<String>, 0..;
        source: i8, 0..;
    }
}
