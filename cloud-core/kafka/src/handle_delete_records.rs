//! DeleteRecords: moves the start of a log.

use std::sync::Arc;

use access_rules::Verb;
use kernel::TrimError;

use crate::broker::Call;
use crate::error_code;
use crate::topics::partition;
use crate::wire::delete_records::*;

/// All there is.
const HIGH_WATERMARK: i64 = -1;

pub async fn handle(call: Arc<Call>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let (low_watermark, error_code) = match delete(&call, &topic.name, &asked).await {
                Ok(log_start) => (log_start, error_code::NONE),
                Err(code) => (-1, code),
            };
            let partition_index = asked.partition_index;
            partitions.push(DeleteRecordsPartitionResult {
                partition_index,
                low_watermark,
                error_code,
            });
        }
        topics.push(DeleteRecordsTopicResult {
            name: topic.name,
            partitions,
        });
    }
    DeleteRecordsResponse {
        topics,
        ..Default::default()
    }
}

async fn delete(call: &Call, topic: &str, asked: &DeleteRecordsPartition) -> Result<i64, i16> {
    call.check_topic(Verb::Delete, topic)?;
    let unknown = error_code::UNKNOWN_TOPIC_OR_PARTITION;
    let stream = call.broker.topics.by_name(topic).ok_or(unknown)?;
    if !stream.is_deleted_from() {
        // As KIP-107 has it: the records of a topic that is only compacted are its state.
        return Err(error_code::POLICY_VIOLATION);
    }
    let id = partition(&stream, asked.partition_index).ok_or(unknown)?;
    let marks = call.kernel().watermarks(id).ok_or(unknown)?;
    let before = match asked.offset {
        HIGH_WATERMARK => marks.high_watermark,
        offset @ 0.. => offset,
        _ => return Err(error_code::OFFSET_OUT_OF_RANGE),
    };
    call.kernel()
        .trim(id, before)
        .await
        .map_err(|error| match error {
            TrimError::UnknownPartition(_) => unknown,
            TrimError::OutOfRange { .. } => error_code::OFFSET_OUT_OF_RANGE,
            TrimError::Write(write) => error_code::of_write(&write),
        })
}
