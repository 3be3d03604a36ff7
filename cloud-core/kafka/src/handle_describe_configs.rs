//! DescribeConfigs: of topics, and of this broker.

use std::sync::Arc;

use access_rules::Verb;

use crate::broker::{Call, NODE_ID};
use crate::error_code;
use crate::handle_create_topics::{SOURCE_DEFAULT, SOURCE_TOPIC};
use crate::topic_config;
use crate::wire::describe_configs::*;

/// Resource types of the protocol.
pub const TOPIC: i8 = 2;
/// See [`TOPIC`].
pub const BROKER: i8 = 4;
/// From the configuration of the process.
const SOURCE_BROKER: i8 = 4;
const BOOLEAN: i8 = 1;
const INT: i8 = 3;

pub async fn handle(call: Arc<Call>, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let results = request.resources.iter().map(|resource| {
        let result = DescribeConfigsResult {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..Default::default()
        };
        match describe(&call, resource) {
            Ok(mut configs) => {
                if let Some(keys) = &resource.configuration_keys {
                    configs.retain(|config| keys.contains(&config.name));
                }
                for config in &mut configs {
                    if !request.include_synonyms {
                        config.synonyms.clear();
                    }
                    if !request.include_documentation {
                        config.documentation = None;
                    }
                }
                DescribeConfigsResult { configs, ..result }
            }
            Err((error_code, reason)) => DescribeConfigsResult {
                error_code,
                error_message: Some(reason),
                ..result
            },
        }
    });
    DescribeConfigsResponse {
        results: results.collect(),
        ..Default::default()
    }
}

type Described = Result<Vec<DescribeConfigsResourceResult>, (i16, String)>;

fn describe(call: &Call, resource: &DescribeConfigsResource) -> Described {
    match resource.resource_type {
        TOPIC => {
            call.check_topic(Verb::Describe, &resource.resource_name)
                .map_err(|code| (code, "the user may not see this topic".to_owned()))?;
            let stream = call
                .broker
                .topics
                .by_name(&resource.resource_name)
                .ok_or_else(|| {
                    (
                        error_code::UNKNOWN_TOPIC_OR_PARTITION,
                        format!("topic {} does not exist", resource.resource_name),
                    )
                })?;
            Ok(topic_config::of_stream(&stream)
                .into_iter()
                .map(topic)
                .collect())
        }
        BROKER if resource.resource_name.is_empty() => Ok(Vec::new()),
        BROKER if resource.resource_name == NODE_ID.to_string() => Ok(broker(call)),
        BROKER => Err((
            error_code::INVALID_REQUEST,
            format!("there is no broker {}", resource.resource_name),
        )),
        other => Err((
            error_code::INVALID_REQUEST,
            format!("resources of type {other} have no configuration here"),
        )),
    }
}

fn topic(key: topic_config::Effective) -> DescribeConfigsResourceResult {
    let synonym = |value: &str, source| DescribeConfigsSynonym {
        name: key.name.to_owned(),
        value: Some(value.to_owned()),
        source,
    };
    let mut synonyms = vec![synonym(key.default, SOURCE_DEFAULT)];
    if key.set {
        synonyms.insert(0, synonym(&key.value, SOURCE_TOPIC));
    }
    DescribeConfigsResourceResult {
        name: key.name.to_owned(),
        config_source: if key.set {
            SOURCE_TOPIC
        } else {
            SOURCE_DEFAULT
        },
        synonyms,
        config_type: key.kind,
        documentation: Some(key.documentation.to_owned()),
        value: Some(key.value),
        ..Default::default()
    }
}

/// What holds for all topics; it is set where the process is configured, not through this protocol.
fn broker(call: &Call) -> Vec<DescribeConfigsResourceResult> {
    let ctx = &call.broker.ctx;
    let keys = [
        (
            "auto.create.topics.enable",
            ctx.streams.auto_create.to_string(),
            BOOLEAN,
        ),
        ("default.replication.factor", "1".to_owned(), INT),
        (
            "message.max.bytes",
            ctx.limits.message_bytes.to_string(),
            INT,
        ),
        ("num.partitions", ctx.streams.partitions.to_string(), INT),
    ];
    keys.into_iter()
        .map(|(name, value, config_type)| DescribeConfigsResourceResult {
            name: name.to_owned(),
            value: Some(value),
            read_only: true,
            config_source: SOURCE_BROKER,
            config_type,
            ..Default::default()
        })
        .collect()
}
