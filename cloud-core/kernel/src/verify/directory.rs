//! A data directory that no kernel has open: every frame of the WAL, the checkpoints, and the segments that they name.

use std::io;

use super::damage::{Damage, records_of_batches, records_of_entries};
use super::segment::SegmentCheck;
use crate::checkpoint;
use crate::error::OpenError;
use crate::inspect::{WalFile, WalFrame, WalItem};
use crate::kernel::LOCK;
use crate::ports::cold::ColdError;
use crate::ports::{ColdStore, Disk};
use crate::snapshot::SnapshotHead;
use crate::state::{FrameAt, State};
use crate::wal;

/// Why a directory cannot be verified.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A kernel runs in it.
    #[error("the data directory is in use by a running process")]
    Locked,
    /// Something cannot be read at all.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The cold store did not answer.
    #[error(transparent)]
    Cold(#[from] ColdError),
    /// It is the wrong cold store.
    #[error(
        "{location} holds nothing of the log {log}, of which this directory knows {segments} segments"
    )]
    OtherStore {
        /// Where was looked.
        location: String,
        /// Name of the log.
        log: uuid::Uuid,
        /// How many there should be.
        segments: usize,
    },
}

/// What a verification tells while it runs.
#[derive(Debug)]
pub enum Seen {
    /// How far it is.
    Progress {
        /// Bytes read.
        done: u64,
        /// Bytes that there are to read.
        total: u64,
        /// What was read last.
        now: String,
    },
    /// A damaged place.
    Damage(Damage),
}

struct Check<'a> {
    disk: &'a dyn Disk,
    cold: &'a dyn ColdStore,
    see: &'a mut (dyn FnMut(Seen) + Send),
    state: State,
    head: SnapshotHead,
    done: u64,
    total: u64,
    /// Of `total`: what the segments have.
    segment_bytes: u64,
}

/// Verifies a directory; `see` is told what is found. The directory is locked meanwhile.
pub async fn directory(
    disk: &dyn Disk,
    cold: &dyn ColdStore,
    see: &mut (dyn FnMut(Seen) + Send),
) -> Result<(), DirectoryError> {
    let _lock = disk
        .lock(LOCK)
        .map_err(failed("lock", LOCK))?
        .ok_or(DirectoryError::Locked)?;
    let mut check = Check {
        disk,
        cold,
        see,
        state: State::new(0),
        head: SnapshotHead::default(),
        done: 0,
        total: 0,
        segment_bytes: 0,
    };
    check.checkpoints()?;
    check.wal()?;
    check.segments().await
}

fn failed(action: &'static str, path: &str) -> impl FnOnce(io::Error) -> DirectoryError {
    let path = path.to_owned();
    move |source| DirectoryError::Io {
        action,
        path,
        source,
    }
}

impl Check<'_> {
    fn progress(&mut self, bytes: u64, now: &str) {
        self.done += bytes;
        (self.see)(Seen::Progress {
            done: self.done,
            total: self.total.max(self.done),
            now: now.to_owned(),
        });
    }

    /// Counts the segments that are known by now among what there is to read.
    fn expect_segments(&mut self) {
        let cold = self.state.cold.lock();
        let bytes = cold.segments.values().map(|s| s.live_bytes).sum();
        self.total = self.total - self.segment_bytes + bytes;
        self.segment_bytes = bytes;
    }

    fn damage(&mut self, damage: Damage) {
        (self.see)(Seen::Damage(damage));
    }

    fn whole(&mut self, place: String, reason: String) {
        self.damage(Damage {
            place,
            at: None,
            bytes: None,
            reason,
            records: Vec::new(),
        });
    }

    /// Verifies all of them, and takes the newest sound one for the state.
    fn checkpoints(&mut self) -> Result<(), DirectoryError> {
        let directory = checkpoint::DIRECTORY;
        let mut sizes = checkpoint::sizes(self.disk).map_err(failed("list", directory))?;
        self.total = sizes.iter().map(|(_, bytes)| bytes).sum();
        self.total += self
            .wal_files()?
            .iter()
            .map(|(_, bytes)| bytes)
            .sum::<u64>();
        sizes.reverse();
        let mut found = false;
        for (index, bytes) in sizes {
            let state = State::new(0);
            match checkpoint::load_one(self.disk, index, &state) {
                Ok(head) if !found => {
                    found = true;
                    (self.state, self.head) = (state, head);
                }
                Ok(_) => {}
                Err(OpenError::Io { source, path, .. }) => {
                    return Err(failed("read", &path)(source));
                }
                Err(error) => self.whole(checkpoint::path(index), error.to_string()),
            }
            self.progress(bytes, &checkpoint::path(index));
        }
        self.expect_segments();
        Ok(())
    }

    /// First index and size of each, in order.
    fn wal_files(&self) -> Result<Vec<(u64, u64)>, DirectoryError> {
        let names = self
            .disk
            .list(wal::DIRECTORY)
            .map_err(failed("list", wal::DIRECTORY))?;
        let mut files = Vec::new();
        for first in names.iter().filter_map(|name| wal::first_index(name)) {
            let path = wal::path(first);
            let file = self
                .disk
                .open(&path, false)
                .map_err(failed("open", &path))?;
            files.push((first, file.len().map_err(failed("measure", &path))?));
        }
        files.sort_unstable();
        Ok(files)
    }

    /// Every frame of every file. Those that a start would replay are applied, so that damage behind them has offsets.
    fn wal(&mut self) -> Result<(), DirectoryError> {
        let files = self.wal_files()?;
        let applied = self.head.index;
        let mut next_index = applied + 1;
        let mut follows = true;
        for (place, (first, len)) in files.iter().enumerate() {
            let path = wal::path(*first);
            let next = files.get(place + 1).map(|(next, _)| *next);
            if *first > next_index && follows {
                follows = false;
                let reason = format!(
                    "entries {next_index} to {} are missing before it: a start does not get past that",
                    first - 1
                );
                self.whole(path.clone(), reason);
            }
            let file = self
                .disk
                .open(&path, false)
                .map_err(failed("open", &path))?;
            let mut bytes = vec![0; usize::try_from(*len).unwrap_or(usize::MAX)];
            file.read_at(0, &mut bytes).map_err(failed("read", &path))?;
            match WalFile::open(bytes.into(), Some(*first), next) {
                Ok(items) => {
                    for item in items {
                        self.item(&path, item, &mut next_index, &mut follows);
                    }
                }
                Err(error) => {
                    let last = next.map_or(u64::MAX, |next| next - 1);
                    let needed = last > applied;
                    follows &= !needed;
                    self.damage(Damage {
                        place: path.clone(),
                        at: Some(0),
                        bytes: None,
                        reason: with_outcome(error.to_string(), needed),
                        records: records_of_entries(&self.state, *first, last),
                    });
                }
            }
            self.progress(*len, &path);
        }
        Ok(())
    }

    fn item(&mut self, path: &str, item: WalItem, next_index: &mut u64, follows: &mut bool) {
        match item {
            WalItem::Frame(frame) => {
                let (index, at, bytes) = (frame.index, frame.at, frame.bytes);
                let damaged = frame.damaged.clone();
                if let Err(reason) = &frame.commands {
                    let reason = with_outcome(reason.clone(), index > self.head.index);
                    let records = records_of_entries(&self.state, index, index);
                    *follows &= index <= self.head.index;
                    self.damage(Damage {
                        place: path.to_owned(),
                        at: Some(at),
                        bytes: Some(bytes),
                        reason,
                        records,
                    });
                } else if *follows && index == *next_index {
                    *next_index += 1;
                    self.apply(frame);
                }
                if !damaged.is_empty() {
                    self.damage(Damage {
                        place: path.to_owned(),
                        at: Some(at),
                        bytes: Some(bytes),
                        reason: format!(
                            "records of entry {index} are damaged; the rest of it holds"
                        ),
                        records: records_of_batches(&self.state, index, &damaged),
                    });
                }
            }
            WalItem::Damage(damage) => {
                let needed = damage.last_index > self.head.index;
                *follows &= !needed;
                let reason = format!(
                    "{} (entries {} to {})",
                    damage.reason, damage.first_index, damage.last_index
                );
                let records =
                    records_of_entries(&self.state, damage.first_index, damage.last_index);
                self.damage(Damage {
                    place: path.to_owned(),
                    at: Some(damage.at),
                    bytes: Some(damage.until - damage.at),
                    reason: with_outcome(reason, needed),
                    records,
                });
            }
            WalItem::End { .. } => {}
        }
    }

    fn apply(&self, frame: WalFrame) {
        let (Ok((commands, batches_at)), Ok(frame_at)) = (frame.commands, u32::try_from(frame.at))
        else {
            return;
        };
        let at = FrameAt {
            index: frame.index,
            frame_at,
            body_len: frame.body_len,
            stamp: frame.stamp,
            volatile: false,
            in_tail: false,
        };
        self.state.apply(at, commands, &batches_at);
    }

    async fn segments(&mut self) -> Result<(), DirectoryError> {
        let (log, segments) = {
            let cold = self.state.cold.lock();
            let segments: Vec<_> = cold.segments.iter().map(|(id, s)| (*id, *s)).collect();
            (cold.log, segments)
        };
        let Some(log) = log.filter(|_| !segments.is_empty()) else {
            return Ok(());
        };
        self.expect_segments();
        if self.cold.list(&format!("{log}/")).await?.is_empty() {
            return Err(DirectoryError::OtherStore {
                location: self.cold.location(),
                log,
                segments: segments.len(),
            });
        }
        for (id, known) in segments {
            let (mut check, damage) = SegmentCheck::open(self.cold, &self.state, id, known).await?;
            damage.into_iter().for_each(|damage| self.damage(damage));
            while let Some((bytes, damage)) = check.step(self.cold, &self.state).await? {
                damage.into_iter().for_each(|damage| self.damage(damage));
                self.progress(bytes, check.key());
            }
        }
        Ok(())
    }
}

/// Says when damage is worse than records that cannot be read.
fn with_outcome(reason: String, needed: bool) -> String {
    if needed {
        format!(
            "{reason}; it is newer than the newest sound checkpoint: a start does not get past it"
        )
    } else {
        reason
    }
}
