//! Rewriting of segments: compaction by key, and copy-forward of what is left of segments that are mostly dead or small. Records leave, offsets
//! never change. Until the log says `RangesReplaced` everything is where it was: whatever fails is begun anew at a later call.

mod filter;
mod keys;
mod plan;
mod sparse;
mod write;

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::cold::ColdReadError;
use crate::entry::{Command, Entry};
use crate::error::{ColdTierError, ReadError};
use crate::kernel::{AbortedTransaction, Kernel};
use crate::segment::{Compacted, SegmentId};
use crate::state::cold::ColdRange;
use crate::state::partition::Partition;
use crate::stream::{PartitionId, Stream};
use filter::{Filter, Left};
use keys::NewestOffsets;
use plan::{Group, Step, Terms, groups};

/// Bytes read at a time.
const READ_BYTES: usize = 8 * 1024 * 1024;

/// What an open kernel remembers of its rewriting.
#[derive(Default)]
pub(crate) struct Rewriting {
    /// One at a time.
    turn: tokio::sync::Mutex<()>,
    /// Ranges with damage: they stay as they are, so that what can be read of them can still be read.
    damaged: Mutex<BTreeSet<(SegmentId, PartitionId)>>,
}

/// What is to be written of one partition.
struct Job {
    partition: Arc<Partition>,
    stream: Arc<Stream>,
    groups: Vec<Group>,
    /// Segments whose ranges of the partition leave.
    leaving: BTreeSet<SegmentId>,
    aborted: Vec<AbortedTransaction>,
    /// Last offset of the log when this was planned.
    last: i64,
    /// What supersedes records; `None` copies them all.
    newest: Option<NewestOffsets>,
}

/// Why a job came to nothing.
enum Trouble {
    /// It is not as it was when it was planned; there may be nothing to do any more.
    Moved,
    /// These ranges can not be read.
    Damaged(SegmentId, PartitionId, ReadError),
    Failed(ColdTierError),
}

impl<E: Into<ColdTierError>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Trouble::Failed(error.into())
    }
}

impl Kernel {
    /// Compacts what is due, or copies forward what is left of sparse and small segments: at most about one segment a call. True if
    /// something was rewritten: more may be due.
    pub async fn rewrite(&self) -> Result<bool, ColdTierError> {
        let Ok(_turn) = self.core.rewriting.turn.try_lock() else {
            return Ok(false);
        };
        if self.core.cold.is_fenced() || !self.core.intake.is_open() {
            return Ok(false);
        }
        let result = match self.compaction_jobs().await {
            Ok(jobs) if jobs.is_empty() => self.carry_out(self.sparse_jobs()).await,
            Ok(jobs) => self.carry_out(jobs).await,
            Err(trouble) => Err(trouble),
        };
        match result {
            Ok(rewritten) => Ok(rewritten),
            Err(Trouble::Moved) => Ok(true),
            Err(Trouble::Damaged(segment, partition, error)) => {
                tracing::error!(%error, %segment, "a segment can not be rewritten and stays as it is");
                // Once is enough to plan without it.
                let mut damaged = self.core.rewriting.damaged.lock();
                Ok(damaged.insert((segment, partition)))
            }
            Err(Trouble::Failed(error)) => {
                self.core.cold.failed(&error);
                Err(error)
            }
        }
    }

    /// What compaction has to do, for about a segment.
    async fn compaction_jobs(&self) -> Result<Vec<Job>, Trouble> {
        let mut partitions: Vec<(Arc<Partition>, Arc<Stream>)> = {
            let directory = self.core.state.directory.read();
            let compacted = directory.by_id.values().filter(|s| s.is_compacted());
            compacted
                .flat_map(|stream| stream.partition_ids().map(move |id| (id, stream)))
                .filter_map(|(id, stream)| {
                    Some((directory.partitions.get(&id)?.clone(), stream.clone()))
                })
                .collect()
        };
        partitions.sort_unstable_by_key(|(partition, _)| partition.id);
        let mut jobs = Vec::new();
        let mut bytes = 0;
        for (partition, stream) in partitions {
            if bytes >= self.core.config.segment_bytes {
                break;
            }
            if let Some(job) = self.compaction_job(partition, stream).await? {
                let pieces = job.groups.iter().flat_map(|group| &group.pieces);
                bytes += pieces.map(|piece| piece.range.bytes).sum::<u64>();
                jobs.push(job);
            }
        }
        Ok(jobs)
    }

    async fn compaction_job(
        &self,
        partition: Arc<Partition>,
        stream: Arc<Stream>,
    ) -> Result<Option<Job>, Trouble> {
        let (mut ranges, last_stable, last, aborted) = {
            let log = partition.log.lock();
            let ranges: Vec<ColdRange> = log.cold.iter().copied().collect();
            (
                ranges,
                log.watermarks().last_stable,
                log.end - 1,
                log.transactions.aborted_between(i64::MIN, i64::MAX),
            )
        };
        let terms = Terms {
            now: self.core.ports.clock.now_ms(),
            delete_retention_ms: stream.delete_retention_ms(),
            min_compaction_lag_ms: stream.min_compaction_lag_ms(),
            min_cleanable_dirty_ratio: stream.min_cleanable_dirty_ratio(),
            last_stable,
        };
        // Nothing is known about the keys behind damage.
        let damaged = self.first_damaged(partition.id, &ranges);
        let sound = ranges.get(..damaged.unwrap_or(ranges.len()));
        let Some(eligible) = terms.due(sound.unwrap_or_default()) else {
            return Ok(None);
        };
        let later = ranges.split_off(eligible);
        let mut newest = NewestOffsets::bounded(self.core.config.compaction_bytes);
        let until = self
            .note_keys(&partition, &ranges, &aborted, &mut newest)
            .await?;
        let mut steps = Vec::with_capacity(ranges.len());
        for range in ranges {
            let drop_tombstones = terms.deletions_are_over(&range);
            let noted = range.compacted == Compacted::Never;
            let rewrite = if noted {
                range.base_offset < until
            } else {
                let filter = Filter {
                    newest: &newest,
                    aborted: &aborted,
                    drop_tombstones,
                    last,
                };
                drop_tombstones || self.changes(&partition, &range, &filter).await?
            };
            steps.push(Step {
                range,
                rewrite,
                until: if noted { until } else { i64::MAX },
                drop_tombstones,
            });
        }
        // Not looked at; but a segment's ranges are replaced together, and what is not written anew then would be lost.
        steps.extend(later.into_iter().map(|range| Step {
            range,
            rewrite: false,
            until: i64::MIN,
            drop_tombstones: false,
        }));
        let groups = groups(&steps, terms.now);
        Ok((!groups.is_empty()).then(|| Job {
            partition,
            stream,
            leaving: segments_of(&groups),
            groups,
            aborted,
            last,
            newest: Some(newest),
        }))
    }

    fn first_damaged(&self, partition: PartitionId, ranges: &[ColdRange]) -> Option<usize> {
        let damaged = self.core.rewriting.damaged.lock();
        ranges
            .iter()
            .position(|range| damaged.contains(&(range.segment, partition)))
    }

    /// Notes the keys of what was never compacted; returns the offset up to which the table had room.
    async fn note_keys(
        &self,
        partition: &Partition,
        ranges: &[ColdRange],
        aborted: &[AbortedTransaction],
        newest: &mut NewestOffsets,
    ) -> Result<i64, Trouble> {
        let mut noted_any = false;
        for range in ranges {
            if range.compacted != Compacted::Never {
                continue;
            }
            let mut offset = range.base_offset;
            while let Some(batches) = self.next_batches(partition, range, offset).await? {
                for batch in batches {
                    offset = batch.next_offset();
                    // The first is noted whatever it takes: nothing would come of it otherwise, and with some of its keys unknown, its
                    // deletions would go before what they deleted.
                    newest.stretch(!noted_any);
                    let full = filter::note(newest, aborted, &batch)
                        .map_err(|error| damaged(partition.id, range, &batch, &error))?;
                    if full.is_some() {
                        return Ok(batch.base_offset());
                    }
                    noted_any = true;
                }
            }
        }
        Ok(i64::MAX)
    }

    /// Whether the filter leaves anything out of a range.
    async fn changes(
        &self,
        partition: &Partition,
        range: &ColdRange,
        filter: &Filter<'_>,
    ) -> Result<bool, Trouble> {
        let mut left = Left::default();
        let mut offset = range.base_offset;
        while let Some(batches) = self.next_batches(partition, range, offset).await? {
            for batch in batches {
                offset = batch.next_offset();
                filter
                    .apply(&batch, &mut left)
                    .map_err(|error| damaged(partition.id, range, &batch, &error))?;
                if left.changed {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The next batches of a range; `None` behind the last.
    async fn next_batches(
        &self,
        partition: &Partition,
        range: &ColdRange,
        offset: i64,
    ) -> Result<Option<Vec<record::Batch>>, Trouble> {
        if offset >= range.next_offset {
            return Ok(None);
        }
        let read = self
            .core
            .read_cold(partition.id, range, offset, READ_BYTES)
            .await;
        match read {
            Ok(batches) => Ok(Some(batches).filter(|batches| !batches.is_empty())),
            Err(ColdReadError::Gone(_)) if self.core.locate(range.segment).is_none() => {
                Err(Trouble::Moved)
            }
            Err(ColdReadError::Gone(key)) => {
                let reason = format!("the object {key} is gone from the cold store");
                let error = ReadError::Corrupt {
                    partition: partition.id,
                    first: range.base_offset,
                    last: range.next_offset - 1,
                    reason,
                };
                Err(Trouble::Damaged(range.segment, partition.id, error))
            }
            Err(ColdReadError::Failed(error @ ReadError::Corrupt { .. })) => {
                Err(Trouble::Damaged(range.segment, partition.id, error))
            }
            Err(ColdReadError::Failed(error)) => Err(ColdTierError::Wal(error).into()),
        }
    }

    /// Writes the segment that the jobs ask for, and puts it in the place of what it replaces. False if there is no job.
    async fn carry_out(&self, mut jobs: Vec<Job>) -> Result<bool, Trouble> {
        if jobs.is_empty() {
            return Ok(false);
        }
        jobs.sort_unstable_by_key(|job| job.partition.id);
        let owner = self.own_cold().await?;
        let flight = self.next_segment().await?;
        let added = self.write_segment(&flight, &jobs).await?;
        self.still_own_cold(owner).await?;
        let removed = jobs.iter().flat_map(|job| {
            let partition = job.partition.id;
            job.leaving.iter().map(move |segment| (*segment, partition))
        });
        let command = Command::RangesReplaced {
            removed: removed.collect(),
            added: vec![added],
        };
        self.write_urgent(Entry::new().with(command)).await?;
        Ok(true)
    }
}

fn segments_of(groups: &[Group]) -> BTreeSet<SegmentId> {
    let pieces = groups.iter().flat_map(|group| &group.pieces);
    pieces.map(|piece| piece.range.segment).collect()
}

fn damaged(
    partition: PartitionId,
    range: &ColdRange,
    batch: &record::Batch,
    error: &record::BatchError,
) -> Trouble {
    let error = ReadError::Corrupt {
        partition,
        first: batch.base_offset(),
        last: batch.last_offset(),
        reason: error.to_string(),
    };
    Trouble::Damaged(range.segment, partition, error)
}
