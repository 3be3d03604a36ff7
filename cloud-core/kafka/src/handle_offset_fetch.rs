//! OffsetFetch: the committed positions of one group, or (from version 8) of several.

use std::collections::HashMap;
use std::sync::Arc;

use access_rules::Verb;
use kernel::PartitionId;

use crate::broker::Call;
use crate::error_code;
use crate::group::Position;
use crate::topics::partition;
use crate::wire::offset_fetch::*;

pub async fn handle(call: Arc<Call>, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if call.version >= 8 {
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            let asked = group.topics.map(|topics| {
                topics
                    .into_iter()
                    .map(|t| (t.name, t.partition_indexes))
                    .collect()
            });
            let (error_code, found) = match fetch(&call, &group.group_id, asked).await {
                Ok(found) => (error_code::NONE, found),
                Err(code) => (code, Vec::new()),
            };
            let topics = found
                .into_iter()
                .map(|(name, positions)| OffsetFetchResponseTopics {
                    name,
                    partitions: positions.into_iter().map(in_group).collect(),
                });
            let topics = topics.collect();
            groups.push(OffsetFetchResponseGroup {
                group_id: group.group_id,
                topics,
                error_code,
            });
        }
        return OffsetFetchResponse {
            groups,
            ..Default::default()
        };
    }
    let asked = request.topics.map(|topics| {
        topics
            .into_iter()
            .map(|t| (t.name, t.partition_indexes))
            .collect::<Vec<_>>()
    });
    let (error_code, found) = match fetch(&call, &request.group_id, asked.clone()).await {
        Ok(found) => (error_code::NONE, found),
        // Version 1 has no error of the group: it stands at each partition.
        Err(code) => {
            let each = |(name, indexes): (String, Vec<i32>)| {
                (name, indexes.into_iter().map(|i| (i, none())).collect())
            };
            (
                code,
                asked.unwrap_or_default().into_iter().map(each).collect(),
            )
        }
    };
    let topics = found
        .into_iter()
        .map(|(name, positions)| OffsetFetchResponseTopic {
            name,
            partitions: positions
                .into_iter()
                .map(|position| alone(position, error_code))
                .collect(),
        });
    OffsetFetchResponse {
        topics: topics.collect(),
        error_code,
        ..Default::default()
    }
}

/// Topics with partitions and what is committed there.
type Found = Vec<(String, Vec<(i32, Position)>)>;

async fn fetch(
    call: &Call,
    group_id: &str,
    asked: Option<Vec<(String, Vec<i32>)>>,
) -> Result<Found, i16> {
    call.check_group(Verb::Describe, group_id)?;
    let group = call
        .broker
        .groups
        .open(group_id)
        .map_err(|refused| refused.0)?;
    let committed: HashMap<PartitionId, Position> = {
        let _settled = group.after_commits().await;
        let positions = call.kernel().cursor(&call.broker.groups.cursor(group_id));
        positions
            .iter()
            .map(|position| (position.partition, Position::of(position)))
            .collect()
    };
    let Some(asked) = asked else {
        return Ok(all(call, committed));
    };
    let found = asked.into_iter().map(|(name, indexes)| {
        // What a client may not see has no position for it.
        let stream = call
            .broker
            .topics
            .by_name(&name)
            .filter(|_| call.check_topic(Verb::Describe, &name).is_ok());
        let position = |index: i32| {
            let id = stream.as_ref().and_then(|stream| partition(stream, index));
            let committed = id.and_then(|id| committed.get(&id)).cloned();
            // Nothing committed is no error.
            (index, committed.unwrap_or_else(none))
        };
        (name, indexes.into_iter().map(position).collect())
    });
    Ok(found.collect())
}

fn all(call: &Call, committed: HashMap<PartitionId, Position>) -> Found {
    let mut topics: std::collections::BTreeMap<String, Vec<(i32, Position)>> = Default::default();
    for (id, position) in committed {
        if let Some(stream) = call.broker.topics.of_partition(id) {
            let name = stream.address.name.as_str().to_owned();
            if call.check_topic(Verb::Describe, &name).is_err() {
                continue;
            }
            topics
                .entry(name)
                .or_default()
                .push((id.partition as i32, position));
        }
    }
    topics.into_iter().collect()
}

fn none() -> Position {
    Position {
        offset: -1,
        leader_epoch: -1,
        metadata: String::new(),
    }
}

fn in_group((partition_index, position): (i32, Position)) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: position.offset,
        committed_leader_epoch: position.leader_epoch,
        metadata: Some(position.metadata),
        error_code: error_code::NONE,
    }
}

fn alone(
    (partition_index, position): (i32, Position),
    error_code: i16,
) -> OffsetFetchResponsePartition {
    OffsetFetchResponsePartition {
        partition_index,
        committed_offset: position.offset,
        committed_leader_epoch: position.leader_epoch,
        metadata: Some(position.metadata),
        error_code,
    }
}
