//! AlterConfigs: replaces the whole configuration of a topic.

use std::collections::BTreeMap;
use std::sync::Arc;

use access_rules::Verb;

use crate::broker::Call;
use crate::error_code;
use crate::handle_create_partitions::of_alter;
use crate::handle_describe_configs::TOPIC;
use crate::topic_config;
use crate::wire::alter_configs::*;

pub async fn handle(call: Arc<Call>, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let change = |_current: &BTreeMap<String, String>| {
            topic_config::collect(
                resource
                    .configs
                    .iter()
                    .map(|c| (c.name.as_str(), c.value.as_deref())),
            )
        };
        let altered = alter(
            &call,
            resource.resource_type,
            &resource.resource_name,
            request.validate_only,
            change,
        )
        .await;
        let (error_code, error_message) = match altered {
            Ok(()) => (error_code::NONE, None),
            Err((code, reason)) => (code, Some(reason)),
        };
        let AlterConfigsResource {
            resource_type,
            resource_name,
            ..
        } = resource;
        responses.push(AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type,
            resource_name,
        });
    }
    AlterConfigsResponse {
        responses,
        ..Default::default()
    }
}

/// Changes the configuration of a topic by `change`, which makes the new one of the present one.
pub async fn alter(
    call: &Call,
    resource_type: i8,
    name: &str,
    validate_only: bool,
    change: impl FnOnce(
        &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, topic_config::ConfigError>,
) -> Result<(), (i16, String)> {
    if resource_type != TOPIC {
        let reason =
            "only topics can be configured here; the broker has a configuration file".to_owned();
        return Err((error_code::INVALID_REQUEST, reason));
    }
    call.check_topic(Verb::Alter, name)
        .map_err(|code| (code, "the user may not change this topic".to_owned()))?;
    let stream = call.broker.topics.by_name(name).ok_or_else(|| {
        (
            error_code::UNKNOWN_TOPIC_OR_PARTITION,
            format!("topic {name} does not exist"),
        )
    })?;
    let config =
        change(&stream.config).map_err(|error| (error_code::INVALID_CONFIG, error.to_string()))?;
    if validate_only {
        return Ok(());
    }
    call.kernel()
        .alter_stream_config(&stream.address, config)
        .await
        .map(|_| ())
        .map_err(|error| of_alter(&error))
}
