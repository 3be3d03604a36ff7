//! Reading: watermarks, batches, waiting for more, seeking by time.

use std::io;
use std::sync::atomic::Ordering;

use record::Batch;

use super::{Core, Kernel};
use crate::cold::ColdReadError;
use crate::entry::{Command, Entry};
use crate::error::{ReadError, TrimError};
use crate::limits::{CHUNK_BYTES, MAX_DAMAGE_TOLD, MAX_READ_BYTES, READ_ATTEMPTS};
use crate::state::partition::{BatchRef, Partition, Plan};
use crate::state::waiters::Mark;
use crate::stream::PartitionId;
use crate::wal::files::{FrameError, Reader, WalFiles};

/// What a read found.
#[derive(Debug, Clone)]
pub struct Read {
    /// Whole batches in offset order, with offset and leader epoch filled in; the first may begin below the offset asked.
    pub batches: Vec<Batch>,
    /// The watermarks when it was read.
    pub watermarks: Watermarks,
    /// First offset after the batches; where reading ended when there are none.
    pub next_offset: i64,
}

/// Bytes of a partition's batches by where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TierBytes {
    /// In the WAL or in memory alone.
    pub hot: u64,
    /// In segments.
    pub cold: u64,
}

/// Positions of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watermarks {
    /// First offset that can be read.
    pub log_start: i64,
    /// Everything below is safe on all replicas that count. On one node: one past the last batch. Whoever has come to it has all there is.
    pub high_watermark: i64,
    /// Everything below is decided: no open transaction. Without transactions: `high_watermark`.
    pub last_stable: i64,
    /// Next offset to be written. Above `high_watermark` where offsets were given up, so that none is used twice: after a restoration, and
    /// after the loss of what was only in memory. It is no error to read from there in between: there is nothing yet.
    pub end: i64,
}

impl Kernel {
    /// Whole batches from the one that contains `offset`, at most `max_bytes` (but at least one batch, even a larger one).
    /// At the end of the log the result is empty: see [`Kernel::wait_past`].
    pub async fn read(
        &self,
        partition: PartitionId,
        offset: i64,
        max_bytes: usize,
    ) -> Result<Read, ReadError> {
        self.read_below(partition, Mark::End, offset, max_bytes)
            .await
    }

    /// [`Kernel::read`] of what lies below a mark.
    pub(super) async fn read_below(
        &self,
        partition: PartitionId,
        mark: Mark,
        offset: i64,
        max_bytes: usize,
    ) -> Result<Read, ReadError> {
        let found = self
            .core
            .state
            .partition(partition)
            .ok_or(ReadError::UnknownPartition(partition))?;
        let max_bytes = max_bytes.min(MAX_READ_BYTES);
        let mut at = offset;
        let mut attempts = 0;
        loop {
            let (watermarks, until, plan) = {
                let log = found.log.lock();
                let watermarks = log.watermarks();
                if offset < watermarks.log_start || offset > watermarks.end {
                    return Err(ReadError::OutOfRange {
                        partition,
                        offset,
                        log_start: watermarks.log_start,
                        end: watermarks.end,
                    });
                }
                let until = log.mark(mark);
                let plan = log.plan(at, until, max_bytes);
                (watermarks, until, plan)
            };
            attempts += 1;
            let mut batches = match plan.cold {
                Some(range) => {
                    let batches = self.core.read_cold(partition, &range, at, max_bytes).await;
                    match batches {
                        // A hole, up to the end of the range.
                        Ok(batches) if batches.is_empty() => {
                            (at, attempts) = (range.next_offset, 0);
                            continue;
                        }
                        Ok(batches) => batches,
                        Err(ColdReadError::Gone(_)) if attempts < READ_ATTEMPTS => continue,
                        Err(ColdReadError::Gone(key)) => {
                            let reason = format!("{key} is not in the cold store");
                            return Err(ReadError::Unavailable { partition, reason });
                        }
                        Err(ColdReadError::Failed(error)) => {
                            return Err(self.core.explain(&found, offset, error));
                        }
                    }
                }
                None => {
                    let first = plan.disk.first().copied();
                    match self.core.read_hot(partition, plan).await {
                        Ok(batches) => batches,
                        // Sealed meanwhile, and its WAL file is gone.
                        Err(_)
                            if attempts < READ_ATTEMPTS
                                && first.is_some_and(|first| !found.log.lock().has(&first)) =>
                        {
                            continue;
                        }
                        Err(error) => return Err(self.core.explain(&found, offset, error)),
                    }
                }
            };
            // Without batches there is nothing up to there, though offsets may have been.
            let mut seen = until;
            while let Some(batch) = batches.pop_if(|b| b.last_offset() >= until) {
                seen = seen.min(batch.base_offset());
            }
            let next_offset = batches.last().map_or(seen.max(offset), Batch::next_offset);
            return Ok(Read {
                batches,
                watermarks,
                next_offset,
            });
        }
    }

    /// Where the bytes of a partition's batches are; `None` when there is no such partition.
    pub fn tier_bytes(&self, partition: PartitionId) -> Option<TierBytes> {
        let found = self.core.state.partition(partition)?;
        let log = found.log.lock();
        let cold = log.cold.iter().map(|range| range.bytes).sum();
        Some(TierBytes {
            hot: log.bytes.saturating_sub(cold),
            cold,
        })
    }

    /// The positions of a partition; `None` when there is none.
    pub fn watermarks(&self, partition: PartitionId) -> Option<Watermarks> {
        Some(
            self.core
                .state
                .partition(partition)?
                .log
                .lock()
                .watermarks(),
        )
    }

    /// The first offset that is not in the cold store yet; the log start if nothing of the partition is there.
    pub fn local_start(&self, partition: PartitionId) -> Option<i64> {
        let found = self.core.state.partition(partition)?;
        let log = found.log.lock();
        let sealed = log.cold.back().map_or(0, |range| range.next_offset);
        Some(sealed.max(log.log_start))
    }

    /// The greatest timestamp (ms) that a batch of the partition claims; `None` for an empty partition, or none at all.
    pub fn max_timestamp(&self, partition: PartitionId) -> Option<i64> {
        let found = self.core.state.partition(partition)?;
        let log = found.log.lock();
        let cold = log.cold.iter().map(|range| range.max_timestamp);
        let hot = log.batches.iter().map(|batch| batch.max_timestamp);
        let volatile = log.volatile.iter().map(|batch| batch.max_timestamp);
        cold.chain(hot).chain(volatile).max()
    }

    /// First record with that timestamp (ms) or a later one: offset and timestamp. `None` when there is none.
    pub async fn offset_for_timestamp(
        &self,
        partition: PartitionId,
        timestamp: i64,
    ) -> Result<Option<(i64, i64)>, ReadError> {
        let found = self
            .core
            .state
            .partition(partition)
            .ok_or(ReadError::UnknownPartition(partition))?;
        let mut from = 0;
        loop {
            let (cold, hot, log_start) = {
                let log = found.log.lock();
                from = log.log_start.max(from);
                let volatile = log.volatile.iter().filter(|v| v.next_offset > from);
                let cold = log.cold.iter().filter(|r| r.next_offset > from);
                let cold = cold.copied().find(|r| r.max_timestamp >= timestamp);
                let hot = log.batches.range(log.position_of(from)..);
                let mut hot = hot.map(|b| (b.base_offset, b.max_timestamp));
                let mut volatile = volatile.map(|v| (v.base_offset, v.max_timestamp));
                // The first of each is the earliest.
                let late = |(_, latest): &(i64, i64)| *latest >= timestamp;
                let first = [hot.find(late), volatile.find(late)].into_iter().flatten();
                let hot = first.map(|(base, _)| base.max(from)).min();
                (cold, hot, log.log_start)
            };
            // And of the tiers the earlier one: what is in memory alone can lie before what is cold, and between.
            let cold = match cold.filter(|r| hot.is_none_or(|hot| r.base_offset < hot)) {
                Some(range) => {
                    let from = from.max(range.base_offset);
                    let seek = self.core.seek_cold(partition, &range, from, timestamp);
                    // Reading tells what has become of it, if that fails.
                    Some(seek.await.unwrap_or(from))
                }
                None => None,
            };
            from = match cold.into_iter().chain(hot).min() {
                Some(first) => first,
                None => return Ok(None),
            };
            let read = self.read(partition, from, CHUNK_BYTES).await?;
            let late = |batch: &&Batch| batch.max_timestamp() >= timestamp;
            for batch in read.batches.iter().filter(late) {
                let corrupt = |reason: record::BatchError| ReadError::Corrupt {
                    partition,
                    first: batch.base_offset(),
                    last: batch.last_offset(),
                    reason: reason.to_string(),
                };
                for record in batch.records().map_err(corrupt)? {
                    let record = record.map_err(corrupt)?;
                    if record.timestamp >= timestamp && record.offset >= log_start {
                        return Ok(Some((record.offset, record.timestamp)));
                    }
                }
            }
            // The header promised a later timestamp than the records have (or it lies below the log start).
            from = read.next_offset;
        }
    }

    /// Moves the log start forward, durably; returns the log start that holds then.
    pub async fn trim(&self, partition: PartitionId, log_start: i64) -> Result<i64, TrimError> {
        let end = self
            .watermarks(partition)
            .ok_or(TrimError::UnknownPartition(partition))?
            .end;
        if log_start > end || log_start < 0 {
            return Err(TrimError::OutOfRange {
                offset: log_start,
                end,
            });
        }
        self.write_urgent(Entry::new().with(Command::Trim {
            partition,
            log_start,
        }))
        .await?;
        Ok(self
            .watermarks(partition)
            .ok_or(TrimError::UnknownPartition(partition))?
            .log_start)
    }
}

impl Core {
    /// Batches of which some may be in the WAL and the rest is in memory.
    async fn read_hot(&self, partition: PartitionId, plan: Plan) -> Result<Vec<Batch>, ReadError> {
        if plan.disk.is_empty() {
            self.tail_hits
                .fetch_add(plan.memory.len() as u64, Ordering::Relaxed);
            return Ok(plan.memory);
        }
        let wanted = plan.disk.len();
        let mut batches = self.fetch_hot(partition, plan.disk).await?;
        self.tail_misses
            .fetch_add(batches.len() as u64, Ordering::Relaxed);
        // One of them is damaged: the next read meets it, and what comes after it must wait.
        if batches.len() == wanted {
            self.tail_hits
                .fetch_add(plan.memory.len() as u64, Ordering::Relaxed);
            batches.extend(plan.memory);
        }
        Ok(batches)
    }

    /// Reads batches from the WAL: all, or those before the first that is not sound, or the error if that is the first of them.
    pub async fn fetch_hot(
        &self,
        partition: PartitionId,
        wanted: Vec<BatchRef>,
    ) -> Result<Vec<Batch>, ReadError> {
        let files = self.files.clone();
        self.pool
            .run(move || fetch(&files, partition, &wanted))
            .await
            .ok_or(ReadError::Closed)?
    }

    /// A read that failed because the batches were trimmed meanwhile is out of range, not an error of the disk.
    fn explain(&self, partition: &Partition, offset: i64, error: ReadError) -> ReadError {
        let watermarks = partition.log.lock().watermarks();
        if offset < watermarks.log_start {
            return ReadError::OutOfRange {
                partition: partition.id,
                offset,
                log_start: watermarks.log_start,
                end: watermarks.end,
            };
        }
        if let ReadError::Corrupt { first, .. } = error {
            self.corrupt_reads.fetch_add(1, Ordering::Relaxed);
            if self.is_news(partition.id, first) {
                tracing::error!(%error, "damaged data was found and is not served; this is said once");
            }
        }
        error
    }

    /// Whether damage was met for the first time: readers that stand before it ask again and again.
    fn is_news(&self, partition: PartitionId, first: i64) -> bool {
        let mut told = self.damage_told.lock();
        if told.len() >= MAX_DAMAGE_TOLD {
            told.clear();
        }
        told.insert((partition, first))
    }
}

/// Reads batches from the WAL files. If the first are sound and a later one is not, the sound ones are the result: the next read meets
/// the damaged one.
fn fetch(
    files: &WalFiles,
    partition: PartitionId,
    wanted: &[BatchRef],
) -> Result<Vec<Batch>, ReadError> {
    let mut batches = Vec::with_capacity(wanted.len());
    let mut reader = files.reader();
    let mut rest = wanted;
    while let [reference, after @ ..] = rest {
        match fetch_one(&mut reader, partition, rest, reference) {
            Ok(batch) => batches.push(batch),
            Err(error) if batches.is_empty() => return Err(error),
            Err(_) => {
                return Ok(batches);
            }
        }
        rest = after;
    }
    Ok(batches)
}

fn fetch_one(
    reader: &mut Reader<'_>,
    partition: PartitionId,
    rest: &[BatchRef],
    reference: &BatchRef,
) -> Result<Batch, ReadError> {
    let batch = reader.batch(rest).map_err(|error| match error {
        FrameError::Corrupt(reason) => ReadError::Corrupt {
            partition,
            first: reference.base_offset,
            last: reference.last_offset(),
            reason,
        },
        FrameError::Gone => ReadError::Io {
            partition,
            reason: "a WAL file is missing".to_owned(),
        },
        FrameError::Io(error) => {
            let kind = if error.kind() == io::ErrorKind::NotFound {
                "a WAL file is missing: "
            } else {
                ""
            };
            ReadError::Io {
                partition,
                reason: format!("{kind}{error}"),
            }
        }
    })?;
    Ok(batch.into_patched(reference.base_offset, partition.leader_epoch()))
}
