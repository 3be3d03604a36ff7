//! CreatePartitions: more partitions for a topic that exists.

use std::sync::Arc;

use access_rules::Verb;
use kernel::AlterStreamError;

use crate::broker::{Call, NODE_ID};
use crate::error_code;
use crate::limits;
use crate::wire::create_partitions::*;

pub async fn handle(call: Arc<Call>, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let (error_code, error_message) = match raise(&call, &topic, request.validate_only).await {
            Ok(()) => (error_code::NONE, None),
            Err((code, reason)) => (code, Some(reason)),
        };
        results.push(CreatePartitionsTopicResult {
            name: topic.name,
            error_code,
            error_message,
        });
    }
    CreatePartitionsResponse {
        results,
        ..Default::default()
    }
}

async fn raise(
    call: &Call,
    topic: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), (i16, String)> {
    let unknown = || {
        (
            error_code::UNKNOWN_TOPIC_OR_PARTITION,
            format!("topic {} does not exist", topic.name),
        )
    };
    call.check_topic(Verb::Alter, &topic.name)
        .map_err(|code| (code, "the user may not change this topic".to_owned()))?;
    let stream = call
        .broker
        .topics
        .by_name(&topic.name)
        .ok_or_else(unknown)?;
    let current = stream.partitions as i32;
    if topic.count <= current || topic.count > limits::MAX_PARTITIONS {
        let reason = format!(
            "the topic has {current} partitions: it can get more, up to {}, not {}",
            limits::MAX_PARTITIONS,
            topic.count
        );
        return Err((error_code::INVALID_PARTITIONS, reason));
    }
    if let Some(assignments) = &topic.assignments
        && (assignments.len() as i32 != topic.count - current
            || assignments.iter().any(|a| a.broker_ids != [NODE_ID]))
    {
        let reason = format!("each new partition needs one replica, on broker {NODE_ID}");
        return Err((error_code::INVALID_REPLICA_ASSIGNMENT, reason));
    }
    if validate_only {
        return Ok(());
    }
    let total = u32::try_from(topic.count).map_err(|_| unknown())?;
    call.kernel()
        .add_partitions(&stream.address, total)
        .await
        .map(|_| ())
        .map_err(|error| of_alter(&error))
}

/// The code and the reason for a topic that was not changed.
pub fn of_alter(error: &AlterStreamError) -> (i16, String) {
    let code = match error {
        AlterStreamError::Unknown(_) => error_code::UNKNOWN_TOPIC_OR_PARTITION,
        AlterStreamError::Partitions { .. } => error_code::INVALID_PARTITIONS,
        AlterStreamError::Config { .. } => error_code::INVALID_CONFIG,
        AlterStreamError::Write(write) => error_code::of_write(write),
    };
    (code, error.to_string())
}
