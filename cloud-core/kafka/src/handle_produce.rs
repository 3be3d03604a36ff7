//! Produce: batches into the log, answered when they are durable.

use std::sync::Arc;
use std::time::Duration;

use access_rules::Verb;
use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use kernel::{Appended, PartitionId, SequenceRule, Stream};
use quota::Share;
use record::{Batch, BatchError, Compression, TimestampType};
use tokio::time::Instant;

use crate::broker::Call;
use crate::error_code;
use crate::topics::partition;
use crate::wire::produce::*;

const ACKS_ALL: i16 = -1;
const ACKS_LEADER: i16 = 1;
const ACKS_NONE: i16 = 0;

/// Producer ids with this bit belong to edges, which write by other rules (see the design page of first light).
const EDGE_PRODUCER_BIT: i64 = 1 << 62;

/// Puts the batches in line, in the order of calls; the future is the answer, or nothing where none is wanted.
/// Its error is for acks=0, where there is no answer to put it in. What was taken into the log is taken off `share`: the answer says how
/// long the client is not to be heard.
pub fn start(
    call: Arc<Call>,
    request: ProduceRequest,
    share: &mut Share,
) -> impl Future<Output = Result<Option<ProduceResponse>, i16>> + Send + 'static + use<> {
    let refusal = match request.acks {
        _ if request.transactional_id.is_some() => Some((
            error_code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            error_code::NO_TRANSACTIONS,
        )),
        ACKS_ALL | ACKS_LEADER | ACKS_NONE => None,
        _ => Some((
            error_code::INVALID_REQUIRED_ACKS,
            "acks must be 0, 1 or all",
        )),
    };
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let mut topics = Vec::with_capacity(request.topic_data.len());
    let (mut messages, mut bytes) = (0, 0);
    for topic in request.topic_data {
        let (stream, unknown) = if call.version >= 13 {
            (
                call.broker.topics.by_uuid(topic.topic_id),
                error_code::UNKNOWN_TOPIC_ID,
            )
        } else {
            (
                call.broker.topics.by_name(&topic.name),
                error_code::UNKNOWN_TOPIC_OR_PARTITION,
            )
        };
        let name = stream
            .as_ref()
            .map_or(topic.name.as_str(), |stream| stream.address.name.as_str());
        let denied = !name.is_empty() && call.check_topic(Verb::Publish, name).is_err();
        let partitions: Vec<BoxFuture<'static, PartitionProduceResponse>> = topic
            .partition_data
            .into_iter()
            .map(|data| {
                let index = data.index;
                let begun = match (&refusal, &stream) {
                    (Some((code, reason)), _) => Err(Refusal::new(*code, *reason)),
                    _ if denied => Err(Refusal::new(
                        error_code::TOPIC_AUTHORIZATION_FAILED,
                        "the user may not write to this topic",
                    )),
                    (None, None) => Err(Refusal::new(unknown, "no such topic")),
                    (None, Some(stream)) => begin(&call, stream, data),
                };
                let begun = begun.map(|begun| {
                    messages += begun.messages;
                    bytes += begun.bytes;
                    begun.append
                });
                let append: BoxFuture<'static, PartitionProduceResponse> = match begun {
                    Err(refusal) => Box::pin(std::future::ready(refusal.answer(index))),
                    Ok(append) => Box::pin(append_within(timeout, append, index)),
                };
                append
            })
            .collect();
        topics.push((topic.name, topic.topic_id, partitions));
    }
    let wait = share.take(messages, bytes, Instant::now());
    let throttle_time_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    let acks = request.acks;
    async move {
        let mut responses = Vec::with_capacity(topics.len());
        for (name, topic_id, partitions) in topics {
            responses.push(TopicProduceResponse {
                name,
                topic_id,
                partition_responses: join_all(partitions).await,
            });
        }
        if acks != ACKS_NONE {
            return Ok(Some(ProduceResponse {
                responses,
                throttle_time_ms,
            }));
        }
        let mut codes = responses
            .iter()
            .flat_map(|topic| &topic.partition_responses)
            .map(|answer| answer.error_code);
        match codes.find(|code| *code != error_code::NONE) {
            Some(code) => Err(code),
            None => Ok(None),
        }
    }
}

/// Why a batch does not enter the log.
struct Refusal {
    code: i16,
    reason: String,
}

impl Refusal {
    fn new(code: i16, reason: impl Into<String>) -> Refusal {
        Refusal {
            code,
            reason: reason.into(),
        }
    }

    fn answer(self, index: i32) -> PartitionProduceResponse {
        PartitionProduceResponse {
            index,
            error_code: self.code,
            base_offset: -1,
            error_message: Some(self.reason),
            ..Default::default()
        }
    }
}

type Append = BoxFuture<'static, Result<Appended, kernel::AppendError>>;

/// A batch on its way into the log.
struct Begun {
    append: Append,
    messages: u64,
    bytes: u64,
}

fn begin(call: &Call, stream: &Stream, data: PartitionProduceData) -> Result<Begun, Refusal> {
    let partition: PartitionId = partition(stream, data.index)
        .ok_or_else(|| Refusal::new(error_code::UNKNOWN_TOPIC_OR_PARTITION, "no such partition"))?;
    let batch = check(call, data.records)?;
    if stream.is_compacted() {
        check_keys(&batch)?;
    }
    let (messages, bytes) = (batch.record_count().into(), batch.bytes().len() as u64);
    let append = call.kernel().append(partition, batch, SequenceRule::Window);
    Ok(Begun {
        append: Box::pin(append),
        messages,
        bytes,
    })
}

/// The batch of one partition, if a client may write it.
fn check(call: &Call, records: Option<Bytes>) -> Result<Batch, Refusal> {
    let records = records.unwrap_or_default();
    let limit = call.broker.ctx.limits.message_bytes;
    if records.len() > limit {
        let reason = format!("the batch is {} bytes, the limit is {limit}", records.len());
        return Err(Refusal::new(error_code::MESSAGE_TOO_LARGE, reason));
    }
    // The format byte stands at the same place in all of them; the older two have no batch header behind it.
    if records.get(16).is_some_and(|magic| *magic < 2) {
        let reason =
            "message formats 0 and 1 are not supported: use a client of Kafka 0.11 or later";
        return Err(Refusal::new(
            error_code::UNSUPPORTED_FOR_MESSAGE_FORMAT,
            reason,
        ));
    }
    let batch = Batch::parse(records).map_err(refuse_batch)?;
    if batch.is_transactional() {
        return Err(Refusal::new(
            error_code::INVALID_TXN_STATE,
            error_code::NO_TRANSACTIONS,
        ));
    }
    if batch.is_control() {
        return Err(Refusal::new(
            error_code::INVALID_RECORD,
            "clients may not write control batches",
        ));
    }
    if batch.timestamp_type() == TimestampType::LogAppend {
        return Err(Refusal::new(
            error_code::INVALID_RECORD,
            "clients may not set the log append time",
        ));
    }
    if batch.compression() == Compression::Zstd && call.version < 7 {
        return Err(Refusal::new(
            error_code::UNSUPPORTED_COMPRESSION_TYPE,
            "zstd needs version 7 of Produce",
        ));
    }
    if batch.producer_id() >= 0 && batch.producer_id() & EDGE_PRODUCER_BIT != 0 {
        return Err(Refusal::new(
            error_code::INVALID_PRODUCER_ID_MAPPING,
            "this producer id was not given out to a client",
        ));
    }
    batch.check_records().map_err(refuse_batch)?;
    record::strip_reserved(&batch).map_err(refuse_batch)
}

/// Compaction keeps the newest record of each key: a record without one would stay for ever.
fn check_keys(batch: &Batch) -> Result<(), Refusal> {
    for record in batch.records().map_err(refuse_batch)? {
        if record.map_err(refuse_batch)?.key.is_none() {
            return Err(Refusal::new(
                error_code::INVALID_RECORD,
                "a compacted topic takes no record without a key",
            ));
        }
    }
    Ok(())
}

fn refuse_batch(error: BatchError) -> Refusal {
    let code = match error {
        BatchError::Truncated { .. } | BatchError::Checksum { .. } | BatchError::BadLength(_) => {
            error_code::CORRUPT_MESSAGE
        }
        BatchError::TooLarge { .. } | BatchError::DecompressedTooLarge => {
            error_code::MESSAGE_TOO_LARGE
        }
        BatchError::UnsupportedMagic(_) => error_code::UNSUPPORTED_FOR_MESSAGE_FORMAT,
        BatchError::UnknownCompression(_) => error_code::UNSUPPORTED_COMPRESSION_TYPE,
        _ => error_code::INVALID_RECORD,
    };
    Refusal::new(code, error.to_string())
}

/// Waits for the log. When that takes longer than the client waits, the batch may still be appended: the client retries,
/// and an idempotent one is recognised.
async fn append_within(timeout: Duration, append: Append, index: i32) -> PartitionProduceResponse {
    let refused = match tokio::time::timeout(timeout, append).await {
        Ok(Ok(Appended {
            base_offset,
            duplicate: true,
            ..
        })) if base_offset < 0 => Refusal::new(
            error_code::DUPLICATE_SEQUENCE_NUMBER,
            "the batch is in the log already",
        ),
        Ok(Ok(appended)) => {
            return PartitionProduceResponse {
                index,
                base_offset: appended.base_offset,
                log_start_offset: appended.log_start,
                ..Default::default()
            };
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "a batch was refused");
            Refusal::new(error_code::of_append(&error), error.to_string())
        }
        Err(_) => Refusal::new(
            error_code::REQUEST_TIMED_OUT,
            "not durable within the timeout of the request",
        ),
    };
    refused.answer(index)
}
