//! The writer: takes what waits, writes it with one vectored write and one fdatasync, applies it in order, completes the callers.
//! A state machine with one transition, [`Writer::step`]: a thread drives it in production, a test drives it by hand.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::files::WalFiles;
use super::frame::{FILE_HEADER, FrameHeader, encode_file_header};
use super::intake::{Intake, Pending};
use super::{DIRECTORY, path};
use crate::codec::len_u32;
use crate::config::KernelConfig;
use crate::error::WriteError;
use crate::ports::{DiskFile, Ports};
use crate::snapshot::{self, SnapshotRequests};
use crate::state::wal_use::Live;
use crate::state::{FrameAt, State};

/// Everything of a node is in one shard until there is a cluster.
const SHARD: u32 = 0;
/// Term of a log that has never had an election.
const TERM: u64 = 1;

/// Counters of the writer.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub bytes: AtomicU64,
    pub fsyncs: AtomicU64,
    pub entries: AtomicU64,
    /// Newest index that is durable and applied.
    pub applied: AtomicU64,
}

pub(crate) struct Writer {
    pub ports: Ports,
    pub config: KernelConfig,
    pub state: Arc<State>,
    pub intake: Arc<Intake>,
    pub files: Arc<WalFiles>,
    pub written: Arc<Written>,
    pub snapshots: Arc<SnapshotRequests>,
    pub current: Option<Current>,
    /// Index of the next entry.
    pub next_index: u64,
    /// Stamps never go back, whatever the clock does.
    pub last_stamp: i64,
}

/// The file that is written.
pub(crate) struct Current {
    pub file: Arc<dyn DiskFile>,
    pub first_index: u64,
    pub len: u64,
}

impl Writer {
    /// Drives the writer until the intake is closed and empty.
    pub fn run(mut self) {
        while self.intake.wait() {
            while self.step() {}
        }
        // Whoever closed the intake has asked for the last one before.
        self.snapshot(true);
        self.snapshots.close();
    }

    /// Writes one group; false when there was nothing to do.
    pub fn step(&mut self) -> bool {
        let group = self.intake.drain(self.config.group_bytes);
        if group.is_empty() {
            return self.snapshot(true);
        }
        let stamp = self.ports.clock.now_ms().max(self.last_stamp);
        self.last_stamp = stamp;
        match self.write(&group, stamp) {
            Ok(places) => self.apply(group, &places),
            Err(Failure::NoRoom) => refuse(group, &WriteError::Full),
            Err(Failure::Unknown(error)) => self.fail(group, &error),
        }
        self.snapshot(false);
        true
    }

    /// Between two groups the state is exactly what the entries so far made of it.
    fn snapshot(&self, idle: bool) -> bool {
        let index = self.next_index - 1;
        self.snapshots.answer(idle, |last| {
            snapshot::take(&self.state, index, self.last_stamp, last)
        })
    }

    /// Makes a group durable; returns where its entries are.
    fn write(&mut self, group: &[Pending], stamp: i64) -> Result<Vec<FrameAt>, Failure> {
        let durable = self.next_index - 1;
        let first_index = self.next_index;
        let headers: Vec<FrameHeader> = (first_index..)
            .zip(group)
            .map(|(index, pending)| FrameHeader {
                length: len_u32(pending.encoded.len),
                body_crc: pending.encoded.crc,
                shard: SHARD,
                term: TERM,
                index,
                durable,
                stamp,
            })
            .collect();
        let bytes: u64 = headers.iter().map(FrameHeader::frame_len).sum();
        let current = self.file_for(bytes)?;
        let mut parts: Vec<Bytes> = Vec::with_capacity(group.len() * 4);
        let mut places = Vec::with_capacity(group.len());
        let mut frame_at = current.len;
        for (header, pending) in headers.iter().zip(group) {
            places.push(FrameAt {
                index: header.index,
                frame_at: u32::try_from(frame_at).map_err(io::Error::other)?,
                body_len: header.length,
                stamp,
            });
            frame_at += header.frame_len();
            parts.push(header.encode());
            parts.extend(pending.encoded.parts.iter().cloned());
        }
        if let Err(error) = current.file.write_at(current.len, &parts) {
            if !is_full(&error) {
                return Err(error.into());
            }
            // What got there is taken back, for sure, before anything else is written in its place.
            current.file.truncate(current.len)?;
            current.file.sync()?;
            tracing::error!(%error, "the disk is full; writes are refused until there is room");
            return Err(Failure::NoRoom);
        }
        current.file.sync()?;
        current.len = frame_at;
        let (file, len) = (current.first_index, current.len);
        self.files.set_size(file, len);
        self.next_index += group.len() as u64;
        self.written.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.written.fsyncs.fetch_add(1, Ordering::Relaxed);
        self.written
            .entries
            .fetch_add(group.len() as u64, Ordering::Relaxed);
        Ok(places)
    }

    /// The file for the next `bytes`: the current one, or a new one if that is full.
    fn file_for(&mut self, bytes: u64) -> Result<&mut Current, Failure> {
        let full =
            |c: &Current| c.len > FILE_HEADER as u64 && c.len + bytes > self.config.wal_file_bytes;
        if self.current.as_ref().is_none_or(full) {
            let first_index = self.next_index;
            let created = self.ports.disk.create(&path(first_index));
            let file = created.map_err(|error| {
                if is_full(&error) {
                    Failure::NoRoom
                } else {
                    error.into()
                }
            })?;
            if let Err(error) = file.write_at(0, &[encode_file_header(first_index)]) {
                // Half a header must not be in the way of the next attempt.
                self.ports.disk.remove(&path(first_index))?;
                return Err(if is_full(&error) {
                    Failure::NoRoom
                } else {
                    error.into()
                });
            }
            file.sync()?;
            self.ports.disk.sync_dir(DIRECTORY)?;
            self.written.fsyncs.fetch_add(1, Ordering::Relaxed);
            self.written
                .bytes
                .fetch_add(FILE_HEADER as u64, Ordering::Relaxed);
            self.files.set_size(first_index, FILE_HEADER as u64);
            self.state
                .wal_use
                .lock()
                .files
                .insert(first_index, Live::default());
            self.current = Some(Current {
                file,
                first_index,
                len: FILE_HEADER as u64,
            });
        }
        self.current
            .as_mut()
            .ok_or_else(|| io::Error::other("no file").into())
    }

    fn apply(&mut self, group: Vec<Pending>, places: &[FrameAt]) {
        for (pending, at) in group.into_iter().zip(places) {
            let Pending {
                commands,
                encoded,
                done,
            } = pending;
            // The parts share the batches' memory; without them a batch may be filled in where it is.
            let batches_at = encoded.batches_at;
            drop(encoded.parts);
            let outcomes = self.state.apply(*at, commands, &batches_at);
            self.written.applied.store(at.index, Ordering::Release);
            // The caller may have left.
            let _ = done.send(Ok(outcomes));
        }
    }

    /// After a failed write or fdatasync nobody knows what is on the disk, and asking again would be answered as if all were well: the kernel
    /// accepts no write any more. What was acknowledged stays readable.
    fn fail(&mut self, group: Vec<Pending>, error: &io::Error) {
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

fn refuse(group: Vec<Pending>, error: &WriteError) {
    for pending in group {
        // The caller may have left.
        let _ = pending.done.send(Err(error.clone()));
    }
}

/// Why a group was not written.
enum Failure {
    /// The disk is full, and is as it was before.
    NoRoom,
    /// What is on the disk is not known.
    Unknown(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Unknown(error)
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
