//! OffsetDelete: single positions of a group, unless a member reads there.

use std::sync::Arc;

use access_rules::Verb;
use kernel::{Command, Entry};

use crate::broker::Call;
use crate::error_code;
use crate::topics::partition;
use crate::wire::offset_delete::*;

pub async fn handle(call: Arc<Call>, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    match delete(&call, request).await {
        Ok(topics) => OffsetDeleteResponse {
            topics,
            ..Default::default()
        },
        Err(error_code) => OffsetDeleteResponse {
            error_code,
            ..Default::default()
        },
    }
}

async fn delete(
    call: &Call,
    request: OffsetDeleteRequest,
) -> Result<Vec<OffsetDeleteResponseTopic>, i16> {
    call.check_group(Verb::Delete, &request.group_id)?;
    let group = call
        .broker
        .groups
        .open(&request.group_id)
        .map_err(|refused| refused.0)?;
    let _settled = group.after_commits().await;
    let cursor = call.broker.groups.cursor(&request.group_id);
    if group.look(|state| state.is_idle()) && call.kernel().cursor(&cursor).is_empty() {
        return Err(error_code::GROUP_ID_NOT_FOUND);
    }
    let mut deleted = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let stream = call.broker.topics.by_name(&topic.name);
        let subscribed = group.look(|state| state.subscribes(&topic.name));
        let allowed = call.check_topic(Verb::Subscribe, &topic.name);
        let partitions = topic.partitions.iter().map(|asked| {
            let id = stream
                .as_ref()
                .and_then(|stream| partition(stream, asked.partition_index));
            let error_code = match id {
                _ if allowed.is_err() => error_code::TOPIC_AUTHORIZATION_FAILED,
                None => error_code::UNKNOWN_TOPIC_OR_PARTITION,
                Some(_) if subscribed => error_code::GROUP_SUBSCRIBED_TO_TOPIC,
                Some(id) => {
                    deleted.push(id);
                    error_code::NONE
                }
            };
            OffsetDeleteResponsePartition {
                partition_index: asked.partition_index,
                error_code,
            }
        });
        let partitions = partitions.collect();
        topics.push(OffsetDeleteResponseTopic {
            name: topic.name,
            partitions,
        });
    }
    if !deleted.is_empty() {
        let entry = Entry::new().with(Command::CursorDelete {
            group: cursor,
            partitions: Some(deleted),
        });
        call.kernel()
            .write(entry)
            .await
            .map_err(|error| error_code::of_group_write(&error))?;
    }
    Ok(topics)
}
