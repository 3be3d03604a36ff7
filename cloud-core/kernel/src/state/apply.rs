//! Applying an entry: from it alone, so that the log always gives the same state. Appends are judged first, all of them; only when none is
//! refused is anything changed; the ends of transactions are judged with them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use record::{Batch, ControlRecord};
use smallvec::SmallVec;

use super::State;
use super::partition::{BatchRef, Partition, PartitionLog};
use super::producer::{self, Producer, Verdict};
use super::volatile::Volatile;
use crate::entry::{Appended, Command, Outcome, SequenceRule};
use crate::error::AppendError;
use crate::stream::PartitionId;

/// Where an entry is, and when its leader wrote it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameAt {
    pub index: u64,
    pub frame_at: u32,
    pub body_len: u32,
    /// Milliseconds since the epoch.
    pub stamp: i64,
    /// The entry is not in the WAL; `index` is that of the newest that is.
    pub volatile: bool,
    /// Its batches are kept in memory.
    pub in_tail: bool,
}

/// What producers would be after the commands judged so far: one entry may carry several batches of one producer.
#[derive(Default)]
struct Staged(Option<HashMap<(PartitionId, i64), Producer>>);

impl Staged {
    fn get(&self, partition: PartitionId, producer_id: i64) -> Option<&Producer> {
        self.0.as_ref()?.get(&(partition, producer_id))
    }

    /// What is known of a producer, for judging the next command.
    fn producer(&self, partition: &Partition, producer_id: i64) -> Option<Producer> {
        let known = || partition.log.lock().producers.get(&producer_id).cloned();
        self.get(partition.id, producer_id).cloned().or_else(known)
    }

    fn put(&mut self, partition: PartitionId, producer_id: i64, now: Producer) {
        let staged = self.0.get_or_insert_default();
        staged.insert((partition, producer_id), now);
    }
}

/// An append that was judged good.
struct Judged {
    partition: Arc<Partition>,
    duplicate: Option<Option<(i64, i64)>>,
}

impl State {
    /// Applies an entry. `batches_at` has where the batches of its commands begin in the body.
    pub fn apply(&self, at: FrameAt, commands: Vec<Command>, batches_at: &[u32]) -> Vec<Outcome> {
        let judged = match self.judge(&commands, at) {
            Ok(judged) => judged,
            Err((refused, error)) => {
                self.applied.refused.fetch_add(1, Ordering::Relaxed);
                let mut outcomes = vec![Outcome::NotApplied; commands.len()];
                if let Some(outcome) = outcomes.get_mut(refused) {
                    *outcome = Outcome::Refused(error);
                }
                return outcomes;
            }
        };
        // The entry was applied before, as a whole. What it put beside its batches then may have been replaced since: an old
        // retained value must not come back because its batch was sent again.
        let repeated = !judged.is_empty() && judged.iter().all(|j| j.duplicate.is_some());
        let mut judged = judged.into_iter();
        let mut batches_at = batches_at.iter().copied();
        let mut outcomes = Vec::with_capacity(commands.len());
        for command in commands {
            outcomes.push(match command {
                Command::Append { batch, rule, .. } => match (judged.next(), batches_at.next()) {
                    (Some(judged), Some(batch_at)) => {
                        self.append(at, judged, batch, rule, batch_at)
                    }
                    _ => Outcome::NotApplied,
                },
                Command::EndTransaction { partitions, marker } => match batches_at.next() {
                    Some(_) if repeated => Outcome::NoEffect,
                    Some(batch_at) => self.end_transaction(at, &partitions, &marker, batch_at),
                    None => Outcome::NotApplied,
                },
                _ if repeated => Outcome::NoEffect,
                other => self.apply_other(at, other),
            });
        }
        outcomes
    }

    fn judge(
        &self,
        commands: &[Command],
        at: FrameAt,
    ) -> Result<SmallVec<[Judged; 2]>, (usize, AppendError)> {
        let mut judged = SmallVec::new();
        let mut staged = Staged::default();
        for (position, command) in commands.iter().enumerate() {
            let refused = |error| (position, error);
            match command {
                Command::Append {
                    partition: id,
                    batch,
                    rule,
                } => {
                    let partition = self
                        .partition(*id)
                        .ok_or_else(|| refused(AppendError::UnknownPartition(*id)))?;
                    let mut duplicate = None;
                    if producer::is_checked(*rule, batch) {
                        let more = position + 1 < commands.len();
                        let verdict = judge_append(&partition, at, batch, *rule, &mut staged, more);
                        match verdict {
                            Verdict::Append => {}
                            Verdict::Duplicate(offsets) => duplicate = Some(offsets),
                            Verdict::Refuse(error) => return Err(refused(error)),
                        }
                    }
                    judged.push(Judged {
                        partition,
                        duplicate,
                    });
                }
                Command::EndTransaction { partitions, marker } => {
                    let coordinator_epoch = coordinator_epoch(marker);
                    for partition in partitions.iter().filter_map(|id| self.partition(*id)) {
                        let known = staged.producer(&partition, marker.producer_id());
                        if let Some(known) = &known {
                            producer::judge_end(known, marker, coordinator_epoch)
                                .map_err(refused)?;
                        }
                        let (ended, _) = producer::end(known, marker, coordinator_epoch, at.stamp);
                        staged.put(partition.id, marker.producer_id(), ended);
                    }
                }
                Command::AdvanceSequence {
                    partition: id,
                    producer_id,
                    epoch,
                    next,
                } => {
                    if let Some(partition) =
                        self.partition(*id).filter(|p| !p.log.lock().is_volatile)
                    {
                        let known = staged.producer(&partition, *producer_id);
                        let now = producer::advanced(known.as_ref(), *epoch, *next, at.stamp);
                        if let Some(now) = now {
                            staged.put(partition.id, *producer_id, now);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(judged)
    }

    fn append(
        &self,
        at: FrameAt,
        judged: Judged,
        batch: Batch,
        rule: SequenceRule,
        batch_at: u32,
    ) -> Outcome {
        let partition = judged.partition;
        let mut log = partition.log.lock();
        if let Some(offsets) = judged.duplicate {
            self.applied.duplicates.fetch_add(1, Ordering::Relaxed);
            let (base_offset, last_offset) = offsets.unwrap_or((-1, -1));
            return Outcome::Appended(Appended {
                base_offset,
                last_offset,
                timestamp: at.stamp,
                log_start: log.log_start,
                duplicate: true,
            });
        }
        if log.gone {
            // An earlier command of the entry deleted the stream.
            return Outcome::NotApplied;
        }
        log.begin_append(at.volatile);
        if producer::is_checked(rule, &batch) {
            let id = batch.producer_id();
            let (end, stamp) = (log.end, at.stamp);
            let producers = log.remembering(at.volatile, &batch);
            let known = producers.remove(&id);
            let was_open = known.as_ref().is_some_and(|known| known.open.is_some());
            let now = producer::remember(known, &batch, rule, end, stamp);
            let open = now.open.filter(|_| !was_open);
            producers.insert(id, now);
            if let Some(open) = open {
                log.transactions.begin(id, open.first_offset);
            }
        }
        Outcome::Appended(self.place(at, &partition, log, batch, batch_at))
    }

    fn end_transaction(
        &self,
        at: FrameAt,
        partitions: &[PartitionId],
        marker: &Batch,
        batch_at: u32,
    ) -> Outcome {
        let id = marker.producer_id();
        let aborts = matches!(
            ControlRecord::from_batch(marker),
            Some(ControlRecord::Abort { .. })
        );
        let mut ended = Vec::with_capacity(partitions.len());
        for partition in partitions.iter().filter_map(|id| self.partition(*id)) {
            let mut log = partition.log.lock();
            log.begin_append(at.volatile);
            let known = log.producers.remove(&id);
            let (now, open) = producer::end(known, marker, coordinator_epoch(marker), at.stamp);
            if !open.is_some_and(|open| open.is_orphaned()) {
                log.producers.insert(id, now);
            }
            match open {
                Some(open) if aborts => {
                    let last_offset = log.end;
                    log.transactions.abort(id, open.first_offset, last_offset);
                }
                Some(open) => log.transactions.commit(open.first_offset),
                None => {}
            }
            let appended = self.place(at, &partition, log, marker.clone(), batch_at);
            ended.push((partition.id, appended));
        }
        Outcome::TransactionEnded(ended)
    }

    /// Puts a batch at the end of a log.
    fn place(
        &self,
        at: FrameAt,
        partition: &Arc<Partition>,
        mut log: MutexGuard<'_, PartitionLog>,
        batch: Batch,
        batch_at: u32,
    ) -> Appended {
        let base_offset = log.end;
        let entry = BatchRef {
            base_offset,
            max_timestamp: batch.max_timestamp(),
            index: at.index,
            frame_at: at.frame_at,
            body_len: at.body_len,
            batch_at,
            batch_len: crate::codec::len_u32(batch.len()),
            last_offset_delta: batch.last_offset_delta().unsigned_abs(),
        };
        self.applied.batches.fetch_add(1, Ordering::Relaxed);
        self.applied
            .records
            .fetch_add(u64::from(batch.record_count()), Ordering::Relaxed);
        self.applied
            .bytes
            .fetch_add(batch.len() as u64, Ordering::Relaxed);
        log.end = entry.last_offset() + 1;
        log.bytes += batch.len() as u64;
        if at.volatile {
            log.volatile.push_back(Volatile {
                base_offset,
                next_offset: entry.last_offset() + 1,
                max_timestamp: entry.max_timestamp,
                bytes: batch.len() as u64,
                index: at.index,
            });
        } else {
            log.batches.push_back(entry);
        }
        let len = batch.len();
        if at.in_tail {
            log.tail
                .push_back(batch.into_patched(base_offset, partition.id.leader_epoch()));
        }
        let appended = Appended {
            base_offset,
            last_offset: entry.last_offset(),
            timestamp: at.stamp,
            log_start: log.log_start,
            duplicate: false,
        };
        let (end, last_stable) = (log.end, log.last_stable());
        drop(log);
        if !at.volatile {
            let mut wal_use = self.wal_use.lock();
            wal_use.add(at.index, len as u64);
            wal_use.mark(at.index, at.stamp);
            if wal_use.bytes >= self.seal_at.load(Ordering::Relaxed) {
                self.seal_due.notify_one();
            }
        }
        if at.in_tail {
            self.tail.lock().added(partition, base_offset, len);
        }
        partition.wake(end, last_stable);
        appended
    }
}

/// Judges an append whose sequence is checked; with `more`, also for the commands that follow in the entry.
fn judge_append(
    partition: &Partition,
    at: FrameAt,
    batch: &Batch,
    rule: SequenceRule,
    staged: &mut Staged,
    more: bool,
) -> Verdict {
    let id = batch.producer_id();
    let mut log = partition.log.lock();
    if !log.is_judged(at.volatile, batch) {
        return Verdict::Append;
    }
    let producers = log.remembering(at.volatile, batch);
    let known = staged.get(partition.id, id).or_else(|| producers.get(&id));
    let verdict = producer::judge(known, batch, rule);
    if more && verdict == Verdict::Append {
        let now = producer::remember(known.cloned(), batch, rule, -1, at.stamp);
        staged.put(partition.id, id, now);
    }
    verdict
}

/// The epoch in a control batch; -1 (the oldest) in what is none.
fn coordinator_epoch(marker: &Batch) -> i32 {
    match ControlRecord::from_batch(marker) {
        Some(
            ControlRecord::Commit { coordinator_epoch }
            | ControlRecord::Abort { coordinator_epoch },
        ) => coordinator_epoch,
        None => -1,
    }
}
