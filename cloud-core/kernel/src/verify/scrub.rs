//! A running kernel looks through what it has stored, one small step at a time: whoever calls [`Scrub::step`] decides how fast.

use std::collections::VecDeque;
use std::sync::Arc;

use super::damage::{Damage, records};
use super::segment::SegmentCheck;
use crate::checkpoint;
use crate::error::OpenError;
use crate::kernel::{Core, Kernel};
use crate::ports::cold::ColdError;
use crate::segment::SegmentId;
use crate::state::partition::{BatchRef, Partition};
use crate::stream::PartitionId;
use crate::wal::files::FrameError;

/// Bytes about which one step reads.
const STEP_BYTES: usize = 1024 * 1024;

/// Why a verification cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ScrubError {
    /// The cold store did not answer.
    #[error(transparent)]
    Cold(#[from] ColdError),
    /// The kernel was shut down.
    #[error("the log is closed")]
    Closed,
}

/// What one step did.
#[derive(Debug, Default)]
pub struct Step {
    /// Bytes read.
    pub bytes: u64,
    /// What of them is damaged.
    pub damage: Vec<Damage>,
}

/// A verification under way: checkpoints, then what is in the WAL alone, partition by partition, then the segments. Dropping it ends it.
pub struct Scrub {
    core: Arc<Core>,
    /// Index and bytes.
    checkpoints: VecDeque<(u64, u64)>,
    partitions: VecDeque<PartitionId>,
    /// Where in the first of `partitions`.
    offset: Option<i64>,
    segments: VecDeque<SegmentId>,
    segment: Option<SegmentCheck>,
    done: u64,
    total: u64,
    now: String,
}

/// Batches of a frame that cannot be read, one after another.
struct Lost {
    first: BatchRef,
    last_offset: i64,
    reason: String,
}

impl Kernel {
    /// Begins to verify everything that is stored now. What a start would replay is made small first, by a checkpoint: all else in the WAL
    /// that counts are batches, and they are read one by one.
    pub async fn scrub(&self) -> Result<Scrub, ScrubError> {
        if let Err(error) = self.checkpoint(false).await {
            tracing::warn!(%error, "no checkpoint before a verification");
        }
        let disk = self.core.ports.disk.clone();
        let sizes = self.core.pool.run(move || checkpoint::sizes(&*disk)).await;
        let sizes = sizes.ok_or(ScrubError::Closed)?.unwrap_or_default();
        let mut partitions: Vec<PartitionId> = {
            let directory = self.core.state.directory.read();
            directory.partitions.keys().copied().collect()
        };
        partitions.sort_unstable();
        let (segments, segment_bytes) = {
            let cold = self.core.state.cold.lock();
            let bytes: u64 = cold.segments.values().map(|s| s.live_bytes).sum();
            (cold.segments.keys().copied().collect(), bytes)
        };
        let checkpoint_bytes: u64 = sizes.iter().map(|(_, bytes)| bytes).sum();
        let wal_bytes = self.core.state.wal_use.lock().bytes;
        Ok(Scrub {
            core: self.core.clone(),
            checkpoints: sizes.into(),
            partitions: partitions.into(),
            offset: None,
            segments,
            segment: None,
            done: 0,
            total: checkpoint_bytes + wal_bytes + segment_bytes,
            now: String::new(),
        })
    }
}

impl Scrub {
    /// Bytes read so far.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Bytes that there are to read; what retention removes meanwhile is not subtracted, what is written meanwhile may be added.
    pub fn total(&self) -> u64 {
        self.total.max(self.done)
    }

    /// What was read last, for people.
    pub fn now(&self) -> &str {
        &self.now
    }

    /// Reads about a megabyte. `None` = everything has been read.
    pub async fn step(&mut self) -> Result<Option<Step>, ScrubError> {
        let step = if let Some((index, bytes)) = self.checkpoints.pop_front() {
            self.checkpoint(index, bytes).await?
        } else if let Some(id) = self.partitions.front().copied() {
            self.wal(id).await?
        } else if self.segment.is_some() || !self.segments.is_empty() {
            self.segment().await?
        } else {
            return Ok(None);
        };
        self.done += step.bytes;
        Ok(Some(step))
    }

    async fn checkpoint(&mut self, index: u64, bytes: u64) -> Result<Step, ScrubError> {
        self.now = checkpoint::path(index);
        let disk = self.core.ports.disk.clone();
        let read = self.core.pool.run(move || checkpoint::read(&*disk, index));
        let read = read.await.ok_or(ScrubError::Closed)?;
        let mut step = Step {
            bytes,
            ..Step::default()
        };
        match read {
            Ok(_) => {}
            // A newer one has taken its place.
            Err(OpenError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => step.damage.push(Damage {
                place: self.now.clone(),
                at: None,
                bytes: None,
                reason: error.to_string(),
                records: Vec::new(),
            }),
        }
        Ok(step)
    }

    async fn wal(&mut self, id: PartitionId) -> Result<Step, ScrubError> {
        let planned = self.core.state.partition(id).map(|partition| {
            let log = partition.log.lock();
            let offset = self.offset.unwrap_or(log.log_start);
            let planned = log.plan_seal(offset, u64::MAX, STEP_BYTES);
            drop(log);
            (partition, planned)
        });
        let Some((partition, planned)) = planned.filter(|(_, planned)| !planned.is_empty()) else {
            self.partitions.pop_front();
            self.offset = None;
            return Ok(Step::default());
        };
        let batches: Vec<BatchRef> = planned.into_iter().map(|(batch, _)| batch).collect();
        self.offset = batches.last().map(|b| b.last_offset() + 1);
        let mut step = Step {
            bytes: batches.iter().map(|b| u64::from(b.batch_len)).sum(),
            ..Step::default()
        };
        if let Some(stream) = self.core.state.stream(id.stream) {
            self.now = format!("wal: {} partition {}", stream.address, id.partition);
        }
        let files = self.core.files.clone();
        let read = self.core.pool.run(move || {
            let mut reader = files.reader();
            let mut damaged: Vec<Lost> = Vec::new();
            let mut rest = &batches[..];
            while let [batch, after @ ..] = rest {
                let reason = match reader.batch(rest) {
                    Ok(_) | Err(FrameError::Gone) => None,
                    Err(FrameError::Corrupt(reason)) => Some(reason),
                    Err(FrameError::Io(error)) => Some(format!("cannot be read: {error}")),
                };
                rest = after;
                let Some(reason) = reason else {
                    continue;
                };
                match damaged.last_mut() {
                    // Neighbours in one frame are one damage.
                    Some(before)
                        if before.first.index == batch.index
                            && before.last_offset + 1 == batch.base_offset =>
                    {
                        before.last_offset = batch.last_offset();
                    }
                    _ => damaged.push(Lost {
                        first: *batch,
                        last_offset: batch.last_offset(),
                        reason,
                    }),
                }
            }
            damaged
        });
        for lost in read.await.ok_or(ScrubError::Closed)? {
            step.damage.extend(self.damage(&partition, lost));
        }
        Ok(step)
    }

    /// Nothing if the batch has left the WAL meanwhile.
    fn damage(&self, partition: &Partition, lost: Lost) -> Option<Damage> {
        if !partition.log.lock().has(&lost.first) {
            return None;
        }
        let (place, bytes) = self.core.files.place_of(&lost.first)?;
        let (first, last) = (lost.first.base_offset, lost.last_offset);
        let records = records(&self.core.state, partition.id, first, last);
        Some(Damage {
            place,
            at: Some(u64::from(lost.first.frame_at)),
            bytes,
            reason: lost.reason,
            records: records.into_iter().collect(),
        })
    }

    async fn segment(&mut self) -> Result<Step, ScrubError> {
        let core = self.core.clone();
        let (cold, state) = (&*core.ports.cold, &*core.state);
        let Some(check) = &mut self.segment else {
            let id = self.segments.pop_front();
            let known = id.and_then(|id| {
                let segments = &state.cold.lock().segments;
                Some((id, *segments.get(&id)?))
            });
            let mut step = Step::default();
            if let Some((id, known)) = known {
                let (check, damage) = SegmentCheck::open(cold, state, id, known).await?;
                self.now = check.key().to_owned();
                self.segment = Some(check);
                step.damage = damage;
            }
            return Ok(step);
        };
        let mut step = Step::default();
        match check.step(cold, state).await? {
            Some((bytes, damage)) => {
                step.bytes = bytes;
                step.damage.extend(damage);
            }
            None => self.segment = None,
        }
        Ok(step)
    }
}
