//! Fetch: batches out of the log as they lie there, waiting for commits where there is not enough yet.
//!
//! There are no fetch sessions: a client that asks for one is told session id 0, the protocol's word for "none", and
//! names all its partitions each time.

use std::sync::Arc;
use std::time::Duration;

use access_rules::Verb;
use kernel::{PartitionId, ReadError, Stream, Watermarks};
use record::Batch;
use tokio::time::Instant;

use crate::broker::Call;
use crate::error_code;
use crate::handle_offset_for_leader_epoch::check_epoch;
use crate::limits;
use crate::topics::partition;
use crate::wire::Records;
use crate::wire::fetch::*;

/// Isolation levels.
const READ_UNCOMMITTED: i8 = 0;
const READ_COMMITTED: i8 = 1;

pub async fn handle(call: Arc<Call>, request: FetchRequest) -> FetchResponse {
    if request.session_id != 0 {
        return FetchResponse {
            error_code: error_code::FETCH_SESSION_ID_NOT_FOUND,
            ..Default::default()
        };
    }
    if request.session_epoch > 0 {
        return FetchResponse {
            error_code: error_code::INVALID_FETCH_SESSION_EPOCH,
            ..Default::default()
        };
    }
    if ![READ_UNCOMMITTED, READ_COMMITTED].contains(&request.isolation_level) {
        return FetchResponse {
            error_code: error_code::INVALID_REQUEST,
            ..Default::default()
        };
    }
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0))
        .min(limits::MAX_FETCH_WAIT);
    let deadline = Instant::now() + wait;
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0);
    loop {
        let collected = collect(&call, &request).await;
        let enough = collected.bytes >= min_bytes
            || collected.failed
            || collected.full
            || collected.ends.is_empty();
        if enough || Instant::now() >= deadline {
            return FetchResponse {
                responses: collected.topics,
                ..Default::default()
            };
        }
        // Whatever was written, or decided, after the look above is past these ends, so it is not missed.
        let changed = async {
            if request.isolation_level == READ_COMMITTED {
                call.kernel().wait_stable(&collected.ends).await
            } else {
                call.kernel().wait_past(&collected.ends).await
            }
        };
        if tokio::time::timeout_at(deadline, changed).await.is_err() {
            return FetchResponse {
                responses: collected.topics,
                ..Default::default()
            };
        }
    }
}

/// One look at all partitions of a request.
struct Collected {
    topics: Vec<FetchableTopicResponse>,
    bytes: usize,
    /// Where to wait for more: the ends, or the last stable offsets, of what was looked at.
    ends: Vec<(PartitionId, i64)>,
    /// A partition has an error to tell.
    failed: bool,
    /// No more fits.
    full: bool,
}

async fn collect(call: &Call, request: &FetchRequest) -> Collected {
    let limit = usize::try_from(request.max_bytes)
        .unwrap_or(0)
        .min(limits::MAX_FETCH_RESPONSE);
    let mut collected = Collected {
        topics: Vec::new(),
        bytes: 0,
        ends: Vec::new(),
        failed: false,
        full: false,
    };
    for topic in &request.topics {
        let (stream, unknown) = if call.version >= 13 {
            (
                call.broker.topics.by_uuid(topic.topic_id),
                error_code::UNKNOWN_TOPIC_ID,
            )
        } else {
            (
                call.broker.topics.by_name(&topic.topic),
                error_code::UNKNOWN_TOPIC_OR_PARTITION,
            )
        };
        let name = stream
            .as_ref()
            .map_or(topic.topic.as_str(), |stream| stream.address.name.as_str());
        // Asked at each look: the rules may have changed while there was nothing to read.
        let denied = !name.is_empty() && call.check_topic(Verb::Subscribe, name).is_err();
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let committed = request.isolation_level == READ_COMMITTED;
            let answer = match &stream {
                _ if denied => failure(asked, error_code::TOPIC_AUTHORIZATION_FAILED, None),
                Some(stream) => one(call, stream, asked, committed, limit, &mut collected).await,
                None => failure(asked, unknown, None),
            };
            collected.failed |= answer.error_code != error_code::NONE;
            partitions.push(answer);
        }
        let (topic, topic_id) = (topic.topic.clone(), topic.topic_id);
        collected.topics.push(FetchableTopicResponse {
            topic,
            topic_id,
            partitions,
        });
    }
    collected
}

async fn one(
    call: &Call,
    stream: &Stream,
    asked: &FetchPartition,
    committed: bool,
    limit: usize,
    collected: &mut Collected,
) -> PartitionData {
    let Some(id) = partition(stream, asked.partition) else {
        return failure(asked, error_code::UNKNOWN_TOPIC_OR_PARTITION, None);
    };
    let stale = check_epoch(stream, asked.current_leader_epoch);
    if stale != error_code::NONE {
        return failure(asked, stale, None);
    }
    let room = limit
        .saturating_sub(collected.bytes)
        .min(usize::try_from(asked.partition_max_bytes).unwrap_or(0));
    // Readers of committed records get everything below the last stable offset, and leave out themselves what they are told was aborted.
    let read = if committed {
        let stable = call
            .kernel()
            .read_stable(id, asked.fetch_offset, room)
            .await;
        stable.map(|(read, aborted)| (read, Some(aborted)))
    } else {
        let read = call.kernel().read(id, asked.fetch_offset, room).await;
        read.map(|read| (read, None))
    };
    let (read, aborted) = match read {
        Ok(read) => read,
        Err(error) => {
            match &error {
                // Of damage the log has told, once; a client that stands before it asks for ever.
                ReadError::Corrupt { .. }
                | ReadError::OutOfRange { .. }
                | ReadError::UnknownPartition(_)
                | ReadError::Closed => {}
                ReadError::Unavailable { .. } => {
                    tracing::warn!(%error, "cannot serve a fetch now");
                }
                ReadError::Io { .. } => tracing::error!(%error, "cannot serve a fetch"),
            }
            return failure(
                asked,
                error_code::of_read(&error),
                call.kernel().watermarks(id),
            );
        }
    };
    // The first batch of a response comes even if it is larger than every limit, or the client would never get past it.
    let length: usize = read.batches.iter().map(Batch::len).sum();
    let fits = length <= room || collected.bytes == 0;
    let mut records = Records::default();
    if fits {
        collected.bytes += length;
        records
            .0
            .extend(read.batches.into_iter().map(Batch::into_bytes));
    }
    collected.full |= !fits || collected.bytes >= limit;
    let mut marks = read.watermarks;
    let end = if committed {
        marks.last_stable
    } else {
        marks.end
    };
    collected.ends.push((id, end));
    // A client that knows of offsets which were given up since (`Watermarks::end`) lags behind nothing, and is not ahead either.
    marks.high_watermark = marks.high_watermark.max(asked.fetch_offset.min(marks.end));
    if marks.last_stable == read.watermarks.high_watermark {
        marks.last_stable = marks.high_watermark;
    }
    PartitionData {
        records,
        aborted_transactions: aborted.map(|aborted| {
            let aborted = aborted.into_iter().map(|a| AbortedTransaction {
                producer_id: a.producer_id,
                first_offset: a.first_offset,
            });
            aborted.collect()
        }),
        ..answer(asked, Some(marks))
    }
}

fn answer(asked: &FetchPartition, marks: Option<Watermarks>) -> PartitionData {
    PartitionData {
        partition_index: asked.partition,
        high_watermark: marks.map_or(-1, |marks| marks.high_watermark),
        last_stable_offset: marks.map_or(-1, |marks| marks.last_stable),
        log_start_offset: marks.map_or(-1, |marks| marks.log_start),
        ..Default::default()
    }
}

fn failure(asked: &FetchPartition, error_code: i16, marks: Option<Watermarks>) -> PartitionData {
    PartitionData {
        error_code,
        ..answer(asked, marks)
    }
}
