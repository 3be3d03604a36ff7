//! OffsetForLeaderEpoch: where an epoch ended. No log here was ever cut at its end, so every epoch that a client has seen
//! ends where the log does.

use std::sync::Arc;

use kernel::Stream;

use crate::broker::Call;
use crate::error_code;
use crate::topics::{leader_epoch, partition};
use crate::wire::offset_for_leader_epoch::*;

pub async fn handle(
    call: Arc<Call>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let stream = call.broker.topics.by_name(&topic.topic);
        OffsetForLeaderTopicResult {
            partitions: topic
                .partitions
                .iter()
                .map(|asked| end_of(&call, stream.as_deref(), asked))
                .collect(),
            topic: topic.topic,
        }
    });
    OffsetForLeaderEpochResponse {
        topics: topics.collect(),
        ..Default::default()
    }
}

fn end_of(
    call: &Call,
    stream: Option<&Stream>,
    asked: &OffsetForLeaderPartition,
) -> EpochEndOffset {
    let result = EpochEndOffset {
        partition: asked.partition,
        ..Default::default()
    };
    let found = stream.and_then(|stream| {
        let marks = call
            .kernel()
            .watermarks(partition(stream, asked.partition)?)?;
        Some((stream, marks))
    });
    let Some((stream, marks)) = found else {
        return EpochEndOffset {
            error_code: error_code::UNKNOWN_TOPIC_OR_PARTITION,
            ..result
        };
    };
    match check_epoch(stream, asked.current_leader_epoch) {
        error_code::NONE if asked.leader_epoch > leader_epoch(stream) => result,
        error_code::NONE => EpochEndOffset {
            leader_epoch: asked.leader_epoch,
            end_offset: marks.end,
            ..result
        },
        error_code => EpochEndOffset {
            error_code,
            ..result
        },
    }
}

/// Compares the epoch that a client knows (-1: none) with the current one.
pub fn check_epoch(stream: &Stream, known: i32) -> i16 {
    match known {
        ..0 => error_code::NONE,
        known if known < leader_epoch(stream) => error_code::FENCED_LEADER_EPOCH,
        known if known > leader_epoch(stream) => error_code::UNKNOWN_LEADER_EPOCH,
        _ => error_code::NONE,
    }
}
