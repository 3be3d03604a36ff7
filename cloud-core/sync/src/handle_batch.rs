//! `Batch`: appends what an edge sends, exactly once, and acknowledges it after the commit.

use std::future::Future;

use frontend::retained;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use kernel::{AppendError, Appended, Command, Entry, Outcome, SequenceRule, WriteError};
use record::{Batch, NewRecord, StreamAddress, StreamName, partition_for_key, topic_for_record};
use sync_quic::{BatchFrame, EdgeConnection, Hello, LaneFrame, Lanes, Received, RefuseCode};

use crate::frontend::Sync;
use crate::limits;

struct Refusal {
    code: RefuseCode,
    reason: String,
}

impl Refusal {
    fn new(code: RefuseCode, reason: impl ToString) -> Refusal {
        Refusal {
            code,
            reason: reason.to_string(),
        }
    }
}

/// Takes batches until the connection is over, or until one had to be refused for now. Many are on their way to the disk at once;
/// the kernel takes them in the order in which they came.
pub(crate) async fn run(sync: &Sync, hello: &Hello, connection: &EdgeConnection, mut lanes: Lanes) {
    let mut in_flight = FuturesOrdered::new();
    let mut open = true;
    while open || !in_flight.is_empty() {
        tokio::select! {
            biased;
            Some((received, result)) = in_flight.next(), if !in_flight.is_empty() => {
                if !finish(sync, hello, connection, &received, result) {
                    return;
                }
            }
            received = lanes.next(), if open && in_flight.len() < limits::MAX_BATCHES_IN_FLIGHT => {
                let Some(received) = received else {
                    open = false;
                    continue;
                };
                // The write takes its place in the kernel's order here, before the next batch is looked at.
                let write = match &received.frame {
                    LaneFrame::Batch(frame) => append(sync, hello, frame).await,
                    LaneFrame::Gap(_) => Err(Refusal::new(RefuseCode::Unavailable, "gaps are not kept yet")),
                };
                in_flight.push_back(async move {
                    let result = match write {
                        Ok((records, write)) => appended(write.await).map(|appended| (records, appended)),
                        Err(refusal) => Err(refusal),
                    };
                    (received, result)
                });
            }
        }
    }
}

/// Acknowledges or refuses. False when nothing after this batch may be settled: the edge sends from here again.
fn finish(
    sync: &Sync,
    hello: &Hello,
    connection: &EdgeConnection,
    received: &Received,
    result: Result<(u32, Appended), Refusal>,
) -> bool {
    let (lane, frame) = (received.frame.lane(), received.frame.number());
    match result {
        Ok((records, appended)) => {
            if appended.duplicate {
                sync.metrics.duplicates.inc();
            } else {
                sync.metrics.batches.inc();
                sync.metrics.records.inc_by(records.into());
            }
            sync.registry.committed(&hello.edge, frame);
            connection.settle(lane, frame);
            true
        }
        Err(Refusal { code, reason }) => {
            sync.metrics.refused.inc();
            tracing::warn!(edge = %hello.edge, lane, frame, %code, reason, "batch refused");
            connection.refuse(lane, frame, code, &reason);
            !code.is_retryable()
        }
    }
}

/// Checks a batch and hands it to the kernel. The result resolves when it is durable.
async fn append(
    sync: &Sync,
    hello: &Hello,
    frame: &BatchFrame,
) -> Result<
    (
        u32,
        impl Future<Output = Result<Vec<Outcome>, WriteError>> + Send + 'static,
    ),
    Refusal,
> {
    let batch = Batch::parse(frame.batch.clone())
        .map_err(|error| Refusal::new(RefuseCode::Malformed, error))?;
    if batch.is_control() || batch.is_transactional() || batch.base_sequence() < 0 {
        return Err(Refusal::new(
            RefuseCode::Malformed,
            "an edge's batch has a sequence and is neither control nor transactional",
        ));
    }
    if (batch.producer_id(), batch.producer_epoch()) != (hello.producer_id, hello.incarnation) {
        return Err(Refusal::new(
            RefuseCode::WrongProducer,
            "producer id and epoch must be those of the hello",
        ));
    }
    let name = StreamName::new(&frame.stream)
        .map_err(|error| Refusal::new(RefuseCode::InvalidStream, error))?;
    let address = StreamAddress::new(sync.registry.namespace().clone(), name);
    let stream = sync
        .ctx
        .stream_for_write(&address)
        .await
        .map_err(|error| Refusal::new(RefuseCode::Unavailable, error))?;
    // The edge is the ordering domain: whatever its keys, its batches go whole to one partition.
    let partition = stream.id.partition(partition_for_key(
        Some(hello.edge.as_bytes()),
        stream.partitions,
    ));
    let records = batch.record_count();
    let mut entry = Entry::new().append(partition, batch.clone(), SequenceRule::Strict);
    if frame.flags.has_retained() {
        for command in retained_commands(&address, &batch)? {
            entry.push(command);
        }
    }
    Ok((records, sync.ctx.kernel.write(entry)))
}

/// One command for each record that sets or clears a retained message, in the batch's order.
fn retained_commands(address: &StreamAddress, batch: &Batch) -> Result<Vec<Command>, Refusal> {
    let malformed = |error: record::BatchError| Refusal::new(RefuseCode::Malformed, error);
    let mut commands = Vec::new();
    for record in batch.records().map_err(malformed)? {
        let record = record.map_err(malformed)?;
        if retained::is_retained(&record) {
            let topic = topic_for_record(&address.name, record.key.as_deref());
            let command = retained::command(&address.namespace, &topic, &NewRecord::from(record))
                .map_err(|error| Refusal::new(RefuseCode::Malformed, error))?;
            commands.push(command);
        }
    }
    Ok(commands)
}

/// The outcome of the entry's append, which is its first command.
fn appended(outcomes: Result<Vec<Outcome>, WriteError>) -> Result<Appended, Refusal> {
    let error = match outcomes.map(|outcomes| outcomes.into_iter().next()) {
        Ok(Some(Outcome::Appended(appended))) => return Ok(appended),
        Ok(Some(Outcome::Refused(error))) => error,
        Ok(_) => {
            return Err(Refusal::new(
                RefuseCode::Unavailable,
                "the log did not say what became of the batch",
            ));
        }
        Err(error) => error.into(),
    };
    let code = match &error {
        AppendError::OutOfOrderSequence { .. } => RefuseCode::OutOfOrder,
        AppendError::FencedEpoch { .. } => RefuseCode::Fenced,
        AppendError::TooLarge { .. } => RefuseCode::TooLarge,
        AppendError::Malformed(_)
        | AppendError::TransactionState { .. }
        | AppendError::FencedCoordinator { .. } => RefuseCode::Malformed,
        // The stream was deleted meanwhile: the next try makes it again.
        AppendError::UnknownPartition(_)
        | AppendError::Closed
        | AppendError::Failed(_)
        | AppendError::Full => RefuseCode::Unavailable,
    };
    Err(Refusal::new(code, error))
}
