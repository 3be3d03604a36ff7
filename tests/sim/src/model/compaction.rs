//! What compaction may leave out: records that have a newer one with the same key, and deletions whose time is over. Never the newest record
//! of a key, never one without a key, and what stays is as it was.

use std::collections::BTreeMap;

use bytes::Bytes;
use record::{Batch, Record};

use super::{Class, Kept, Log, Stream};

/// Longer than any run, in milliseconds: deletions that are kept for so long stay.
pub const FOR_EVER_MS: i64 = 1_000_000_000_000;

/// The records of a batch.
pub fn records(batch: &Batch) -> Result<Vec<Record>, String> {
    let wrong = |error| format!("the batch at {}: {error}", batch.base_offset());
    batch
        .records()
        .map_err(wrong)?
        .map(|record| record.map_err(wrong))
        .collect()
}

/// The records of `whole` that `found` does not have; an error if `found` has anything else.
pub fn left_out(found: &Batch, whole: &Batch) -> Result<Vec<Record>, String> {
    let head = |batch: &Batch| {
        (
            batch.base_offset(),
            batch.last_offset(),
            batch.producer_id(),
            batch.producer_epoch(),
            batch.base_sequence(),
        )
    };
    if head(found) != head(whole) {
        return Err(format!(
            "the batch at {} is {found:?}, and was {whole:?}",
            whole.base_offset()
        ));
    }
    let there = records(found)?;
    let mut there = there.iter().peekable();
    let mut gone = Vec::new();
    for record in records(whole)? {
        match there.peek() {
            Some(same) if **same == record => {
                there.next();
            }
            _ => gone.push(record),
        }
    }
    match there.next() {
        Some(other) => Err(format!(
            "nobody wrote the record at {} like that",
            other.offset
        )),
        None => Ok(gone),
    }
}

/// Offset of the newest record of each key.
pub fn newest(log: &Log) -> Result<BTreeMap<Bytes, i64>, String> {
    let mut newest = BTreeMap::new();
    // What is not decided, was aborted, or is lost with the process, is nobody's newer value.
    let stable = log.last_stable(0, log.end);
    let counts = |kept: &&Kept| {
        kept.class != Class::Memory
            && kept.batch.last_offset() < stable
            && log.is_meant(&kept.batch)
    };
    for kept in log.batches.iter().filter(counts) {
        for record in records(&kept.batch)? {
            newest.extend(record.key.map(|key| (key, record.offset)));
        }
    }
    Ok(newest)
}

/// The greatest timestamp of each batch among the records that stay whatever is compacted, by first offset; none if none of them has to.
pub fn ages(log: &Log) -> Result<BTreeMap<i64, i64>, String> {
    let newest = newest(log)?;
    let mut ages = BTreeMap::new();
    for kept in log.batches.iter().filter(|kept| log.is_meant(&kept.batch)) {
        let stay = records(&kept.batch)?.into_iter().filter(|record| {
            let key = record.key.as_ref();
            key.is_none_or(|key| record.value.is_some() && newest.get(key) == Some(&record.offset))
        });
        let latest = stay.map(|record| record.timestamp).max();
        ages.extend(latest.map(|latest| (kept.batch.base_offset(), latest)));
    }
    Ok(ages)
}

/// Compares what was read of a compacted log with what was written.
pub fn check(
    stream: &Stream,
    log: &Log,
    log_start: i64,
    found: &[Batch],
    reported: impl Fn(&Kept) -> bool,
) -> Result<(), String> {
    let newest = newest(log)?;
    let mut oldest_found: BTreeMap<Bytes, i64> = BTreeMap::new();
    for batch in found.iter().filter(|batch| log.is_meant(batch)) {
        for record in records(batch)? {
            if let Some(key) = record.key {
                oldest_found.entry(key).or_insert(record.offset);
            }
        }
    }
    let mut gone: Vec<Record> = Vec::new();
    let mut there = found.iter().peekable();
    let expected = log.batches.iter();
    for kept in expected.filter(|kept| kept.batch.last_offset() >= log_start) {
        let offset = kept.batch.base_offset();
        match there.next_if(|batch| batch.base_offset() == offset) {
            Some(batch) => gone.extend(left_out(batch, &kept.batch)?),
            None if reported(kept) || kept.class == Class::Memory => {}
            None if !log.is_meant(&kept.batch) && !kept.batch.is_control() => {}
            None => gone.extend(records(&kept.batch)?),
        }
    }
    if let Some(batch) = there.next() {
        return Err(format!("nobody wrote the batch at {}", batch.base_offset()));
    }
    for record in gone {
        let offset = record.offset;
        let Some(key) = record.key else {
            return Err(format!("the record at {offset} is gone, and has no key"));
        };
        if newest.get(&key).is_some_and(|newest| *newest > offset) {
            continue;
        }
        if record.value.is_some() || stream.least_deletions_ms >= FOR_EVER_MS {
            return Err(format!(
                "the record at {offset} is gone, and is the newest with its key {key:?}; the log start is {log_start}"
            ));
        }
        if let Some(older) = oldest_found.get(&key).filter(|older| **older < offset) {
            return Err(format!(
                "the deletion of {key:?} at {offset} is gone, and the record at {older} is there"
            ));
        }
    }
    Ok(())
}
