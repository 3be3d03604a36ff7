//! OffsetCommit: positions of a group, acknowledged when they are durable.

use std::sync::Arc;

use access_rules::Verb;
use bytes::Bytes;
use kernel::PartitionId;

use crate::broker::Call;
use crate::error_code;
use crate::group::{Caller, Position};
use crate::limits;
use crate::topics::partition;
use crate::wire::offset_commit::*;

pub async fn handle(call: Arc<Call>, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let checked = check(&call, &request);
    let outcome = commit(&call, &request, &checked).await;
    let mut checked = checked.into_iter();
    let topics = request
        .topics
        .into_iter()
        .map(|topic| OffsetCommitResponseTopic {
            partitions: topic
                .partitions
                .iter()
                .zip(checked.by_ref())
                .map(|(asked, checked)| OffsetCommitResponsePartition {
                    partition_index: asked.partition_index,
                    error_code: outcome
                        .and(checked.map(|_| ()))
                        .err()
                        .unwrap_or(error_code::NONE),
                })
                .collect(),
            name: topic.name,
        });
    OffsetCommitResponse {
        topics: topics.collect(),
        ..Default::default()
    }
}

type Checked = Result<(PartitionId, i64, Bytes), i16>;

/// Every position of the request, in order.
fn check(call: &Call, request: &OffsetCommitRequest) -> Vec<Checked> {
    let mut checked = Vec::new();
    for topic in &request.topics {
        let stream = call.broker.topics.by_name(&topic.name);
        let allowed = call.check_topic(Verb::Subscribe, &topic.name);
        for asked in &topic.partitions {
            let id = stream
                .as_ref()
                .and_then(|stream| partition(stream, asked.partition_index));
            let metadata = asked.committed_metadata.clone().unwrap_or_default();
            checked.push(match id {
                _ if allowed.is_err() => Err(error_code::TOPIC_AUTHORIZATION_FAILED),
                None => Err(error_code::UNKNOWN_TOPIC_OR_PARTITION),
                Some(_) if metadata.len() > limits::MAX_OFFSET_METADATA => {
                    Err(error_code::OFFSET_METADATA_TOO_LARGE)
                }
                Some(_) if asked.committed_offset < 0 => Err(error_code::OFFSET_OUT_OF_RANGE),
                Some(id) => {
                    let (offset, leader_epoch) =
                        (asked.committed_offset, asked.committed_leader_epoch);
                    Ok((
                        id,
                        offset,
                        Position {
                            offset,
                            leader_epoch,
                            metadata,
                        }
                        .note(),
                    ))
                }
            });
        }
    }
    checked
}

async fn commit(
    call: &Call,
    request: &OffsetCommitRequest,
    checked: &[Checked],
) -> Result<(), i16> {
    call.check_group(Verb::Subscribe, &request.group_id)?;
    let group = call
        .broker
        .groups
        .open(&request.group_id)
        .map_err(|refused| refused.0)?;
    let caller = Caller {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id_or_member_epoch,
    };
    // From the check of the generation until it is durable, nobody reads the positions of this group.
    let _committing = group.committing().await;
    match group.change(|state, now| state.handle_commit(now, &caller)) {
        error_code::NONE => {}
        refused => return Err(refused),
    }
    let positions: Vec<_> = checked.iter().flatten().cloned().collect();
    if positions.is_empty() {
        return Ok(());
    }
    let cursor = call.broker.groups.cursor(&request.group_id);
    call.kernel()
        .cursor_commit(&cursor, positions)
        .await
        .map_err(|error| {
            tracing::warn!(group = %request.group_id, %error, "a commit of positions failed");
            error_code::of_group_write(&error)
        })
}
