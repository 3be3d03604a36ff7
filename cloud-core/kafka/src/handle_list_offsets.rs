//! ListOffsets: offsets by name (earliest, latest, ...) or by timestamp.

use std::sync::Arc;

use kernel::{PartitionId, ReadError, Stream};

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
const READ_COMMITTED: i8 = 1;

pub async fn handle(call: Arc<Call>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let stream = call.broker.topics.by_name(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let result = ListOffsetsPartitionResponse {
                partition_index: asked.partition_index,
                ..Default::default()
            };
            partitions.push(
                match find(&call, stream.as_deref(), &asked, request.isolation_level).await {
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
                },
            );
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
    let epoch = leader_epoch(stream);
    let named = |offset| Ok(Some((offset, -1, epoch)));
    match asked.timestamp {
        LATEST if isolation_level == READ_COMMITTED => named(marks.last_stable),
        LATEST => named(marks.high_watermark),
        EARLIEST => named(marks.log_start),
        EARLIEST_LOCAL if call.version >= 8 => named(marks.log_start),
        LATEST_TIERED if call.version >= 9 => Ok(None), // Nothing is tiered yet.
        MAX_TIMESTAMP if call.version >= 7 => youngest(call, id, epoch).await,
        timestamp @ 0.. => at_or_after(call, id, timestamp, epoch).await,
        _ => Err(error_code::UNSUPPORTED_VERSION),
    }
}

/// The first record with this timestamp or a later one.
async fn at_or_after(
    call: &Call,
    id: PartitionId,
    timestamp: i64,
    epoch: i32,
) -> Result<Option<(i64, i64, i32)>, i16> {
    let Some((offset, _)) = call
        .kernel()
        .offset_for_timestamp(id, timestamp)
        .await
        .map_err(code)?
    else {
        return Ok(None);
    };
    // The index knows batches; which record of the batch it is, the batch knows.
    let read = call.kernel().read(id, offset, 1).await.map_err(code)?;
    let damaged = |_| error_code::CORRUPT_MESSAGE;
    for batch in &read.batches {
        for record in batch.records().map_err(damaged)? {
            let record = record.map_err(damaged)?;
            if record.timestamp >= timestamp && record.offset >= read.watermarks.log_start {
                return Ok(Some((record.offset, record.timestamp, epoch)));
            }
        }
    }
    Ok(None)
}

/// The first record with the greatest timestamp, by halving the range in which that timestamp lies.
async fn youngest(
    call: &Call,
    id: PartitionId,
    epoch: i32,
) -> Result<Option<(i64, i64, i32)>, i16> {
    let (mut found, mut missing) = (0i64, i64::MAX);
    while missing - found > 1 {
        let middle = found + (missing - found) / 2;
        match call
            .kernel()
            .offset_for_timestamp(id, middle)
            .await
            .map_err(code)?
        {
            Some(_) => found = middle,
            None => missing = middle,
        }
    }
    at_or_after(call, id, found, epoch).await
}

fn code(error: ReadError) -> i16 {
    // The log start may pass the offset between two looks: the client asks again.
    error_code::of_read(&error)
}
