//! Reading the WAL back at open: every whole frame is applied, an unfinished write is erased, damage to what was durable is reported.
//!
//! What stands after the last sound frame of the newest file is a write that a crash cut short, if no sound frame header after it says that
//! the frame in question had been durable. Then all of it is erased, durably, before anything is written in its place: a frame of the lost
//! write that happened to get there would otherwise come back to life as soon as new frames reach up to it.

use std::io;
use std::sync::mpsc;

use bytes::Bytes;

use super::current::Current;
use super::files::{WalFile, WalFiles};
use super::frame::{FILE_HEADER, Format};
use super::scan::{Found, Frames, Planned, load};
use super::spares::Spares;
use super::{DIRECTORY, first_index, path, spare_number};
use crate::entry_codec;
use crate::error::OpenError;
use crate::ports::Disk;
use crate::snapshot::SnapshotHead;
use crate::state::{FrameAt, State};

/// Zeros written at a time.
const ERASE_BYTES: usize = 1024 * 1024;

/// What the operator can do without a copy.
const GIVE_UP: &str = "to give up this entry and all after it, cut the file at that byte and move the later files of its directory away";

/// Where the log ends.
pub(crate) struct Recovered {
    pub current: Option<Current>,
    pub next_index: u64,
    pub last_stamp: i64,
    /// Entries applied.
    pub entries: u64,
}

struct Recovery<'a> {
    disk: &'a dyn Disk,
    state: &'a State,
    files: &'a WalFiles,
    head: SnapshotHead,
    recovered: Recovered,
}

/// Applies the frames after what the checkpoint has. With `ahead` the next file is read by another thread meanwhile.
pub(crate) fn recover(
    disk: &dyn Disk,
    state: &State,
    files: &WalFiles,
    spares: &Spares,
    head: SnapshotHead,
    ahead: bool,
) -> Result<Recovered, OpenError> {
    let names = disk.list(DIRECTORY).map_err(io_error("list", DIRECTORY))?;
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| first_index(name)).collect();
    firsts.sort_unstable();
    state.count_live(&firsts);
    let planned = plan(&firsts, head);
    let mut recovery = Recovery {
        disk,
        state,
        files,
        head,
        recovered: Recovered {
            current: None,
            next_index: head.index + 1,
            last_stamp: head.stamp,
            entries: 0,
        },
    };
    if ahead && planned.len() > 1 {
        std::thread::scope(|scope| {
            // One file is applied, one is read: no more are in memory.
            let (sender, receiver) = mpsc::sync_channel(0);
            let planned = &planned;
            std::thread::Builder::new()
                .name("log-recovery".to_owned())
                .spawn_scoped(scope, move || {
                    for file in planned {
                        // An error ends the other side.
                        if sender.send((file, load(disk, file))).is_err() {
                            return;
                        }
                    }
                })
                .map_err(OpenError::Thread)?;
            receiver
                .into_iter()
                .try_for_each(|(file, found)| recovery.take(file, found?))
        })?;
    } else {
        planned
            .iter()
            .try_for_each(|file| recovery.take(file, load(disk, file)?))?;
    }
    let numbers: Vec<u64> = names.iter().filter_map(|name| spare_number(name)).collect();
    spares
        .find(&numbers)
        .map_err(io_error("prepare the spare files of", DIRECTORY))?;
    Ok(recovery.recovered)
}

/// What to read of each file.
fn plan(firsts: &[u64], head: SnapshotHead) -> Vec<Planned> {
    let nexts = firsts.iter().skip(1).copied().map(Some).chain([None]);
    let files = firsts.iter().copied().zip(nexts);
    files
        .map(|(first_index, next)| Planned {
            first_index,
            next,
            from: if next.is_some_and(|next| next <= head.index + 1) {
                None
            } else if head.wal_file == first_index {
                Some((head.wal_position, head.index + 1))
            } else {
                Some((FILE_HEADER as u64, first_index))
            },
        })
        .collect()
}

impl Recovery<'_> {
    fn take(&mut self, planned: &Planned, found: Found) -> Result<(), OpenError> {
        let first = planned.first_index;
        match found {
            Found::Covered(file) => {
                self.files.put(first, file);
                Ok(())
            }
            Found::Unborn => self.remove(first),
            Found::Frames(frames) => self.take_frames(planned, frames),
        }
    }

    fn take_frames(&mut self, planned: &Planned, mut found: Frames) -> Result<(), OpenError> {
        let first = planned.first_index;
        let path = path(first);
        let next_index = self.recovered.next_index;
        if first > next_index {
            let gap = format!(
                "entries {next_index} to {} are missing before it",
                first - 1
            );
            return Err(corrupt(&path, 0, next_index, &gap));
        }
        let format = Some(found.format);
        let bytes = found.bytes;
        self.files.put(first, WalFile { bytes, format });
        if planned.next.is_some_and(|next| next != found.expected) {
            let reason = format!("the frame is damaged, and later files exist; {GIVE_UP}");
            return Err(corrupt(&path, found.end, found.expected, &reason));
        }
        if planned.next.is_none() {
            self.finish(first, &path, &found)?;
        }
        for (at, header, body) in std::mem::take(&mut found.frames) {
            if header.index <= self.head.index {
                continue;
            }
            let place = |reason: &str| corrupt(&path, at, header.index, reason);
            let (commands, batches_at) =
                entry_codec::decode(body).map_err(|e| place(&e.to_string()))?;
            let frame_at = u32::try_from(at).map_err(|_| place("the file is too large"))?;
            let frame = FrameAt {
                index: header.index,
                frame_at,
                body_len: header.length,
                stamp: header.stamp,
                volatile: false,
            };
            self.state.apply(frame, commands, &batches_at);
            self.recovered.entries += 1;
            self.recovered.next_index = header.index + 1;
            self.recovered.last_stamp = self.recovered.last_stamp.max(header.stamp);
        }
        Ok(())
    }

    /// Makes the newest file what it says it is: nothing after its last frame, and that on the disk.
    fn finish(&mut self, first: u64, path: &str, found: &Frames) -> Result<(), OpenError> {
        let (end, expected) = (found.end, found.expected);
        if expected <= self.head.index {
            let reason = "an entry that a checkpoint builds on is damaged or missing";
            return Err(corrupt(path, end, expected, reason));
        }
        let says_durable = found.later.iter().find_map(|(_, header)| {
            header.filter(|later| later.index > expected && later.durable >= expected)
        });
        if let Some(later) = says_durable {
            let reason = format!(
                "the frame is damaged, and entry {} after it says that it was durable; {GIVE_UP}",
                later.index
            );
            return Err(corrupt(path, end, expected, &reason));
        }
        self.erase(path, found)
            .map_err(io_error("cut an unfinished write off", path))?;
        self.write_again(found)
            .map_err(io_error("make the end durable of", path))?;
        match found.format {
            Format::V1 if expected == first => self.remove(first),
            // It ends here: the log goes on in a file of the new format.
            Format::V1 => {
                let format = Some(Format::V1);
                self.files.put(first, WalFile { bytes: end, format });
                Ok(())
            }
            Format::V2 { salt } => {
                self.recovered.current = Some(Current {
                    file: found.file.clone(),
                    first_index: first,
                    salt,
                    len: end,
                    bytes: found.bytes,
                });
                Ok(())
            }
        }
    }

    fn erase(&self, path: &str, found: &Frames) -> io::Result<()> {
        let end = found.end;
        let until = match found.format {
            Format::V1 if found.bytes > end => {
                tracing::warn!(path, from = end, "cutting an unfinished write off the log");
                return found.file.truncate(end);
            }
            Format::V1 => return Ok(()),
            Format::V2 { .. } => match found.later.last() {
                Some((last, _)) => last + found.format.header_len() as u64,
                None => return Ok(()),
            },
        };
        let until = until.min(found.bytes);
        tracing::warn!(path, from = end, until, "erasing an unfinished write");
        let zeros = Bytes::from(vec![0; ERASE_BYTES]);
        let mut at = end;
        while at < until {
            let wanted = usize::try_from(until - at).map_or(ERASE_BYTES, |b| b.min(ERASE_BYTES));
            found.file.write_at(at, &[zeros.slice(..wanted)])?;
            at += wanted as u64;
        }
        Ok(())
    }

    /// What no frame says was durable may have been read here from the page cache, even after a sync of it had failed, which then shows no
    /// more: it is written again and synced before anybody builds on it.
    fn write_again(&self, found: &Frames) -> io::Result<()> {
        let durable = found.frames.iter().map(|(_, header, _)| header.durable);
        let durable = durable.max().unwrap_or(0).max(self.head.index);
        let from = found.frames.partition_point(|(_, h, _)| h.index <= durable);
        let again = found.frames.get(from..).unwrap_or_default();
        if let Some((at, _, _)) = again.first() {
            let mut parts = Vec::with_capacity(again.len() * 2);
            for (_, header, body) in again {
                let mut front = bytes::BytesMut::new();
                header.encode(found.format, &mut front);
                parts.extend([front.freeze(), body.clone()]);
            }
            found.file.write_at(*at, &parts)?;
        }
        found.file.sync()
    }

    fn remove(&mut self, first: u64) -> Result<(), OpenError> {
        let path = path(first);
        self.state.wal_use.lock().files.remove(&first);
        self.files.take(first);
        self.disk.remove(&path).map_err(io_error("remove", &path))?;
        self.disk
            .sync_dir(DIRECTORY)
            .map_err(io_error("sync", DIRECTORY))
    }
}

pub(crate) fn io_error(action: &'static str, path: &str) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io {
        action,
        path,
        source,
    }
}

pub(super) fn corrupt(path: &str, position: u64, index: u64, reason: &str) -> OpenError {
    OpenError::Corrupt {
        path: path.to_owned(),
        position,
        index,
        reason: reason.to_owned(),
    }
}
