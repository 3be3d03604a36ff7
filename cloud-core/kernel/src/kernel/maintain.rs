//! What must be done now and then: retention, checkpoints, deletion of WAL files; and the figures.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Core, Kernel};
use crate::entry::{Command, Entry};
use crate::error::WriteError;
use crate::snapshot::{self, Snapshot};
use crate::state::partition::PartitionLog;
use crate::state::{Directory, State};
use crate::stats::KernelStats;
use crate::stream::PartitionId;
use crate::{checkpoint, wal};

/// What is known of the checkpoints on disk.
pub(crate) struct Checkpoints {
    /// Indexes, oldest first.
    kept: Vec<u64>,
    /// WAL bytes written when the newest was made, as counted by the writer.
    at_bytes: u64,
    /// WAL bytes after it that were there at the start already: they count, else a log of many short lives would grow without one.
    replayed: u64,
    /// When that was, by [`crate::ports::Clock::monotonic_us`]; of one from before the start: the start.
    at_us: u64,
    /// Why the last one could not be written.
    failure: Option<String>,
}

impl Checkpoints {
    pub fn new(kept: Vec<u64>, at_us: u64, replayed: u64) -> Checkpoints {
        Checkpoints {
            kept,
            at_bytes: 0,
            at_us,
            replayed,
            failure: None,
        }
    }
}

impl Kernel {
    /// Retention, checkpoint, deletion of WAL files. To be called by a timer, about once a second.
    pub async fn maintain(&self) {
        if !self.core.intake.is_open() {
            return;
        }
        self.retain().await;
        for queue in self.open_queues() {
            queue.maintain().await;
        }
        if self.seal_is_due() {
            self.core.state.seal_due.notify_one();
        }
        let due = {
            let checkpoints = self.core.checkpoints.lock().await;
            let since = self
                .core
                .written
                .bytes
                .load(Ordering::Relaxed)
                .saturating_sub(checkpoints.at_bytes)
                .saturating_add(checkpoints.replayed);
            let config = &self.core.config;
            let uncovered =
                || self.dead_files(u64::MAX).len() > self.dead_files(covered(&checkpoints)).len();
            let wants_room = self.core.written.wants_room.load(Ordering::Relaxed);
            // Of two checkpoints the older one counts: both must come well before the WAL is at its bound.
            since >= config.checkpoint_wal_bytes.min(config.wal_bytes / 4)
                || (since >= config.wal_file_bytes || wants_room) && uncovered()
        };
        if due {
            self.checkpoint_or_say_why().await;
        }
        let mut checkpoints = self.core.checkpoints.lock().await;
        if let Some(error) = self.keep_one_checkpoint(&mut checkpoints).await.err() {
            tracing::error!(%error, "cannot remove a checkpoint");
        }
        for first in self.dead_files(covered(&checkpoints)) {
            let core = self.core.clone();
            match self.core.pool.run(move || core.retire(first)).await {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::error!(%error, first, "cannot free a WAL file"),
                None => return,
            }
        }
        drop(checkpoints);
        self.core.intake.ask_sync();
    }

    /// Whether the disk answers. When a write or sync of the log takes longer than [`crate::KernelConfig::wal_stall_ms`], what waits behind it is refused
    /// with `Full`, and so is what comes, until it ends: nobody knows whether it ever will. What the disk has already is neither
    /// refused nor acknowledged before that. To be called by a timer, about once a second, whatever else waits: it does not block.
    pub fn look_at_device(&self) {
        let now = self.core.ports.clock.monotonic_us();
        let longest = self.core.config.wal_stall_ms.saturating_mul(1000);
        let refused = self.core.intake.stall(now, longest);
        wal::writer::refuse(refused.into_iter().flatten(), &WriteError::Full);
    }

    /// While there is no room to write, the older checkpoint must not hold on to files that the newest can do without.
    async fn keep_one_checkpoint(&self, checkpoints: &mut Checkpoints) -> io::Result<()> {
        let Some(newest) = checkpoints.kept.last().copied() else {
            return Ok(());
        };
        if !self.core.written.wants_room.load(Ordering::Relaxed)
            || self.dead_files(newest).len() == self.dead_files(covered(checkpoints)).len()
        {
            return Ok(());
        }
        let disk = self.core.ports.disk.clone();
        let removed = self.core.pool.run(move || checkpoint::keep_newest(&*disk));
        removed.await.transpose()?;
        checkpoints.kept = vec![newest];
        Ok(())
    }

    /// Logs the trims that retention asks for, and forgets producers that are idle for long.
    async fn retain(&self) {
        let now = self.core.ports.clock.now_ms();
        let idle_since = now.saturating_sub(self.core.config.producer_expiry_ms);
        let mut entry = Entry::new();
        let mut expired = false;
        {
            let directory = self.core.state.directory.read();
            let settled = settled_marks(&self.core.state, &directory);
            // In an order of their own, so that a run of the simulator is the same twice.
            let mut partitions: Vec<_> = directory.partitions.values().collect();
            partitions.sort_unstable_by_key(|partition| partition.id);
            for partition in partitions {
                let Some(stream) = directory.by_id.get(&partition.id.stream) else {
                    continue;
                };
                let log = partition.log.lock();
                let mut producers = log
                    .producers
                    .values()
                    .chain(log.volatile_producers.values());
                expired |= producers.any(|p| p.is_idle_since(idle_since));
                let oldest = stream.retention_ms().map(|age| now.saturating_sub(age));
                let log_start = keep_from(&log, oldest, stream.retention_bytes()).max(
                    settled
                        .get(&partition.id)
                        .copied()
                        .unwrap_or(0)
                        .min(log.end),
                );
                if log_start > log.log_start
                    && entry.commands.len() < crate::limits::MAX_ENTRY_COMMANDS - 1
                {
                    entry.push(Command::Trim {
                        partition: partition.id,
                        log_start,
                    });
                }
            }
        }
        if expired {
            entry.push(Command::ExpireProducers { idle_since });
        }
        if !entry.commands.is_empty()
            && let Err(error) = self.write_urgent(entry).await
        {
            tracing::warn!(%error, "retention could not be applied");
        }
    }

    /// The newest checkpoint on the disk; a new one when it has become old and something was written since.
    pub(crate) async fn checkpoint_for_cold(&self) -> Option<u64> {
        let (newest, at_us) = {
            let checkpoints = self.core.checkpoints.lock().await;
            (checkpoints.kept.last().copied(), checkpoints.at_us)
        };
        let age_us = self.core.ports.clock.monotonic_us().saturating_sub(at_us);
        let grown = self.core.written.applied.load(Ordering::Acquire) > newest.unwrap_or(0);
        if grown && i64::try_from(age_us / 1000).unwrap_or(i64::MAX) >= self.core.config.seal_age_ms
        {
            self.checkpoint_or_say_why().await;
        }
        self.core.checkpoints.lock().await.kept.last().copied()
    }

    /// It is tried again each second: what keeps it from being written is said when it changes.
    async fn checkpoint_or_say_why(&self) {
        self.persist_deliveries().await;
        let failure = self.checkpoint(false).await.err().map(|e| e.to_string());
        let mut checkpoints = self.core.checkpoints.lock().await;
        let before = std::mem::replace(&mut checkpoints.failure, failure);
        match &checkpoints.failure {
            Some(error) if before.as_ref() != Some(error) => {
                tracing::error!(%error, "cannot write a checkpoint; the log grows until it can be");
            }
            None if before.is_some() => tracing::info!("checkpoints are written again"),
            _ => {}
        }
    }

    /// Writes a checkpoint: the state is copied between two writes, and brought to disk beside them.
    pub(crate) async fn checkpoint(&self, last: bool) -> io::Result<()> {
        let mut checkpoints = self.core.checkpoints.lock().await;
        let closed = || io::Error::other("the log is closed");
        let at_bytes = self.core.written.bytes.load(Ordering::Relaxed);
        let state = self.core.state.clone();
        let room = self.core.pool.run(move || snapshot::room(&state)).await;
        let room = room.ok_or_else(closed)?;
        let receiver = self.core.snapshots.request(last, room);
        let receiver = receiver.ok_or_else(closed)?;
        if last {
            // Not before the request: the writer ends when the intake is closed and empty.
            self.core.intake.close();
        }
        self.core.intake.nudge();
        let snapshot = receiver.await.map_err(|_| closed())?;
        if !last && checkpoints.kept.last() == Some(&snapshot.index) {
            return Ok(());
        }
        let core = self.core.clone();
        checkpoints.kept = self
            .core
            .pool
            .run(move || core.save(snapshot))
            .await
            .ok_or_else(closed)??;
        checkpoints.at_bytes = at_bytes;
        checkpoints.replayed = 0;
        checkpoints.at_us = self.core.ports.clock.monotonic_us();
        self.core
            .checkpoints_written
            .fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Files without live batches whose entries are all in a checkpoint at `covered`. Never the file that is written.
    fn dead_files(&self, covered: u64) -> Vec<u64> {
        let firsts = self.core.files.firsts();
        let wal_use = self.core.state.wal_use.lock();
        let ends = firsts.iter().skip(1).map(|next| next - 1);
        let dead = firsts
            .iter()
            .zip(ends)
            .filter(|(first, end)| *end <= covered && wal_use.is_dead(**first));
        dead.map(|(first, _)| *first).collect()
    }

    /// Figures for metrics.
    pub fn stats(&self) -> KernelStats {
        let core = &self.core;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let (queued_entries, queued_bytes) = core.intake.depth();
        let (wal_files, wal_bytes_on_disk) = core.files.totals();
        let directory = core.state.directory.read();
        let producers = directory
            .partitions
            .values()
            .map(|p| p.log.lock().producers.len() as u64)
            .sum();
        let (streams, partitions) = (
            directory.by_id.len() as u64,
            directory.partitions.len() as u64,
        );
        drop(directory);
        let queues = self.open_queues();
        let unsealed_bytes = core.state.wal_use.lock().bytes;
        let unsealed_age = Duration::from_millis(self.unsealed_age_ms().max(0).unsigned_abs());
        let cold = core.state.cold.lock();
        let (cold_log, cold_epoch) = (cold.log, cold.epoch);
        let segments = cold.segments.len() as u64;
        let cold_bytes = cold.segments.values().map(|s| s.bytes).sum();
        let cold_live_bytes = cold.segments.values().map(|s| s.live_bytes).sum();
        drop(cold);
        let uploading = *core.cold.uploading.lock();
        KernelStats {
            wal_bytes_written: count(&core.written.bytes),
            wal_bytes_on_disk,
            wal_files,
            fsyncs: count(&core.written.fsyncs),
            entries: count(&core.written.entries),
            queued_entries: queued_entries as u64,
            queued_bytes: queued_bytes as u64,
            batches_appended: count(&core.state.applied.batches),
            records_appended: count(&core.state.applied.records),
            bytes_appended: count(&core.state.applied.bytes),
            duplicates: count(&core.state.applied.duplicates),
            appends_refused: count(&core.state.applied.refused),
            tail_bytes: core.state.tail.lock().bytes as u64,
            tail_hits: count(&core.tail_hits),
            tail_misses: count(&core.tail_misses),
            corrupt_reads: count(&core.corrupt_reads),
            streams,
            partitions,
            cursors: core.state.cursors.read().size() as u64,
            producers,
            checkpoints: count(&core.checkpoints_written),
            checkpoint_pause: Duration::from_micros(count(&core.written.pause_us)),
            checkpoint_bytes_written: count(&core.checkpoint_bytes),
            recovery_time: Duration::from_micros(core.recovery_us),
            recovered_entries: core.recovered_entries,
            recovered_damaged: core.recovered_damaged,
            unsealed_bytes,
            unsealed_age,
            cold_log,
            cold_epoch,
            segments,
            cold_bytes,
            cold_live_bytes,
            sealed_bytes: count(&core.cold.sealed_bytes),
            rewritten_bytes: count(&core.cold.rewritten_bytes),
            upload_lag_bytes: uploading.map_or(0, |u| u.bytes),
            upload_sent_bytes: uploading.map_or(0, |u| u.sent),
            upload_lag: uploading.map_or(Duration::ZERO, |u| {
                let now = core.ports.clock.monotonic_us();
                Duration::from_micros(now.saturating_sub(u.since_us))
            }),
            seal_failures: count(&core.cold.failures),
            seal_error: core.cold.last_error.lock().clone(),
            fenced: core.cold.is_fenced(),
            cold_reads: core.cold.chunks.stats(),
            device_silent: Duration::from_micros(
                core.intake.busy_us(core.ports.clock.monotonic_us()),
            ),
            held_back: core.written.wants_room.load(Ordering::Relaxed),
            failed: core.intake.failure(),
            queues: queues.iter().map(|queue| queue.stats()).collect(),
        }
    }
}

impl Core {
    /// Frees a file of the WAL that nothing refers to any more.
    fn retire(&self, first: u64) -> io::Result<()> {
        let Some(file) = self.files.take(first) else {
            return Ok(());
        };
        self.state.wal_use.lock().files.remove(&first);
        let (_, bytes) = self.files.totals();
        let bounded = bytes + file.bytes <= self.config.wal_bytes;
        let retired = self.spares.retire(&wal::path(first), file.bytes, bounded);
        // There may be room for writes that wait.
        self.intake.nudge();
        retired
    }

    /// Saves a checkpoint; on a full disk in the room of the spare files, which it helps to make anew, or of the older checkpoint.
    fn save(&self, snapshot: Snapshot) -> io::Result<Vec<u64>> {
        let disk = &*self.ports.disk;
        let index = snapshot.index;
        let parts = snapshot.encode();
        let mut saved = checkpoint::save(disk, index, &parts);
        for make_room in [Core::release_spares, Core::release_checkpoints] {
            match &saved {
                Err(error) if wal::is_full(error) && make_room(self)? => {
                    saved = checkpoint::save(disk, index, &parts);
                }
                _ => break,
            }
        }
        if saved.is_ok() {
            let bytes = checkpoint::file_bytes(&parts);
            self.checkpoint_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        saved
    }

    fn release_spares(&self) -> io::Result<bool> {
        self.spares.release()
    }

    fn release_checkpoints(&self) -> io::Result<bool> {
        checkpoint::keep_newest(&*self.ports.disk)
    }
}

/// The older of the checkpoints kept must be able to do without what is deleted.
fn covered(checkpoints: &Checkpoints) -> u64 {
    checkpoints.kept.first().copied().unwrap_or(0)
}

/// For the streams that keep only what a queue has not settled: below which offsets of their partitions every queue that reads them, and every
/// group with a position in them, is done. A partition that no queue reads is kept.
fn settled_marks(state: &State, directory: &Directory) -> HashMap<PartitionId, i64> {
    let mut marks = HashMap::new();
    let owned: Vec<_> = directory
        .by_id
        .values()
        .filter(|stream| stream.trims_settled())
        .map(|stream| stream.id.partition(0)..=stream.id.partition(u32::MAX))
        .collect();
    if owned.is_empty() {
        return marks;
    }
    for sources in state.queues.read().values() {
        for (partition, source) in owned.iter().flat_map(|o| sources.range(o.clone())) {
            let mark = marks.entry(*partition).or_insert(source.low_water);
            *mark = source.low_water.min(*mark);
        }
    }
    for positions in state.cursors.read().values() {
        for (partition, position) in owned.iter().flat_map(|o| positions.range(o.clone())) {
            let mark = marks.get_mut(partition).into_iter();
            mark.for_each(|mark| *mark = position.offset.min(*mark));
        }
    }
    marks
}

/// The log start that keeps `bytes`, and what is not older than `oldest` (ms). A batch without a timestamp has no age.
fn keep_from(log: &PartitionLog, oldest: Option<i64>, bytes: Option<u64>) -> i64 {
    let mut left = log.bytes;
    let mut log_start = log.log_start;
    let cold = log.cold.iter().map(|range| {
        (
            range.base_offset,
            range.max_timestamp,
            range.bytes,
            range.next_offset,
        )
    });
    let hot = log.batches.iter().map(|batch| {
        let bytes = u64::from(batch.batch_len);
        (
            batch.base_offset,
            batch.max_timestamp,
            bytes,
            batch.last_offset() + 1,
        )
    });
    let logged = cold.chain(hot);
    let parts: Box<dyn Iterator<Item = (i64, i64, u64, i64)>> = if log.volatile.is_empty() {
        Box::new(logged)
    } else {
        let volatile = log.volatile.iter();
        let volatile = volatile.map(|v| (v.base_offset, v.max_timestamp, v.bytes, v.next_offset));
        let mut all: Vec<_> = logged.chain(volatile).collect();
        all.sort_unstable_by_key(|(base_offset, ..)| *base_offset);
        // What is only in memory may lie in the middle of a cold range: the two go together, or what went counted for what stays.
        let mut together: Vec<(i64, i64, u64, i64)> = Vec::with_capacity(all.len());
        for part in all {
            match together.last_mut() {
                Some((_, max_timestamp, bytes, next_offset)) if part.0 < *next_offset => {
                    *max_timestamp = part.1.max(*max_timestamp);
                    *bytes += part.2;
                    *next_offset = part.3.max(*next_offset);
                }
                _ => together.push(part),
            }
        }
        Box::new(together.into_iter())
    };
    for (_, max_timestamp, len, next_offset) in parts {
        let too_old = oldest.is_some_and(|oldest| max_timestamp >= 0 && max_timestamp < oldest);
        let after = left.saturating_sub(len);
        // Whole cold ranges and whole batches only: what stays is at least the bytes asked for.
        if !too_old && bytes.is_none_or(|bytes| after < bytes) {
            break;
        }
        left = after;
        log_start = log_start.max(next_offset);
    }
    log_start
}
