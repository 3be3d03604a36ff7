//! A command of the log in one line.

use kernel::{Command, PartitionId};
use record::{Batch, NO_PRODUCER_ID};
use serde_json::{Value, json};

use crate::output::plural;

/// Longest line about a command that this version has no words for, in characters.
const LONGEST: usize = 160;

/// A command in one line.
pub fn words(command: &Command) -> String {
    match command {
        Command::Append {
            partition, batch, ..
        } => format!("append to {}: {}", name(*partition), batch_words(batch)),
        Command::TablePut { table, key, value } => format!(
            "put {} into table {table}: {} bytes",
            short(key),
            value.len()
        ),
        Command::TableDelete { table, key } => {
            format!("delete {} from table {table}", short(key))
        }
        Command::TableDeleteIf { table, key, value } => format!(
            "delete {} from table {table}, if it is these {} bytes",
            short(key),
            value.len()
        ),
        Command::CursorCommit { group, positions } => {
            let positions: Vec<String> = positions
                .iter()
                .map(|p| format!("{} at {}", name(p.partition), p.offset))
                .collect();
            format!("group {group} commits {}", positions.join(", "))
        }
        Command::CreateStream {
            address,
            partitions,
            config,
            ..
        } => format!(
            "create stream {address}, {partitions} partitions{}",
            settings(config)
        ),
        Command::AlterStream { stream, config } => {
            format!("alter stream {stream}{}", settings(config))
        }
        Command::DeleteStream { stream } => format!("delete stream {stream}"),
        Command::AddPartitions { stream, partitions } => {
            format!("stream {stream} has {partitions} partitions")
        }
        Command::Trim {
            partition,
            log_start,
        } => format!("{} begins at {log_start}", name(*partition)),
        Command::AdvanceSequence {
            partition,
            producer_id,
            epoch,
            next,
        } => format!(
            "producer {producer_id} epoch {epoch} goes on at sequence {next} in {}",
            name(*partition)
        ),
        Command::SegmentSealed { segment } => {
            let parts = plural(segment.parts.len() as u64, "part");
            format!(
                "segment {} sealed: {parts}, {} bytes",
                segment.id, segment.bytes
            )
        }
        Command::RangesReplaced { removed, added } => format!(
            "{} replaced by {}",
            plural(removed.len() as u64, "range"),
            plural(added.len() as u64, "segment")
        ),
        Command::ColdClaim { log, epoch, .. } => {
            format!("epoch {epoch} of the cold store taken, for log {log}")
        }
        other => cut(&format!("{other:?}"), LONGEST),
    }
}

/// A command for scripts.
pub fn value(command: &Command) -> Value {
    match command {
        Command::Append {
            partition, batch, ..
        } => json!({
            "append": {
                "stream": partition.stream.0,
                "partition": partition.partition,
                "batch": batch_value(batch),
            }
        }),
        other => json!({ "command": words(other) }),
    }
}

/// `20 records, 1832 bytes, zstd, producer 5 epoch 0 sequence 40`.
pub fn batch_words(batch: &Batch) -> String {
    let mut text = if batch.is_control() {
        format!("control batch, {} bytes", batch.len())
    } else {
        format!("{} records, {} bytes", batch.record_count(), batch.len())
    };
    let compression = compression(batch);
    if compression != "none" {
        text += &format!(", {compression}");
    }
    if batch.is_transactional() {
        text += ", transactional";
    }
    if batch.producer_id() != NO_PRODUCER_ID {
        text += &format!(
            ", producer {} epoch {} sequence {}",
            batch.producer_id(),
            batch.producer_epoch(),
            batch.base_sequence()
        );
    }
    text
}

/// The header of a batch for scripts.
pub fn batch_value(batch: &Batch) -> Value {
    json!({
        "base_offset": batch.base_offset(),
        "last_offset": batch.last_offset(),
        "records": batch.record_count(),
        "bytes": batch.len(),
        "compression": compression(batch),
        "transactional": batch.is_transactional(),
        "control": batch.is_control(),
        "producer_id": batch.producer_id(),
        "producer_epoch": batch.producer_epoch(),
        "base_sequence": batch.base_sequence(),
        "base_timestamp": batch.base_timestamp(),
        "max_timestamp": batch.max_timestamp(),
        "crc": batch.crc(),
    })
}

fn compression(batch: &Batch) -> String {
    format!("{:?}", batch.compression()).to_ascii_lowercase()
}

/// A partition by its numbers: the log knows streams by number, names are in the commands that create them.
fn name(partition: PartitionId) -> String {
    format!(
        "stream {} partition {}",
        partition.stream, partition.partition
    )
}

fn settings(config: &std::collections::BTreeMap<String, String>) -> String {
    if config.is_empty() {
        String::new()
    } else {
        format!(": {}", crate::output::pairs(config))
    }
}

/// Bytes as text in quotes, with escapes for what is none, cut.
pub fn short(bytes: &[u8]) -> String {
    const SHOWN: usize = 48;
    let shown = bytes.get(..SHOWN).unwrap_or(bytes);
    let dots = if bytes.len() > shown.len() { "…" } else { "" };
    format!("\"{}\"{dots}", shown.escape_ascii())
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most).chain(['…']).collect()
}
