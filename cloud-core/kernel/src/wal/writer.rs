//! The writer: takes what waits, writes it with one vectored write and one fdatasync, applies it in order, completes the callers.
//! A state machine with one transition, [`Writer::step`]: a thread drives it in production, a test drives it by hand.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::current::{Current, Framed};
use super::files::{WalFile, WalFiles};
use super::frame::{FILE_HEADER, Format, FrameHeader};
use super::gather::{Answered, Gather};
use super::intake::{Group, Intake, Pending};
use super::spares::{Spare, Spares};
use super::{is_full, path, volatile};
use crate::codec::len_u32;
use crate::config::KernelConfig;
use crate::error::WriteError;
use crate::limits::{LOG_IN_USE_US, WAL_RESERVE_SHARE, WAL_SPARES};
use crate::pool::Pool;
use crate::ports::Ports;
use crate::snapshot::{self, SnapshotHead, SnapshotRequests};
use crate::state::{FrameAt, State};
use crate::stream_config::Durability;

/// Everything of a node is in one shard until there is a cluster.
pub(super) const SHARD: u32 = 0;
/// Term of a log that has never had an election.
pub(super) const TERM: u64 = 1;

/// Spares that ordinary entries leave alone as long as a file can be made.
const RESERVED_SPARES: usize = 1;

/// Counters of the writer.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub bytes: AtomicU64,
    pub fsyncs: AtomicU64,
    pub entries: AtomicU64,
    /// Newest index that is durable and applied.
    pub applied: AtomicU64,
    /// Longest time in which nothing was written because a checkpoint was begun, in microseconds.
    pub pause_us: AtomicU64,
    /// When a write that will be synced was last begun (µs of the clock's stop watch).
    pub begun_us: AtomicU64,
    /// Writes are held back or refused until files of the WAL are freed.
    pub wants_room: AtomicBool,
}

pub(crate) struct Writer {
    pub ports: Ports,
    pub config: KernelConfig,
    pub state: Arc<State>,
    pub intake: Arc<Intake>,
    pub files: Arc<WalFiles>,
    pub spares: Arc<Spares>,
    pub pool: Arc<Pool>,
    pub written: Arc<Written>,
    pub snapshots: Arc<SnapshotRequests>,
    pub current: Option<Current>,
    /// Index of the next entry.
    pub next_index: u64,
    /// Stamps never go back, whatever the clock does.
    pub last_stamp: i64,
    pub progress: Progress,
    pub work: Work,
}

/// The group that is written now; its memory is used again for the next.
#[derive(Default)]
pub(crate) struct Work {
    group: Group,
    /// How durable each of its entries has to be.
    classes: Vec<Durability>,
    framed: Framed,
}

impl Work {
    /// The entries that are logged.
    fn logged(&self) -> impl Iterator<Item = &Pending> {
        let pairs = self.group.entries.iter().zip(&self.classes);
        pairs
            .filter(|(_, class)| **class != Durability::Memory)
            .map(|(pending, _)| pending)
    }
}

/// What the writer knows besides the log.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Newest index that was synced.
    synced: u64,
    /// A write or sync failed: nothing is written any more, and no later sync would mean anything.
    failed: bool,
    /// Since when writes are held back because the WAL is at its bound (µs of the clock's stop watch).
    held_since: Option<u64>,
    /// The file in which a spare was asked for.
    spare_asked_in: u64,
    /// The last group.
    answered: Answered,
    gather: Gather,
}

impl Written {
    /// Whether somebody may be waiting for the log's device now, or will in a moment.
    pub fn is_in_use(&self, now_us: u64) -> bool {
        let begun = self.begun_us.load(Ordering::Relaxed);
        begun > 0 && now_us.saturating_sub(begun) < LOG_IN_USE_US
    }
}

impl Progress {
    /// After a recovery that synced everything up to an index.
    pub fn synced(synced: u64) -> Progress {
        Progress {
            synced,
            ..Progress::default()
        }
    }
}

impl Writer {
    /// Drives the writer until the intake is closed and empty.
    pub fn run(mut self) {
        while self.intake.wait(self.hold_left()) {
            while self.step() {
                self.gather();
            }
        }
        // Whoever closed the intake has asked for the last one before.
        self.snapshot(true);
        self.snapshots.close();
    }

    /// Lets those who were just answered come again, for one sync instead of two.
    fn gather(&mut self) {
        let last = std::mem::take(&mut self.progress.answered);
        let gather = &mut self.progress.gather;
        gather.wait(&last, &self.intake, &*self.ports.clock);
    }

    /// Writes one group; false when there was nothing to do.
    pub fn step(&mut self) -> bool {
        let mut work = std::mem::take(&mut self.work);
        self.intake.begin_work(self.ports.clock.monotonic_us());
        let stepped = self.step_with(&mut work);
        self.intake.end_work();
        self.work = work;
        stepped
    }

    fn step_with(&mut self, work: &mut Work) -> bool {
        let held = self.is_held();
        // A group is in one file, so that a file does not become larger than the WAL's bound reckons with.
        let room = self.spares.file_bytes() - FILE_HEADER as u64;
        let most = usize::try_from(room).map_or(self.config.group_bytes, |room| {
            self.config.group_bytes.min(room)
        });
        self.intake.drain(most, held, &mut work.group);
        if work.group.entries.is_empty() {
            if !held {
                self.look_for_room();
            }
            // While entries are held back there is more to come.
            return self.sync_if_asked() | self.snapshot(!held || self.intake.is_empty());
        }
        let stamp = self.ports.clock.now_ms().max(self.last_stamp);
        self.last_stamp = stamp;
        self.classify(work);
        let written = self.write(work, stamp);
        if !work.group.urgent {
            let wants_room = matches!(written, Err(Failure::NoRoom | Failure::AtBound));
            self.written.wants_room.store(wants_room, Ordering::Relaxed);
        }
        let entries = &mut work.group.entries;
        match written {
            Ok(()) => self.apply(work, stamp),
            Err(Failure::NoRoom) => refuse(entries.drain(..), &WriteError::Full),
            Err(Failure::AtBound) => return self.hold(entries),
            Err(Failure::Unknown(error)) => self.fail(entries.drain(..), &error),
        }
        self.snapshot(false);
        true
    }

    /// How durable each entry has to be. What must be reserved for those that are not logged goes before them, and what cannot be applied
    /// with them goes back.
    fn classify(&self, work: &mut Work) {
        let (entries, classes) = (&mut work.group.entries, &mut work.classes);
        classes.clear();
        if !self.state.is_relaxed() {
            classes.resize(entries.len(), Durability::QuorumFsync);
            return;
        }
        let of = |pending: &Pending| self.state.durability(&pending.commands);
        classes.extend(entries.iter().map(of));
        if classes.contains(&Durability::Memory) {
            let planned = volatile::plan(&self.state, entries, classes);
            self.intake.put_back(entries.drain(planned.take..));
            classes.truncate(planned.take);
            if let Some(reserve) = planned.reserve {
                entries.insert(0, reserve);
                classes.insert(0, Durability::QuorumFsync);
            }
        }
    }

    /// Between two groups the state is exactly what the entries so far made of it.
    fn snapshot(&mut self, idle: bool) -> bool {
        if !self.snapshots.is_wanted(idle) {
            return false;
        }
        // After a failure nobody knows what stands where the next entry should, and a checkpoint says where that is.
        if self.progress.failed {
            self.snapshots.close();
            return true;
        }
        // A checkpoint builds on what is in the WAL, so that must be there to stay.
        if let Err(error) = self.sync() {
            self.fail(std::iter::empty(), &error);
            self.snapshots.close();
            return true;
        }
        let wal = self.current.as_ref().map(|c| (c.first_index, c.len));
        let (wal_file, wal_position) = wal.unwrap_or_default();
        let started = self.ports.clock.monotonic_us();
        let answered = self.snapshots.answer(idle, |last, room| {
            let head = SnapshotHead {
                index: self.next_index - 1,
                stamp: self.last_stamp,
                last,
                wal_file,
                wal_position,
            };
            snapshot::take(&self.state, head, room)
        });
        let took = self.ports.clock.monotonic_us().saturating_sub(started);
        self.written.pause_us.fetch_max(took, Ordering::Relaxed);
        answered
    }

    /// Syncs what was written without; true if there was any.
    fn sync_if_asked(&mut self) -> bool {
        let wanted = self.intake.take_sync_asked() && self.progress.synced + 1 < self.next_index;
        if wanted
            && !self.progress.failed
            && let Err(error) = self.sync()
        {
            self.fail(std::iter::empty(), &error);
        }
        wanted
    }

    fn sync(&mut self) -> io::Result<()> {
        let newest = self.next_index - 1;
        if self.progress.synced == newest {
            return Ok(());
        }
        if self.progress.failed {
            return Err(io::Error::other("an earlier sync failed"));
        }
        if let Some(current) = &self.current {
            current.file.sync()?;
            self.written.fsyncs.fetch_add(1, Ordering::Relaxed);
        }
        self.progress.synced = newest;
        Ok(())
    }

    /// Writes a group, and makes it durable unless nobody asked for that; the places in `work` are those of its entries that are logged.
    fn write(&mut self, work: &mut Work, stamp: i64) -> Result<(), Failure> {
        let mut framed = std::mem::take(&mut work.framed);
        let written = self.write_framed(work, &mut framed, stamp);
        work.framed = framed;
        written
    }

    fn write_framed(
        &mut self,
        work: &Work,
        framed: &mut Framed,
        stamp: i64,
    ) -> Result<(), Failure> {
        // All files that are written are of one format; the salt does not matter for lengths.
        let frame_len =
            |pending: &Pending| Format::V3 { salt: 0 }.frame_len(len_u32(pending.encoded.len));
        let wanted: u64 = work.logged().map(frame_len).sum();
        framed.places.clear();
        if wanted == 0 {
            return Ok(());
        }
        let first = FrameHeader {
            length: 0,
            body_crc: 0,
            shard: SHARD,
            term: TERM,
            index: self.next_index,
            durable: self.progress.synced,
            stamp,
            structure_crc: None,
        };
        let must_sync = work.classes.contains(&Durability::QuorumFsync);
        let started = self.ports.clock.monotonic_us();
        if must_sync {
            self.written.begun_us.store(started, Ordering::Relaxed);
        }
        let current = self.file_for(wanted, work.group.urgent)?;
        current.frame(first, work.logged(), framed)?;
        let before = (current.len, current.bytes);
        if let Err(error) = current.write(work.logged(), framed) {
            if !is_full(&error) {
                return Err(error.into());
            }
            current.take_back(&framed.places)?;
            tracing::error!(%error, "the disk is full; writes are refused until there is room");
            return Err(Failure::NoRoom);
        }
        if must_sync {
            current.file.sync()?;
        }
        let (len, bytes) = (current.len, current.bytes);
        if bytes > before.1 {
            let format = Some(current.format());
            let first = current.first_index;
            self.files.put(first, WalFile { bytes, format });
        }
        let count = framed.places.len() as u64;
        self.next_index += count;
        if must_sync {
            self.progress.synced = self.next_index - 1;
            self.written.fsyncs.fetch_add(1, Ordering::Relaxed);
        }
        self.progress.answered = Answered {
            entries: work.group.entries.len(),
            bytes: len - before.0,
            took_us: self.ports.clock.monotonic_us().saturating_sub(started),
            arrivals: 0,
        };
        self.written
            .bytes
            .fetch_add(len - before.0, Ordering::Relaxed);
        self.written.entries.fetch_add(count, Ordering::Relaxed);
        self.ask_for_spare(len);
        Ok(())
    }

    /// The file for the next `wanted` bytes of frames: the current one, or a new one if that is full.
    fn file_for(&mut self, wanted: u64, urgent: bool) -> Result<&mut Current, Failure> {
        let size = self.spares.file_bytes();
        // The end of the file is a reserve for what makes room, unless the next file is there with another one.
        let reserve = if urgent || self.spares.count().0 > RESERVED_SPARES {
            0
        } else {
            size / WAL_RESERVE_SHARE
        };
        let full = |c: &Current| c.len > FILE_HEADER as u64 && c.len + wanted > size - reserve;
        if self.current.as_ref().is_none_or(full) {
            self.rotate(urgent)?;
        }
        self.current
            .as_mut()
            .ok_or_else(|| io::Error::other("no file").into())
    }

    fn rotate(&mut self, urgent: bool) -> Result<(), Failure> {
        // That a file was begun says that all of the one before is durable.
        self.sync()?;
        let first_index = self.next_index;
        let spare = self.next_file(urgent).map_err(|failure| match failure {
            Failure::Unknown(error) if is_full(&error) => {
                tracing::error!(%error, "the disk is full; writes are refused until there is room");
                Failure::NoRoom
            }
            other => other,
        })?;
        self.spares.become_file(&spare, first_index)?;
        let current = Current {
            file: spare.file,
            first_index,
            salt: spare.salt,
            len: FILE_HEADER as u64,
            bytes: self.spares.file_bytes(),
        };
        let format = Some(current.format());
        let bytes = current.bytes;
        self.files.put(first_index, WalFile { bytes, format });
        let mut wal_use = self.state.wal_use.lock();
        wal_use.files.insert(first_index, Default::default());
        drop(wal_use);
        self.current = Some(current);
        Ok(())
    }

    fn next_file(&self, urgent: bool) -> Result<Spare, Failure> {
        let at_bound = self.at_bound();
        let leave = if urgent || at_bound {
            0
        } else {
            RESERVED_SPARES
        };
        if let Some(spare) = self.spares.take(leave) {
            return Ok(spare);
        }
        if !urgent && at_bound {
            return Err(Failure::AtBound);
        }
        // The reserve comes first, from the second file on.
        if !urgent && self.current.is_some() && self.spares.count().0 < RESERVED_SPARES {
            self.spares.top_up()?;
        }
        Ok(self.spares.make()?)
    }

    /// Whether one more file would be more than the WAL may take.
    fn at_bound(&self) -> bool {
        let (ready, preparing) = self.spares.count();
        let spares = (ready + preparing) as u64;
        let (_, bytes) = self.files.totals();
        bytes + (spares + 1) * self.spares.file_bytes() > self.config.wal_bytes
    }

    /// Has the next file made ready when the current one is half full, by another thread.
    fn ask_for_spare(&mut self, len: u64) {
        let Some(first_index) = self.current.as_ref().map(|c| c.first_index) else {
            return;
        };
        if len < self.spares.file_bytes() / 2
            || self.progress.spare_asked_in == first_index
            || self.at_bound()
        {
            return;
        }
        self.progress.spare_asked_in = first_index;
        for _ in 0..WAL_SPARES {
            let (spares, intake) = (self.spares.clone(), self.intake.clone());
            self.pool.submit(move || {
                if let Err(error) = spares.top_up() {
                    tracing::warn!(%error, "the next file of the log cannot be made ready");
                }
                intake.nudge();
            });
        }
    }

    /// Puts back entries that the WAL has no room for, until files are freed.
    fn hold(&mut self, entries: &mut Vec<Pending>) -> bool {
        tracing::warn!(
            bound = self.config.wal_bytes,
            "the log is at its bound; writes wait until something of it was sealed or trimmed"
        );
        self.intake.put_back(entries.drain(..));
        self.progress.held_since = Some(self.ports.clock.monotonic_us());
        self.snapshot(false)
    }

    /// Whether writes are held back now. Those that waited too long are refused.
    fn is_held(&mut self) -> bool {
        if self.progress.held_since.is_none() {
            return false;
        }
        if self.spares.count().0 > 0 || !self.at_bound() {
            self.progress.held_since = None;
            return false;
        }
        if self.hold_left().is_none() || !self.intake.is_open() {
            refuse(self.intake.take_all(), &WriteError::Full);
        }
        true
    }

    /// Writes were held back or refused, and none has come since: whether the next one would be.
    fn look_for_room(&mut self) {
        if self.progress.failed || !self.written.wants_room.load(Ordering::Relaxed) {
            return;
        }
        let leave = if self.at_bound() { 0 } else { RESERVED_SPARES };
        // On a disk that is full nothing but a try tells; what it makes is the next file.
        if self.spares.count().0 <= leave && (leave == 0 || self.spares.top_up().is_err()) {
            return;
        }
        if self.spares.count().0 > leave {
            self.written.wants_room.store(false, Ordering::Relaxed);
        }
    }

    /// How long writes are held back still; `None` if they are not, or not any more.
    fn hold_left(&self) -> Option<Duration> {
        let since = self.progress.held_since?;
        let until = since.saturating_add(self.config.wal_stall_ms.saturating_mul(1000));
        let left = until.saturating_sub(self.ports.clock.monotonic_us());
        (left > 0).then_some(Duration::from_micros(left))
    }

    fn apply(&mut self, work: &mut Work, stamp: i64) {
        // Before anybody is answered: who writes again at once must not be refused for what is over.
        self.intake.end_work();
        self.progress.answered.arrivals = self.intake.arrivals();
        let mut places = work.framed.places.iter().copied();
        let nowhere = FrameAt {
            index: self.next_index - 1,
            frame_at: 0,
            body_len: 0,
            stamp,
            volatile: true,
            in_tail: true,
        };
        for (pending, class) in work.group.entries.drain(..).zip(&work.classes) {
            let at = match class {
                Durability::Memory => nowhere,
                _ => match places.next() {
                    Some(at) => at,
                    None => return,
                },
            };
            let Pending {
                commands,
                encoded,
                done,
                ..
            } = pending;
            let outcomes = self.state.apply(at, commands, &encoded.batches_at);
            self.written.applied.store(at.index, Ordering::Release);
            // The caller may have left.
            let _ = done.send(Ok(outcomes));
        }
    }

    /// After a failed write or fdatasync nobody knows what is on the disk, and asking again would be answered as if all were well: the kernel
    /// accepts no write any more. What was acknowledged stays readable.
    fn fail(&mut self, group: impl Iterator<Item = Pending>, error: &io::Error) {
        self.progress.failed = true;
        let reason = format!(
            "cannot write {}: {error}",
            self.current
                .as_ref()
                .map_or_else(|| path(self.next_index), |c| path(c.first_index))
        );
        tracing::error!(%reason, "the log failed; no write is accepted any more, free or replace the disk and restart");
        self.intake.fail(&reason);
        refuse(group, &WriteError::Failed(reason));
    }
}

pub(crate) fn refuse(group: impl IntoIterator<Item = Pending>, error: &WriteError) {
    for pending in group {
        // The caller may have left.
        let _ = pending.done.send(Err(error.clone()));
    }
}

/// Why a group was not written.
enum Failure {
    /// The disk is full, and is as it was before.
    NoRoom,
    /// The WAL takes all that it may; nothing was done.
    AtBound,
    /// What is on the disk is not known.
    Unknown(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Unknown(error)
    }
}
