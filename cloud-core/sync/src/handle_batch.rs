//! `Batch`: appends what an edge sends, exactly once; acknowledged after the commit.

use frontend::{StreamForWriteError, retained};
use kernel::{AppendError, Appended, Command, Entry, Outcome, SequenceRule, WriteError};
use record::{Batch, NewRecord, StreamAddress, StreamName, partition_for_key, topic_for_record};
use sync_quic::{BatchFrame, Hello, RefuseCode};

use crate::lane::{Committed, Refusal, Served, Write};

/// The batch as the edge encoded it; its CRC is right.
pub(crate) fn restore(served: Served<'_>, frame: &BatchFrame) -> Result<Batch, Refusal> {
    let bytes = served.sync.dictionaries.restore(served, frame)?;
    Batch::parse(bytes).map_err(|error| match frame.link {
        None => Refusal::new(RefuseCode::Malformed, error),
        // Of what was compressed it cannot be told where it went wrong.
        Some(_) => Refusal::new(RefuseCode::Corrupt, error),
    })
}

/// Checks a batch and hands it to the kernel. The write resolves when it is durable.
pub(crate) async fn handle<'a>(
    served: Served<'a>,
    frame: &BatchFrame,
    batch: Batch,
) -> Result<Write<'a>, Refusal> {
    let Served { sync, hello, .. } = served;
    if batch.is_control() || batch.is_transactional() || batch.base_sequence() < 0 {
        return Err(Refusal::new(
            RefuseCode::Malformed,
            "an edge's batch has a sequence and is neither control nor transactional",
        ));
    }
    check_writer(
        hello,
        frame.lane,
        batch.producer_id(),
        batch.producer_epoch(),
    )?;
    let name = StreamName::new(&frame.stream)
        .map_err(|error| Refusal::new(RefuseCode::InvalidStream, error))?;
    let address = StreamAddress::new(sync.registry.namespace().clone(), name);
    let stream = sync
        .ctx
        .stream_for_write(&address)
        .await
        .map_err(|error| match error {
            // Not a matter of time: it would hold all that comes after it.
            StreamForWriteError::Unknown(_) => Refusal::new(RefuseCode::InvalidStream, error),
            error => Refusal::new(RefuseCode::Unavailable, error),
        })?;
    // The edge is the ordering domain: whatever its keys, its batches go whole to one partition.
    let partition = stream.id.partition(partition_for_key(
        Some(hello.edge.as_bytes()),
        stream.partitions,
    ));
    let (records, bytes) = (batch.record_count(), batch.len() as u64);
    let mut entry = Entry::new().append(partition, batch.clone(), SequenceRule::Strict);
    if frame.flags.has_retained() {
        for command in retained_commands(&address, &batch)? {
            entry.push(command);
        }
    }
    let write = sync.ctx.kernel.write(entry);
    // Nothing of an older start is sent after something of a newer one: once a newer one is in the log, an older batch is a repetition.
    // Only the newest start may say so: another one may be a copy, whose own batches nobody has.
    let is_previous = batch.producer_id() != hello.producer_id + i64::from(frame.lane);
    let is_old = is_previous || batch.producer_epoch() < hello.incarnation;
    Ok(Box::pin(async move {
        match appended(write.await) {
            Ok(appended) if appended.duplicate => Ok(Committed::Duplicate),
            Ok(_) => Ok(Committed::Batch { records, bytes }),
            Err(refusal) if refusal.code == RefuseCode::Fenced && is_old => {
                if sync.registry.is_newest(hello) {
                    Ok(Committed::Duplicate)
                } else {
                    Err(Refusal::new(
                        RefuseCode::Unavailable,
                        "a newer start of this edge has connected",
                    ))
                }
            }
            Err(refusal) => Err(refusal),
        }
    }))
}

/// The producer id is that of the lane, the epoch one that the edge has reached.
pub(crate) fn check_writer(
    hello: &Hello,
    lane: u8,
    producer_id: i64,
    epoch: i16,
) -> Result<(), Refusal> {
    let base = producer_id.checked_sub(i64::from(lane));
    let reached = if base == Some(hello.producer_id) {
        hello.incarnation
    } else if base.is_some() && base == hello.previous_producer_id {
        i16::MAX
    } else {
        return Err(Refusal::new(
            RefuseCode::WrongProducer,
            format!("producer id {producer_id} is none of lane {lane} of this edge"),
        ));
    };
    if !(0..=reached).contains(&epoch) {
        return Err(Refusal::new(
            RefuseCode::WrongProducer,
            format!("epoch {epoch} is not one that this edge has reached"),
        ));
    }
    Ok(())
}

/// One command for each record that sets or clears a retained message, in the batch's order.
fn retained_commands(address: &StreamAddress, batch: &Batch) -> Result<Vec<Command>, Refusal> {
    let malformed = |error: record::BatchError| Refusal::new(RefuseCode::Malformed, error);
    let mut commands = Vec::new();
    for record in batch.records().map_err(malformed)? {
        let record = record.map_err(malformed)?;
        if retained::is_retained(&record) {
            let topic = topic_for_record(&address.name, record.key.as_deref()).into_owned();
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
    Err(refusal(&error))
}

/// What an edge is told of a refusal of the log.
pub(crate) fn refusal(error: &AppendError) -> Refusal {
    let code = match error {
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
    Refusal::new(code, error)
}
