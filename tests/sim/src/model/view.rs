//! What can be seen of a kernel from outside, and whether it is what the model says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kernel::{
    AbortedTransaction, Kernel, OpenTransaction, PartitionId, ReadError, StreamId, Watermarks,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use record::{Batch, Namespace};

use super::time::{Sought, seek};
use super::transactions::open_in;
use super::{Class, Cursors, Kept, Log, Model, Stream, Tables, compaction};

/// Tables of the simulator.
pub const TABLES: [&str; 2] = ["t", "marks"];

/// A partition as it was read.
pub struct PartitionView {
    pub watermarks: Watermarks,
    pub batches: Vec<Batch>,
    /// Ranges that were reported as damaged.
    pub corrupt: Vec<(i64, i64)>,
    pub open: Vec<OpenTransaction>,
    pub aborted: Vec<AbortedTransaction>,
    /// What a reader of committed records got, if one looked.
    pub committed: Option<Committed>,
    sought: Vec<Sought>,
}

/// What a reader of committed records got.
#[derive(Default)]
pub struct Committed {
    /// Where the batches begin.
    pub bases: Vec<i64>,
    /// Ranges that were reported as damaged, to this reader.
    pub corrupt: Vec<(i64, i64)>,
}

impl PartitionView {
    /// Whether some of a batch was reported as damaged, to any reader.
    pub fn is_reported(&self, batch: &Batch) -> bool {
        let committed = self.committed.iter().flat_map(|c| &c.corrupt);
        let mut corrupt = self.corrupt.iter().chain(committed);
        corrupt.any(|(first, last)| *first <= batch.last_offset() && batch.base_offset() <= *last)
    }
}

/// A kernel as it was read.
pub struct View {
    pub streams: BTreeMap<StreamId, (Arc<kernel::Stream>, Vec<PartitionView>)>,
    tables: Tables,
    cursors: Cursors,
    /// The latest that the wall clock had shown when it was read: it may have been set back since.
    pub now_ms: i64,
}

/// What may be missing, and why.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowances {
    /// The process was another one when it was written: what is only in memory is gone.
    pub restarted: bool,
    /// Something was damaged: ranges may be reported.
    pub damaged: bool,
}

/// Reads everything, in reads of random size.
pub async fn look(kernel: Kernel, seed: u64, now_ms: i64, damaged: bool) -> Result<View, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut streams = BTreeMap::new();
    for stream in kernel.streams(&Namespace::default()) {
        let mut partitions = Vec::new();
        for id in stream.partition_ids() {
            partitions.push(read_all(&kernel, id, &mut rng, damaged).await?);
        }
        streams.insert(stream.id, (stream, partitions));
    }
    let mut tables = BTreeMap::new();
    for table in TABLES {
        let values: BTreeMap<_, _> = kernel.table_scan(table, b"").into_iter().collect();
        if !values.is_empty() {
            tables.insert(table.to_owned(), values);
        }
    }
    let mut cursors = BTreeMap::new();
    for group in kernel.cursors() {
        let positions = kernel.cursor(&group).into_iter();
        let positions: BTreeMap<_, _> = positions
            .map(|p| (p.partition, (p.offset, p.metadata)))
            .collect();
        cursors.insert(group, positions);
    }
    Ok(View {
        streams,
        tables,
        cursors,
        now_ms,
    })
}

async fn read_all(
    kernel: &Kernel,
    partition: PartitionId,
    rng: &mut StdRng,
    damaged: bool,
) -> Result<PartitionView, String> {
    let watermarks = kernel
        .watermarks(partition)
        .ok_or(format!("partition {partition} has no watermarks"))?;
    let open = open_in(&kernel.open_transactions(i64::MAX), partition);
    let aborted = kernel.aborted_transactions(partition, watermarks.log_start, i64::MAX);
    let mut view = PartitionView {
        watermarks,
        batches: Vec::new(),
        corrupt: Vec::new(),
        open,
        aborted,
        committed: None,
        sought: Vec::new(),
    };
    let mut offset = watermarks.log_start;
    while offset < watermarks.end {
        let max_bytes = rng.random_range(1..20_000);
        match kernel.read(partition, offset, max_bytes).await {
            Ok(read) if read.batches.is_empty() && read.next_offset <= offset => break,
            Ok(read) => {
                for batch in &read.batches {
                    batch
                        .check_crc()
                        .map_err(|error| format!("partition {partition} served {error}"))?;
                }
                if read.next_offset <= offset {
                    return Err(format!("a read of {partition} at {offset} goes back"));
                }
                view.batches.extend(read.batches);
                offset = read.next_offset;
            }
            Err(ReadError::Corrupt { first, last, .. }) if damaged && last >= offset => {
                view.corrupt.push((first, last));
                offset = last + 1;
            }
            Err(error) => return Err(format!("read of {partition} at {offset}: {error}")),
        }
    }
    let decided = view.open.is_empty() && view.aborted.is_empty();
    if !decided || rng.random_bool(0.2) {
        view.committed = Some(read_committed(kernel, partition, rng, damaged).await?);
    }
    // What is damaged may be what is looked for.
    if view.corrupt.is_empty() {
        view.sought = seek(kernel, partition, &view.batches, rng).await;
    }
    Ok(view)
}

async fn read_committed(
    kernel: &Kernel,
    partition: PartitionId,
    rng: &mut StdRng,
    damaged: bool,
) -> Result<Committed, String> {
    let mut seen = Committed::default();
    let mut offset = kernel.watermarks(partition).map_or(0, |m| m.log_start);
    loop {
        let max_bytes = rng.random_range(1..20_000);
        match kernel.read_committed(partition, offset, max_bytes).await {
            Ok(read) if read.next_offset <= offset => return Ok(seen),
            Ok(read) => {
                seen.bases
                    .extend(read.batches.iter().map(Batch::base_offset));
                offset = read.next_offset;
            }
            Err(ReadError::Corrupt { first, last, .. }) if damaged && last >= offset => {
                seen.corrupt.push((first, last));
                offset = last + 1;
            }
            Err(error) => {
                return Err(format!(
                    "committed read of {partition} at {offset}: {error}"
                ));
            }
        }
    }
}

impl View {
    /// The next offset of a partition.
    pub fn end(&self, partition: PartitionId) -> i64 {
        let stream = self.streams.get(&partition.stream);
        let found = stream.and_then(|(_, partitions)| partitions.get(partition.partition as usize));
        found.map_or(0, |found| found.watermarks.end)
    }

    /// What was found of a partition, for people.
    pub fn summary(&self, partition: PartitionId) -> String {
        let stream = self.streams.get(&partition.stream);
        let found = stream.and_then(|(_, partitions)| partitions.get(partition.partition as usize));
        let Some(found) = found else {
            return "nothing".to_owned();
        };
        let bases: Vec<i64> = found.batches.iter().map(Batch::base_offset).collect();
        format!(
            "{:?}, batches {bases:?}, damaged {:?}",
            found.watermarks, found.corrupt
        )
    }

    /// Whether there is a batch at that offset.
    pub fn has(&self, partition: PartitionId, offset: i64) -> bool {
        let stream = self.streams.get(&partition.stream);
        let found = stream.and_then(|(_, partitions)| partitions.get(partition.partition as usize));
        found.is_some_and(|found| found.batches.iter().any(|b| b.base_offset() == offset))
    }

    /// Whether its tables and cursors are these, as far as the streams of the cursors are there.
    pub fn has_state(&self, tables: &Tables, cursors: &Cursors) -> bool {
        let there = |cursors: &Cursors| {
            let mut cursors = cursors.clone();
            cursors.retain(|_, positions| {
                positions.retain(|partition, _| self.streams.contains_key(&partition.stream));
                !positions.is_empty()
            });
            cursors
        };
        let tables = tables.iter().filter(|(_, values)| !values.is_empty());
        tables.eq(&self.tables) && there(cursors) == there(&self.cursors)
    }

    /// Whether anything was reported as damaged.
    pub fn is_damaged(&self) -> bool {
        let mut partitions = self.streams.values().flat_map(|(_, partitions)| partitions);
        partitions.any(|found| !found.corrupt.is_empty())
    }

    /// Where a partition begins.
    pub fn log_start(&self, partition: PartitionId) -> i64 {
        let stream = self.streams.get(&partition.stream);
        let found = stream.and_then(|(_, partitions)| partitions.get(partition.partition as usize));
        found.map_or(0, |found| found.watermarks.log_start)
    }

    /// Only what was damaged may be reported as that.
    pub fn check_damage(&self, damage: &[(PartitionId, i64, i64)]) -> Result<(), String> {
        for (id, (_, partitions)) in &self.streams {
            for (number, found) in partitions.iter().enumerate() {
                for (first, last) in &found.corrupt {
                    if !is_within(damage, id.partition(number as u32), *first, *last) {
                        return Err(format!(
                            "partition {id}/{number}: {first} to {last} are reported as damaged, and are not"
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// Compares with what should be there.
    pub fn check(&self, model: &Model, allow: Allowances) -> Result<(), String> {
        let expected: BTreeSet<_> = model.streams.keys().collect();
        let found: BTreeSet<_> = self.streams.keys().collect();
        if expected != found {
            return Err(format!("streams: expected {expected:?}, found {found:?}"));
        }
        for (id, (found, partitions)) in &self.streams {
            let stream = &model.streams[id];
            if found.address != stream.address || found.config != stream.config {
                return Err(format!("stream {id} is {found:?}"));
            }
            if partitions.len() != stream.logs.len() {
                return Err(format!("stream {id} has {} partitions", partitions.len()));
            }
            for (number, (found, log)) in partitions.iter().zip(&stream.logs).enumerate() {
                self.check_log(stream, log, found, allow)
                    .map_err(|why| format!("partition {id}/{number}: {why}"))?;
            }
        }
        let mut tables = model.tables.clone();
        tables.retain(|_, values| !values.is_empty());
        if tables != self.tables {
            return Err(format!(
                "tables: expected {tables:?}, found {:?}",
                self.tables
            ));
        }
        if model.cursors != self.cursors {
            return Err(format!(
                "cursors: expected {:?}, found {:?}",
                model.cursors, self.cursors
            ));
        }
        Ok(())
    }

    fn check_log(
        &self,
        stream: &Stream,
        log: &Log,
        found: &PartitionView,
        allow: Allowances,
    ) -> Result<(), String> {
        let marks = found.watermarks;
        // In a log that is compacted two reads need not look at the same copy of it.
        let sought = found.sought.iter().filter(|_| !stream.compacts);
        for sought in sought {
            sought.check(marks.log_start, &found.batches, allow.damaged)?;
        }
        if stream.takes_dead_letters {
            return Ok(());
        }
        // The offsets of what was only in memory are reserved in blocks.
        if marks.end != log.end && !(log.jumps && allow.restarted && marks.end > log.end) {
            return Err(format!("the end is {}, not {}", marks.end, log.end));
        }
        if marks.log_start < log.log_start {
            return Err(format!(
                "the log start {} is below {}",
                marks.log_start, log.log_start
            ));
        }
        log.check_transactions(found, stream.compacts)?;
        self.check_retention(stream, log, marks.log_start)?;
        if stream.compacts {
            let reported = |kept: &Kept| allow.damaged && is_reported(kept, found);
            return compaction::check(stream, log, marks.log_start, &found.batches, reported);
        }
        let mut there = found.batches.iter().peekable();
        let kept = log.batches.iter();
        for kept in kept.filter(|kept| kept.batch.last_offset() >= marks.log_start) {
            let offset = kept.batch.base_offset();
            match there.peek() {
                Some(batch) if batch.base_offset() == offset => {
                    if batch.bytes() != kept.batch.bytes() {
                        return Err(format!(
                            "the batch at {offset} is another one: {:?}, expected {:?}",
                            batch, kept.batch
                        ));
                    }
                    there.next();
                }
                _ if kept.class == Class::Memory => {}
                _ if allow.damaged && is_reported(kept, found) => {}
                next => {
                    let next = next.map(|batch| batch.base_offset());
                    return Err(format!(
                        "the batch at {offset} is missing, next is {next:?}"
                    ));
                }
            }
        }
        match there.next() {
            Some(batch) => Err(format!("nobody wrote the batch at {}", batch.base_offset())),
            None => Ok(()),
        }
    }

    /// What is below the log start and was not trimmed by anybody must be too old or too much.
    fn check_retention(&self, stream: &Stream, log: &Log, log_start: i64) -> Result<(), String> {
        let mut left: u64 = log
            .batches
            .iter()
            .filter(|kept| kept.batch.last_offset() >= log.log_start)
            .map(|kept| kept.batch.len() as u64)
            .sum();
        let ages = stream.compacts.then(|| compaction::ages(log)).transpose()?;
        let removed = log
            .batches
            .iter()
            .filter(|kept| (log.log_start..log_start).contains(&kept.batch.last_offset()));
        for kept in removed {
            left -= kept.batch.len() as u64;
            let after = log
                .gone
                .iter()
                .filter(|(last_offset, _)| *last_offset > kept.batch.last_offset());
            let gone: u64 = after.map(|(_, bytes)| bytes).sum();
            let too_much = stream.least_bytes.is_some_and(|least| left + gone >= least);
            let latest = match &ages {
                Some(ages) => ages.get(&kept.batch.base_offset()).copied(),
                None => Some(kept.batch.max_timestamp()),
            };
            if latest.is_none() && log.jumps {
                // Compaction has left nothing of it, and what was only in memory is gone after it.
                continue;
            }
            let age = latest.map_or(i64::MAX, |latest| self.now_ms - latest);
            let too_old = stream.least_ms.is_some_and(|least| age > least);
            // What is only in memory goes when there is no room.
            if !too_much && !too_old && kept.class != Class::Memory {
                return Err(format!(
                    "the log start is {log_start}, but the batch at {} is {age} ms old and {left} bytes come after it",
                    kept.batch.base_offset()
                ));
            }
        }
        Ok(())
    }
}

/// Whether these offsets are among the damaged ones.
pub fn is_within(
    damage: &[(PartitionId, i64, i64)],
    partition: PartitionId,
    first: i64,
    last: i64,
) -> bool {
    damage
        .iter()
        .any(|(damaged, from, to)| *damaged == partition && *from <= first && last <= *to)
}

fn is_reported(kept: &Kept, found: &PartitionView) -> bool {
    found.corrupt.iter().any(|(first, last)| {
        *first <= kept.batch.base_offset() && kept.batch.last_offset() <= *last
    })
}
