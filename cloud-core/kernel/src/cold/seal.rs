//! Sealing: a prefix of the log, by entries, is written to a segment, sorted by partition, and then the log says so. Until that is logged the
//! WAL has everything; whatever fails is tried again at the next call, from the part of the upload that failed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use record::Batch;

use super::{InFlight, Uploading};
use crate::entry::{Command, Entry};
use crate::error::{ColdTierError, ReadError, WriteError};
use crate::kernel::Kernel;
use crate::limits::{MAX_SEGMENT_PARTS, UPLOAD_PART_BYTES};
use crate::ports::cold::{ColdError, Upload};
use crate::segment::{PartHead, SegmentMeta, SegmentWriter};
use crate::state::partition::{BatchRef, Partition};

/// A segment on its way.
pub(crate) struct Sealing {
    upload: Box<dyn Upload>,
    /// What is to be uploaded before anything else.
    outgoing: Option<Vec<Bytes>>,
    work: Work,
}

/// The making of it.
struct Work {
    flight: InFlight,
    /// Newest entry whose batches go into it.
    through: u64,
    /// Those that are not done, by id.
    partitions: VecDeque<Arc<Partition>>,
    /// Of the first of them: where its part begins, if that was begun, and the next offset.
    begun: Option<i64>,
    next: i64,
    stage: Stage,
    /// The next part of the upload.
    ready: Option<Vec<Bytes>>,
}

enum Stage {
    Writing(SegmentWriter),
    Uploaded(SegmentMeta),
    Durable(SegmentMeta),
}

impl Kernel {
    /// Seals one segment, if it is due; returns whether more is. After an error nothing has changed and a later call goes on with it.
    pub async fn seal(&self) -> Result<bool, ColdTierError> {
        self.seal_one(|kernel| kernel.seal_target()).await?;
        Ok(self.seal_is_due())
    }

    /// Seals everything that was written before the call.
    pub async fn seal_all(&self) -> Result<(), ColdTierError> {
        let newest = self.core.written.applied.load(Ordering::Acquire);
        while self.oldest_unsealed().is_some_and(|index| index <= newest) {
            let sealed = self.seal_one(|kernel| {
                let wanted = kernel.core.config.seal_at();
                kernel
                    .core
                    .state
                    .wal_use
                    .lock()
                    .seal_through(wanted, true, newest)
            });
            if !sealed.await? {
                break;
            }
        }
        Ok(())
    }

    /// Returns when [`Kernel::seal`] has something to do. Not pushed by time: [`Kernel::maintain`] looks at the age.
    pub async fn wait_seal_due(&self) {
        loop {
            let notified = self.core.state.seal_due.notified();
            if self.seal_is_due() {
                return;
            }
            notified.await;
        }
    }

    pub(crate) fn seal_is_due(&self) -> bool {
        if self.core.cold.is_fenced() || !self.core.intake.is_open() {
            return false;
        }
        // A seal that runs now will look again when it is done.
        let interrupted = self.core.cold.sealing.try_lock().is_ok_and(|s| s.is_some());
        interrupted || self.seal_target().is_some()
    }

    /// The entry up to which to seal now; `None` while neither size nor age asks for it.
    fn seal_target(&self) -> Option<u64> {
        let wanted = self.core.config.seal_at();
        let applied = self.core.written.applied.load(Ordering::Acquire);
        let all = self.unsealed_age_ms() >= self.core.config.seal_age_ms
            || self.core.written.wants_room.load(Ordering::Relaxed);
        let wal_use = self.core.state.wal_use.lock();
        (all || wal_use.bytes >= wanted)
            .then(|| wal_use.seal_through(wanted, all, applied))
            .flatten()
    }

    /// Age of the oldest batch that is not sealed, in milliseconds; -1 if there is none.
    pub(crate) fn unsealed_age_ms(&self) -> i64 {
        let Some(index) = self.oldest_unsealed() else {
            return -1;
        };
        let stamp = self.core.state.wal_use.lock().stamp_of(index);
        let now = self.core.ports.clock.now_ms();
        stamp.map_or(i64::MAX, |stamp| now.saturating_sub(stamp).max(0))
    }

    /// The oldest entry with a batch that is not sealed.
    fn oldest_unsealed(&self) -> Option<u64> {
        if self.core.state.wal_use.lock().bytes == 0 {
            return None;
        }
        let partitions = self.core.state.partitions();
        partitions
            .iter()
            .filter_map(|p| p.log.lock().batches.front().map(|b| b.index))
            .min()
    }

    /// Goes on with the segment that was interrupted, or begins one up to the entry that `target` says. False if there was nothing.
    async fn seal_one(
        &self,
        target: impl Fn(&Kernel) -> Option<u64>,
    ) -> Result<bool, ColdTierError> {
        let mut waiting = self.core.cold.sealing.lock().await;
        let sealed = match waiting.take() {
            Some(sealing) => Ok(sealing),
            None => match target(self) {
                Some(through) => self.begin_seal(through).await,
                None => {
                    *self.core.cold.uploading.lock() = None;
                    return Ok(false);
                }
            },
        };
        let (error, sealing) = match sealed {
            Ok(mut sealing) => match self.finish_seal(&mut sealing).await {
                Ok(()) => {
                    *self.core.cold.uploading.lock() = None;
                    *self.core.cold.last_error.lock() = None;
                    return Ok(true);
                }
                Err(error) => (error, Some(sealing)),
            },
            Err(error) => (error, None),
        };
        self.core.cold.failed(&error);
        let may_work_later = matches!(
            error,
            ColdTierError::Store(ColdError::Unavailable(_))
                | ColdTierError::Wal(_)
                | ColdTierError::Write(WriteError::Full)
        );
        match sealing {
            Some(sealing) if may_work_later => *waiting = Some(sealing),
            // What the store still holds of it is its own to clean up, should this fail as well.
            Some(mut sealing) => drop(sealing.upload.abort().await),
            None => {}
        }
        Err(error)
    }

    async fn begin_seal(&self, through: u64) -> Result<Sealing, ColdTierError> {
        let partitions = self.due_partitions(through);
        let flight = self.next_segment().await?;
        let upload = self
            .core
            .ports
            .cold
            .upload(&flight.id.key(flight.log))
            .await?;
        let writer = SegmentWriter::new(flight.id, flight.log);
        Ok(Sealing {
            upload,
            outgoing: None,
            work: Work {
                flight,
                through,
                partitions,
                begun: None,
                next: 0,
                stage: Stage::Writing(writer),
                ready: None,
            },
        })
    }

    /// The partitions that have batches of entries up to `through`, by id, and what is to be uploaded of them noted for people.
    fn due_partitions(&self, through: u64) -> VecDeque<Arc<Partition>> {
        let mut due = self.core.state.partitions();
        due.retain(|partition| {
            let log = partition.log.lock();
            log.batches.front().is_some_and(|b| b.index <= through)
        });
        due.sort_unstable_by_key(|p| p.id);
        // What is left out is taken next time.
        due.truncate(MAX_SEGMENT_PARTS);
        let bytes = due
            .iter()
            .map(|partition| partition.log.lock().bytes_through(through));
        let bytes = bytes.sum();
        let now = self.core.ports.clock.monotonic_us();
        let mut uploading = self.core.cold.uploading.lock();
        // One that could not even be begun is late since the first attempt.
        let since_us = uploading.map_or(now, |before| before.since_us);
        *uploading = Some(Uploading {
            bytes,
            sent: 0,
            since_us,
        });
        due.into()
    }

    async fn finish_seal(&self, sealing: &mut Sealing) -> Result<(), ColdTierError> {
        loop {
            if sealing.outgoing.is_none() {
                sealing.outgoing = sealing.work.ready.take();
            }
            if let Some(part) = &sealing.outgoing {
                // While it is on its way, the next one is made ready.
                let uploading = sealing.upload.part(part.clone());
                let (uploaded, made) = tokio::join!(uploading, self.write_more(&mut sealing.work));
                uploaded?;
                let bytes = part.iter().map(|piece| piece.len() as u64).sum::<u64>();
                if let Some(uploading) = &mut *self.core.cold.uploading.lock() {
                    uploading.sent += bytes;
                }
                sealing.outgoing = None;
                made?;
                continue;
            }
            match &mut sealing.work.stage {
                Stage::Writing(_) => self.write_more(&mut sealing.work).await?,
                Stage::Uploaded(meta) if meta.parts.is_empty() => {
                    // Everything was trimmed meanwhile.
                    return Ok(sealing.upload.abort().await?);
                }
                Stage::Uploaded(meta) => {
                    let meta = meta.clone();
                    sealing.upload.finish().await?;
                    sealing.work.stage = Stage::Durable(meta);
                }
                Stage::Durable(meta) => {
                    let meta = meta.clone();
                    // Whoever restores the segment knows its streams as they were set up.
                    self.keep_streams().await?;
                    self.still_own_cold(self.own_cold().await?).await?;
                    let bytes = meta.bytes;
                    let command = Command::SegmentSealed { segment: meta };
                    self.write_urgent(Entry::new().with(command)).await?;
                    self.core
                        .cold
                        .sealed_bytes
                        .fetch_add(bytes, Ordering::Relaxed);
                    return Ok(());
                }
            }
        }
    }

    /// Writes batches until the next part of the upload is ready; nothing, if it is or there is none.
    async fn write_more(&self, work: &mut Work) -> Result<(), ColdTierError> {
        while work.ready.is_none() {
            let Stage::Writing(writer) = &mut work.stage else {
                break;
            };
            if let Some(part) = writer.take_upload() {
                work.ready = Some(part);
                break;
            }
            let Some(partition) = work.partitions.front().cloned() else {
                let empty = SegmentWriter::new(work.flight.id, work.flight.log);
                let (last, meta) = std::mem::replace(writer, empty).finish();
                work.ready = Some(last);
                work.stage = Stage::Uploaded(meta);
                break;
            };
            let plan = partition
                .log
                .lock()
                .plan_seal(work.next, work.through, UPLOAD_PART_BYTES);
            let stream = self.stream_by_id(partition.id.stream);
            let (Some((first, _)), Some(stream)) = (plan.first(), stream) else {
                if let Some(from) = work.begun.take() {
                    let aborted = &partition.log.lock().transactions;
                    writer.end_part(work.next, aborted.aborted_between(from, work.next));
                }
                work.partitions.pop_front();
                work.next = 0;
                continue;
            };
            let first = *first;
            let Some(batches) = self.fetch_to_seal(&partition, plan).await? else {
                // Trimmed meanwhile.
                continue;
            };
            if work.begun.is_none() {
                let number = partition.id.partition;
                writer.begin_part(PartHead::new(
                    &stream,
                    number,
                    first.base_offset,
                    first.index,
                ));
                work.begun = Some(first.base_offset);
            }
            for batch in batches {
                match batch {
                    Ok(batch) => {
                        work.next = batch.next_offset();
                        writer.push(&batch);
                    }
                    Err((first, last)) => {
                        work.next = last + 1;
                        writer.push_lost(first, last);
                    }
                }
            }
        }
        Ok(())
    }

    /// Brings the batches of a plan that are not in memory from the WAL. One that is damaged there is an `Err` with its offsets. `None`: some of
    /// them are not needed any more.
    async fn fetch_to_seal(
        &self,
        partition: &Partition,
        plan: Vec<(BatchRef, Option<Batch>)>,
    ) -> Result<Option<Vec<Sealed>>, ColdTierError> {
        let wanted = plan.iter().filter(|(_, batch)| batch.is_none());
        let mut wanted: VecDeque<BatchRef> = wanted.map(|(reference, _)| *reference).collect();
        let mut fetched = VecDeque::new();
        while let Some(first) = wanted.front().copied() {
            let found = self.core.fetch_hot(partition.id, wanted.clone().into());
            match found.await {
                Ok(found) => {
                    wanted.drain(..found.len().min(wanted.len()));
                    fetched.extend(found.into_iter().map(Ok));
                }
                Err(_) if !partition.log.lock().has(&first) => return Ok(None),
                Err(error @ ReadError::Corrupt { first, last, .. }) => {
                    self.core.corrupt_reads.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(%error, "the records are lost; the segment says so");
                    wanted.pop_front();
                    fetched.push_back(Err((first, last)));
                }
                Err(error) => return Err(ColdTierError::Wal(error)),
            }
        }
        let all = plan.into_iter().filter_map(|(_, batch)| match batch {
            Some(batch) => Some(Ok(batch)),
            None => fetched.pop_front(),
        });
        Ok(Some(all.collect()))
    }
}

/// A batch, or the first and last offset of what is lost.
type Sealed = Result<Batch, (i64, i64)>;
