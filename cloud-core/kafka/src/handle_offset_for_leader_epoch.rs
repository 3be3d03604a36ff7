//! OffsetForLeaderEpoch: where an epoch ended. A log has one epoch from its first record to its end: an older one is that of a topic of
//! this name that was deleted, and ended, as far as this log goes, at offset 0.

use std::cmp::Ordering;
use std::sync::Arc;

use access_rules::Verb;
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
        // By the name that was asked for: whether there is such a topic is told to those only who may see it.
        let allowed = call.check_topic(Verb::Describe, &topic.topic);
        let stream = call.broker.topics.by_name(&topic.topic);
        OffsetForLeaderTopicResult {
            partitions: topic
                .partitions
                .iter()
                .map(|asked| end_of(&call, allowed, stream.as_deref(), asked))
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
    allowed: Result<(), i16>,
    stream: Option<&Stream>,
    asked: &OffsetForLeaderPartition,
) -> EpochEndOffset {
    let result = EpochEndOffset {
        partition: asked.partition,
        ..Default::default()
    };
    if let Err(error_code) = allowed {
        return EpochEndOffset {
            error_code,
            ..result
        };
    }
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
    let stale = check_epoch(stream, asked.current_leader_epoch);
    if stale != error_code::NONE {
        return EpochEndOffset {
            error_code: stale,
            ..result
        };
    }
    let end_offset = match asked.leader_epoch.cmp(&leader_epoch(stream)) {
        // Nothing is known of an epoch that is still to come, nor of none (-1).
        Ordering::Greater => return result,
        Ordering::Less if asked.leader_epoch < 0 => return result,
        Ordering::Less => 0,
        Ordering::Equal => marks.end,
    };
    EpochEndOffset {
        leader_epoch: asked.leader_epoch,
        end_offset,
        ..result
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
