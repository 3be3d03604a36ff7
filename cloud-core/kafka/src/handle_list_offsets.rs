//! ListOffsets: offsets by name (earliest, latest, ...) or by timestamp.

use std::sync::Arc;

use access_rules::Verb;
use kernel::Stream;

use crate::broker::Call;
use crate::error_code;
use crate::handle_offset_for_leader_epoch::check_epoch;
use crate::topics::{leader_epoch, partition};
use crate::wire::list_offsets::*;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
/// Isolation levels.
const READ_UNCOMMITTED: i8 = 0;
const READ_COMMITTED: i8 = 1;

pub async fn handle(call: Arc<Call>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let stream = call.broker.topics.by_name(&topic.name);
        let allowed = call.check_topic(Verb::Describe, &topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let result = ListOffsetsPartitionResponse {
                partition_index: asked.partition_index,
                ..Default::default()
            };
            let found = match allowed {
                Ok(()) => find(&call, stream.as_deref(), &asked, request.isolation_level).await,
                Err(code) => Err(code),
            };
            partitions.push(match found {
                Ok(Some((offset, timestamp, epoch))) => ListOffsetsPartitionResponse {
                    offset,
                    timestamp,
                    leader_epoch: epoch,
                    ..result
                },
                Ok(None) => result,
                Err(error_code) => ListOffsetsPartitionResponse {
                    error_code,
                    ..result
                },
            });
        }
        topics.push(ListOffsetsTopicResponse {
            name: topic.name,
            partitions,
        });
    }
    ListOffsetsResponse {
        topics,
        ..Default::default()
    }
}

/// Offset, timestamp and leader epoch; nothing where no record is that young.
async fn find(
    call: &Call,
    stream: Option<&Stream>,
    asked: &ListOffsetsPartition,
    isolation_level: i8,
) -> Result<Option<(i64, i64, i32)>, i16> {
    let unknown = error_code::UNKNOWN_TOPIC_OR_PARTITION;
    let stream = stream.ok_or(unknown)?;
    let id = partition(stream, asked.partition_index).ok_or(unknown)?;
    let stale = check_epoch(stream, asked.current_leader_epoch);
    if stale != error_code::NONE {
        return Err(stale);
    }
    let marks = call.kernel().watermarks(id).ok_or(unknown)?;
    let latest = match isolation_level {
        READ_UNCOMMITTED => marks.high_watermark,
        READ_COMMITTED => marks.last_stable,
        _ => return Err(error_code::INVALID_REQUEST),
    };
    let local = call.kernel().local_start(id).ok_or(unknown)?;
    let epoch = leader_epoch(stream);
    let named = |offset| Ok(Some((offset, -1, epoch)));
    let timestamp = match asked.timestamp {
        LATEST => return named(latest),
        EARLIEST => return named(marks.log_start),
        EARLIEST_LOCAL if call.version >= 8 => return named(local),
        LATEST_TIERED if call.version >= 9 && local > marks.log_start => return named(local - 1),
        LATEST_TIERED if call.version >= 9 => return Ok(None),
        MAX_TIMESTAMP if call.version >= 7 => match call.kernel().max_timestamp(id) {
            Some(greatest) => greatest,
            None => return Ok(None),
        },
        timestamp @ 0.. => timestamp,
        _ => return Err(error_code::UNSUPPORTED_VERSION),
    };
    let found = call.kernel().offset_for_timestamp(id, timestamp).await;
    // The log start may pass the offset while it is looked for: the client asks again.
    let found = found.map_err(|error| error_code::of_read(&error))?;
    // What this reader could not fetch does not exist for it.
    Ok(found
        .filter(|(offset, _)| *offset < latest)
        .map(|(offset, timestamp)| (offset, timestamp, epoch)))
}
