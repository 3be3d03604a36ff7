//! Reading: watermarks, batches, waiting for more, seeking by time.

use std::io;
use std::sync::atomic::Ordering;

use record::Batch;

use super::{Core, Kernel};
use crate::entry::{Command, Entry};
use crate::error::{ReadError, TrimError};
use crate::limits::MAX_READ_BYTES;
use crate::state::partition::{BatchRef, Partition};
use crate::state::waiters::Mark;
use crate::stream::PartitionId;
use crate::wal::files::{FrameError, WalFiles};

/// What a read found.
#[derive(Debug, Clone)]
pub struct Read {
    /// Whole batches in offset order, with offset and leader epoch filled in; the first may begin below the offset asked.
    pub batches: Vec<Batch>,
    /// The watermarks when it was read.
    pub watermarks: Watermarks,
    /// First offset after the batches; the offset asked when there are none.
    pub next_offset: i64,
}

/// Positions of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watermarks {
    /// First offset that can be read.
    pub log_start: i64,
    /// Everything below is safe on all replicas that count. On one node: `end`.
    pub high_watermark: i64,
    /// Everything below is decided: no open transaction. Without transactions: `high_watermark`.
    pub last_stable: i64,
    /// Next offset to be written.
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
            let plan = log.plan(offset, until, max_bytes.min(MAX_READ_BYTES));
            (watermarks, until, plan)
        };
        self.core
            .tail_hits
            .fetch_add(plan.memory.len() as u64, Ordering::Relaxed);
        let mut batches = Vec::new();
        let wanted = plan.disk.len();
        if wanted > 0 {
            self.core
                .tail_misses
                .fetch_add(wanted as u64, Ordering::Relaxed);
            let files = self.core.files.clone();
            let fetched = self
                .core
                .pool
                .run(move || fetch(&files, partition, &plan.disk))
                .await
                .ok_or(ReadError::Closed)?;
            batches = match fetched {
                Ok(fetched) => fetched,
                Err(error) => return Err(self.core.explain(&found, offset, error)),
            };
        }
        // Of what was fetched the end may be damaged: what lies behind it is for the next read, after that has met the damage.
        if batches.len() == wanted {
            batches.extend(plan.memory);
        }
        while batches.last().is_some_and(|b| b.last_offset() >= until) {
            batches.pop();
        }
        let next_offset = batches.last().map_or(offset, Batch::next_offset);
        Ok(Read {
            batches,
            watermarks,
            next_offset,
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
        cold.chain(log.batches.iter().map(|batch| batch.max_timestamp))
            .max()
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
        let (start, log_start) = {
            let log = found.log.lock();
            let start = log
                .batches
                .iter()
                .find(|b| b.max_timestamp >= timestamp)
                .map(|b| b.base_offset.max(log.log_start));
            (start, log.log_start)
        };
        let Some(mut offset) = start else {
            return Ok(None);
        };
        loop {
            let read = self.read(partition, offset, 1).await?;
            let Some(batch) = read.batches.first() else {
                return Ok(None);
            };
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
            // The header promised a later timestamp than the records have (or it lies below the log start).
            offset = read.next_offset;
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
        if matches!(error, ReadError::Corrupt { .. }) {
            self.corrupt_reads.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%error, "damaged data was found and is not served");
        }
        error
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
    let mut last_frame = None;
    for reference in wanted {
        match fetch_one(files, partition, reference, &mut last_frame) {
            Ok(batch) => batches.push(batch),
            Err(error) if batches.is_empty() => return Err(error),
            Err(_) => {
                return Ok(batches);
            }
        }
    }
    Ok(batches)
}

fn fetch_one(
    files: &WalFiles,
    partition: PartitionId,
    reference: &BatchRef,
    last_frame: &mut Option<(u64, bytes::Bytes)>,
) -> Result<Batch, ReadError> {
    let corrupt = |reason: String| ReadError::Corrupt {
        partition,
        first: reference.base_offset,
        last: reference.last_offset(),
        reason,
    };
    let body = match last_frame {
        Some((index, body)) if *index == reference.index => body.clone(),
        _ => files.body(reference).map_err(|error| match error {
            FrameError::Corrupt(reason) => corrupt(reason),
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
        })?,
    };
    let from = reference.batch_at as usize;
    let to = from + reference.batch_len as usize;
    if to > body.len() {
        return Err(corrupt("the index points past the entry".to_owned()));
    }
    let batch =
        Batch::from_trusted(body.slice(from..to)).map_err(|error| corrupt(error.to_string()))?;
    *last_frame = Some((reference.index, body));
    Ok(batch.into_patched(reference.base_offset, partition.leader_epoch()))
}
