//! CreateTopics.

use std::collections::HashSet;
use std::sync::Arc;

use access_rules::Verb;
use kernel::{CreateStreamError, StreamSpec};

use crate::broker::{Call, NODE_ID};
use crate::error_code;
use crate::limits;
use crate::topic_config;
use crate::wire::create_topics::*;

/// The broker decides.
const DEFAULT: i32 = -1;
/// Where the value of a configuration key comes from: set on the topic, or the default.
pub const SOURCE_TOPIC: i8 = 1;
/// See [`SOURCE_TOPIC`].
pub const SOURCE_DEFAULT: i8 = 5;

pub async fn handle(call: Arc<Call>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut seen = HashSet::new();
    let twice: HashSet<String> = request
        .topics
        .iter()
        .filter(|topic| !seen.insert(&topic.name))
        .map(|topic| topic.name.clone())
        .collect();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let name = topic.name.clone();
        let created = if twice.contains(&name) {
            Err((
                error_code::INVALID_REQUEST,
                "the request names this topic twice".to_owned(),
            ))
        } else {
            create(&call, topic, request.validate_only).await
        };
        topics.push(match created {
            Ok(result) => result,
            Err((error_code, message)) => CreatableTopicResult {
                name,
                error_code,
                error_message: Some(message),
                ..Default::default()
            },
        });
    }
    CreateTopicsResponse {
        topics,
        ..Default::default()
    }
}

async fn create(
    call: &Call,
    topic: CreatableTopic,
    validate_only: bool,
) -> Result<CreatableTopicResult, (i16, String)> {
    let address = call
        .broker
        .topics
        .address(&topic.name)
        .map_err(|error| (error_code::INVALID_TOPIC_EXCEPTION, error.to_string()))?;
    let exists = || {
        (
            error_code::TOPIC_ALREADY_EXISTS,
            format!("topic {} exists already", topic.name),
        )
    };
    call.check_topic(Verb::Create, &topic.name)
        .map_err(|code| (code, "the user may not create this topic".to_owned()))?;
    if call.kernel().stream(&address).is_some() {
        return Err(exists());
    }
    let partitions = partitions(call, &topic)?;
    let config = topic_config::collect(
        topic
            .configs
            .iter()
            .map(|c| (c.name.as_str(), c.value.as_deref())),
    )
    .map_err(|error| (error_code::INVALID_CONFIG, error.to_string()))?;
    let mut result = CreatableTopicResult {
        name: topic.name.clone(),
        num_partitions: partitions as i32,
        replication_factor: 1,
        configs: Some(
            topic_config::effective(&config)
                .into_iter()
                .map(describe)
                .collect(),
        ),
        ..Default::default()
    };
    if !validate_only {
        let created = call
            .kernel()
            .create_stream(&address, StreamSpec { partitions, config })
            .await;
        result.topic_id = created
            .map_err(|error| match &error {
                CreateStreamError::Exists(_) => exists(),
                CreateStreamError::Partitions(_) => {
                    (error_code::INVALID_PARTITIONS, error.to_string())
                }
                CreateStreamError::Config { .. } => (error_code::INVALID_CONFIG, error.to_string()),
                CreateStreamError::Write(write) => (error_code::of_write(write), error.to_string()),
            })?
            .uuid;
    }
    Ok(result)
}

/// How many partitions are asked for, by number or by naming their replicas.
fn partitions(call: &Call, topic: &CreatableTopic) -> Result<u32, (i16, String)> {
    let by_number = topic.assignments.is_empty();
    let wanted = match topic.num_partitions {
        DEFAULT if by_number => {
            i32::try_from(call.broker.ctx.streams.partitions).unwrap_or(limits::MAX_PARTITIONS)
        }
        wanted if by_number => wanted,
        DEFAULT => i32::try_from(topic.assignments.len()).unwrap_or(i32::MAX),
        _ => {
            let reason = "give the number of partitions or their replicas, not both".to_owned();
            return Err((error_code::INVALID_REQUEST, reason));
        }
    };
    if !(1..=limits::MAX_PARTITIONS).contains(&wanted) {
        let reason = format!(
            "{wanted} partitions: must be 1 to {}",
            limits::MAX_PARTITIONS
        );
        return Err((error_code::INVALID_PARTITIONS, reason));
    }
    if by_number && !matches!(topic.replication_factor, -1 | 1) {
        let reason = format!(
            "replication factor {}: there is one broker, so it can only be 1",
            topic.replication_factor
        );
        return Err((error_code::INVALID_REPLICATION_FACTOR, reason));
    }
    let mut indexes: Vec<i32> = topic
        .assignments
        .iter()
        .map(|assignment| assignment.partition_index)
        .collect();
    indexes.sort_unstable();
    let contiguous = indexes.iter().copied().eq(0..indexes.len() as i32);
    if !contiguous
        || topic
            .assignments
            .iter()
            .any(|assignment| assignment.broker_ids != [NODE_ID])
    {
        let reason = format!(
            "partitions must be numbered from 0 on, and their only replica is broker {NODE_ID}"
        );
        return Err((error_code::INVALID_REPLICA_ASSIGNMENT, reason));
    }
    u32::try_from(wanted).map_err(|_| {
        (
            error_code::INVALID_PARTITIONS,
            "too many partitions".to_owned(),
        )
    })
}

fn describe(key: topic_config::Effective) -> CreatableTopicConfigs {
    CreatableTopicConfigs {
        name: key.name.to_owned(),
        value: Some(key.value),
        config_source: if key.set {
            SOURCE_TOPIC
        } else {
            SOURCE_DEFAULT
        },
        ..Default::default()
    }
}
