//! Reading the WAL back at open: every whole frame is applied, an unfinished write is erased, damage to what was durable is reported. Where only
//! records are damaged the entry is applied, and who reads them is told; with more damaged than that, nothing is opened.
//!
//! What stands after the last sound frame of the newest file is a write that a crash cut short, if no sound frame header after it says that
//! the frame in question had been durable. Then all of it is erased, durably, before anything is written in its place: a frame of the lost
//! write that happened to get there would otherwise come back to life as soon as new frames reach up to it.

use std::collections::VecDeque;
use std::io;

use bytes::{Bytes, BytesMut};

use super::ahead::ReadAhead;
use super::current::Current;
use super::files::{WalFile, WalFiles};
use super::frame::{FILE_HEADER, Format, FrameHeader};
use super::scan::{Found, Frame, Frames, Later, Opened, Planned};
use super::spares::Spares;
use super::writer::{SHARD, TERM};
use super::{DIRECTORY, first_index, path, spare_number};
use crate::codec::len_u32;
use crate::entry::{Command, Outcome};
use crate::entry_codec;
use crate::error::OpenError;
use crate::limits::RECOVERY_PIECE_BYTES;
use crate::pool::Pool;
use crate::ports::Disk;
use crate::snapshot::SnapshotHead;
use crate::state::{FrameAt, State};
use crate::stream::PartitionId;

/// Zeros written at a time.
const ERASE_BYTES: usize = 1024 * 1024;

/// What the operator can do without a copy.
const GIVE_UP: &str = "`towline storage cut --data-dir DIR` gives up this entry and all after it, and keeps what it takes away";

/// Where the log ends.
pub(crate) struct Recovered {
    pub current: Option<Current>,
    pub next_index: u64,
    pub last_stamp: i64,
    /// Entries applied, and their bytes in the WAL.
    pub entries: u64,
    pub bytes: u64,
    /// Batches whose records are damaged, of the entries applied.
    pub damaged: u64,
}

struct Recovery<'a> {
    disk: &'a dyn Disk,
    state: &'a State,
    files: &'a WalFiles,
    head: SnapshotHead,
    /// Nothing on the disk is to be changed.
    looks_only: bool,
    /// From here on, in bytes before the end of the log, batches go into the tail: it would not keep those before.
    tail_from: u64,
    /// Whether that was reached: from then on all go there, since what is in memory of a partition has no holes.
    in_tail: bool,
    /// About how many bytes of the log come after the file that is read.
    after: u64,
    recovered: Recovered,
}

/// Applies the frames after what the checkpoint has, which the pool reads ahead.
pub(crate) fn recover(
    disk: &dyn Disk,
    pool: &Pool,
    state: &State,
    files: &WalFiles,
    spares: &Spares,
    head: SnapshotHead,
) -> Result<Recovered, OpenError> {
    let names = disk.list(DIRECTORY).map_err(io_error("list", DIRECTORY))?;
    let file_bytes = Some(spares.file_bytes());
    let recovered = replay(disk, pool, state, files, &names, head, file_bytes)?;
    let numbers: Vec<u64> = names.iter().filter_map(|name| spare_number(name)).collect();
    spares
        .find(&numbers)
        .map_err(io_error("prepare the spare files of", DIRECTORY))?;
    Ok(recovered)
}

/// Whether the log opens, without changing anything.
pub(super) fn look(
    disk: &dyn Disk,
    pool: &Pool,
    state: &State,
    files: &WalFiles,
    head: SnapshotHead,
) -> Result<(), OpenError> {
    let names = disk.list(DIRECTORY).map_err(io_error("list", DIRECTORY))?;
    replay(disk, pool, state, files, &names, head, None).map(|_| ())
}

/// `file_bytes`: the size of files that are written; `None` = nothing is to be changed.
fn replay(
    disk: &dyn Disk,
    pool: &Pool,
    state: &State,
    files: &WalFiles,
    names: &[String],
    head: SnapshotHead,
    file_bytes: Option<u64>,
) -> Result<Recovered, OpenError> {
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| first_index(name)).collect();
    firsts.sort_unstable();
    state.count_live(&firsts);
    let planned = plan(&firsts, head);
    let looks_only = file_bytes.is_none();
    let file_bytes = file_bytes.unwrap_or_default();
    let mut recovery = Recovery {
        disk,
        state,
        files,
        head,
        looks_only,
        // The newest file need not be full.
        tail_from: state.tail.lock().limit() as u64 + file_bytes,
        in_tail: false,
        after: file_bytes * planned.len() as u64,
        recovered: Recovered {
            current: None,
            next_index: head.index + 1,
            last_stamp: head.stamp,
            entries: 0,
            bytes: 0,
            damaged: 0,
        },
    };
    let mut ahead = ReadAhead::new(disk, pool, &planned);
    for planned in &planned {
        recovery.after = recovery.after.saturating_sub(file_bytes);
        match ahead.next_file()? {
            Some(found) => recovery.take(planned, found, &mut ahead)?,
            None => break,
        }
    }
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

/// Those of the frames so far that no later one says were durable when it was written, each with its place: what stands at the end.
#[derive(Default)]
struct Unsure {
    frames: VecDeque<(u64, u64)>,
    /// The newest frame that is damaged; it was kept for what stands behind the end of the log.
    damaged: Option<u64>,
}

impl Unsure {
    fn add(&mut self, frame: &Frame) {
        self.frames.push_back((frame.header.index, frame.at));
        self.forget(frame.header.durable);
        if !frame.damaged.is_empty() {
            self.damaged = Some(frame.header.index);
        }
    }

    /// Whether a damaged frame would be taken for an unfinished write once nothing stands behind it any more.
    fn has_damage(&self) -> bool {
        let first = self.frames.front();
        first.is_some_and(|(first, _)| self.damaged >= Some(*first))
    }

    fn forget(&mut self, durable: u64) {
        while self
            .frames
            .pop_front_if(|(index, _)| *index <= durable)
            .is_some()
        {}
    }
}

impl Recovery<'_> {
    fn take(
        &mut self,
        planned: &Planned,
        found: Found,
        ahead: &mut ReadAhead<'_>,
    ) -> Result<(), OpenError> {
        let first = planned.first_index;
        match found {
            Found::Covered(file) => {
                self.files.put(first, file);
                Ok(())
            }
            Found::Unborn if self.looks_only => Ok(()),
            Found::Unborn => self.remove(first),
            Found::Frames(opened) => self.take_frames(planned, opened, ahead),
        }
    }

    fn take_frames(
        &mut self,
        planned: &Planned,
        opened: Opened,
        ahead: &mut ReadAhead<'_>,
    ) -> Result<(), OpenError> {
        let (first, next) = (planned.first_index, planned.next);
        let path = path(first);
        let next_index = self.recovered.next_index;
        if first > next_index {
            let gap = format!(
                "entries {next_index} to {} are missing before it",
                first - 1
            );
            return Err(corrupt(&path, 0, next_index, &gap));
        }
        let format = Some(opened.format);
        let bytes = opened.bytes;
        self.files.put(first, WalFile { bytes, format });
        let mut frames = Frames::new(opened.format, opened.from, opened.expected);
        let mut unsure = Unsure::default();
        let mut known_durable = None;
        while let Some(piece) = ahead.next_piece().map_err(io_error("read", &path))? {
            let more = frames.feed(piece.clone(), next, |frame| {
                if next.is_none() {
                    // A file that another follows was durable before that was begun. Of the newest, what is not whole can be damage, or
                    // a write that a crash cut short.
                    if !frame.damaged.is_empty()
                        && frame.header.index > self.head.index
                        && !was_durable(&path, &opened, &frame, &mut known_durable)?
                    {
                        return Ok(false);
                    }
                    unsure.add(&frame);
                }
                self.apply(&path, opened.format, bytes, frame)?;
                Ok(true)
            })?;
            ahead.give_back(piece);
            if !more {
                break;
            }
        }
        ahead.leave_file();
        if next.is_some_and(|next| next != frames.expected) {
            let reason = format!("the frame is damaged, and later files exist; {GIVE_UP}");
            return Err(corrupt(&path, frames.at, frames.expected, &reason));
        }
        if next.is_none() {
            unsure.forget(self.head.index);
            self.finish(first, &path, &opened, &frames, &unsure)?;
        }
        Ok(())
    }

    fn apply(
        &mut self,
        path: &str,
        format: Format,
        file_bytes: u64,
        frame: Frame,
    ) -> Result<(), OpenError> {
        let Frame {
            at,
            header,
            bytes,
            damaged,
        } = frame;
        if header.index <= self.head.index {
            return Ok(());
        }
        let place = |reason: &str| corrupt(path, at, header.index, reason);
        let len = bytes.len() as u64;
        self.in_tail |= self.after + file_bytes.saturating_sub(at) <= self.tail_from;
        let in_tail = self.in_tail;
        let mut body = bytes.slice(format.header_len()..);
        if in_tail {
            // What stays must not hold on to all that was read with it.
            body = Bytes::copy_from_slice(&body);
        }
        drop(bytes);
        let (commands, batches_at) =
            entry_codec::decode(body).map_err(|e| place(&e.to_string()))?;
        let frame_at = u32::try_from(at).map_err(|_| place("the file is too large"))?;
        let frame = FrameAt {
            index: header.index,
            frame_at,
            body_len: header.length,
            stamp: header.stamp,
            volatile: false,
            in_tail,
        };
        let appends = append_places(&commands, &batches_at, &damaged);
        let outcomes = self.state.apply(frame, commands, &batches_at);
        self.tell_damage(path, frame, &appends, &outcomes);
        self.recovered.damaged += damaged.len() as u64;
        self.recovered.entries += 1;
        self.recovered.bytes += len;
        self.recovered.next_index = header.index + 1;
        self.recovered.last_stamp = self.recovered.last_stamp.max(header.stamp);
        Ok(())
    }

    /// Says which records of an entry are damaged, and sees to it that they are not in memory.
    fn tell_damage(
        &self,
        path: &str,
        at: FrameAt,
        damaged: &[(usize, PartitionId)],
        outcomes: &[Outcome],
    ) {
        for (command, partition) in damaged {
            let (index, position) = (at.index, at.frame_at);
            match outcomes.get(*command) {
                Some(Outcome::Appended(appended)) if !appended.duplicate => {
                    let (first, last) = (appended.base_offset, appended.last_offset);
                    tracing::error!(
                        path, position, index, %partition, first, last,
                        "records are damaged in the log: they are not served, everything else is; `towline storage verify` names all damage, docs/reference/storage.md says what to do"
                    );
                    self.state.forget_tail(*partition, last + 1);
                }
                // It was refused or sent twice: nobody can ask for it.
                _ => tracing::error!(
                    path, position, index, %partition,
                    "records are damaged in the log that nobody can ask for"
                ),
            }
        }
    }

    /// Makes the newest file what it says it is: nothing after its last frame, and that on the disk.
    fn finish(
        &mut self,
        first: u64,
        path: &str,
        opened: &Opened,
        frames: &Frames,
        unsure: &Unsure,
    ) -> Result<(), OpenError> {
        let (end, expected) = (frames.at, frames.expected);
        if expected <= self.head.index {
            let reason = "an entry that a checkpoint builds on is damaged or missing";
            return Err(corrupt(path, end, expected, reason));
        }
        let (file, format) = (&*opened.file, opened.format);
        let later = Later::search(file, format, end, opened.bytes, expected)
            .map_err(io_error("read", path))?;
        if let Some(later) = later.says_durable {
            let reason = format!(
                "the frame is damaged, and entry {} after it says that it was durable; {GIVE_UP}",
                later.index
            );
            return Err(corrupt(path, end, expected, &reason));
        }
        if self.looks_only {
            return Ok(());
        }
        let end = if unsure.has_damage() {
            self.bear_witness(path, opened, end)?
        } else {
            end
        };
        erase(path, opened, end, &later).map_err(io_error("cut an unfinished write off", path))?;
        write_again(opened, unsure, end).map_err(io_error("make the end durable of", path))?;
        match format {
            Format::V1 | Format::V2 { .. } if expected == first => self.remove(first),
            // It ends here: the log goes on in a file of the new format.
            Format::V1 => {
                let format = Some(format);
                self.files.put(first, WalFile { bytes: end, format });
                Ok(())
            }
            Format::V2 { .. } => Ok(()),
            Format::V3 { salt } => {
                self.recovered.current = Some(Current {
                    file: opened.file.clone(),
                    first_index: first,
                    salt,
                    len: end,
                    bytes: opened.bytes.max(end),
                });
                Ok(())
            }
        }
    }

    /// Writes an entry of nothing, durably, where the log ends: it says that what stands before it was durable, as something did that is erased
    /// now. Returns where the log ends then.
    fn bear_witness(&mut self, path: &str, opened: &Opened, end: u64) -> Result<u64, OpenError> {
        let index = self.recovered.next_index;
        let frame = witness(opened.format, index, self.recovered.last_stamp);
        let written = opened.file.write_at(end, &[&frame]);
        written
            .and_then(|()| opened.file.sync())
            .map_err(io_error("write the end of", path))?;
        self.recovered.next_index += 1;
        Ok(end + frame.len() as u64)
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

/// Whether a frame of the newest file that is not whole had been durable: a later one says so. `known`: what was found out for an earlier one.
fn was_durable(
    path: &str,
    opened: &Opened,
    frame: &Frame,
    known: &mut Option<u64>,
) -> Result<bool, OpenError> {
    let index = frame.header.index;
    let durable = match *known {
        Some(durable) => durable,
        None => {
            let after = frame.at + frame.bytes.len() as u64;
            let later = Later::search(&*opened.file, opened.format, after, opened.bytes, index)
                .map_err(io_error("read", path))?;
            let durable = later.says_durable.map_or(0, |says| says.durable);
            *known.insert(durable)
        }
    };
    Ok(durable >= index)
}

/// Of the appends of an entry, those whose batches are damaged: place among the commands, and partition.
fn append_places(
    commands: &[Command],
    batches_at: &[u32],
    damaged: &[u32],
) -> Vec<(usize, PartitionId)> {
    if damaged.is_empty() {
        return Vec::new();
    }
    let batches = commands.iter().enumerate();
    let batches = batches.filter(|(_, command)| command.batch().is_some());
    let damaged = batches
        .zip(batches_at)
        .filter(|(_, batch_at)| damaged.contains(batch_at));
    damaged
        .filter_map(|((place, command), _)| match command {
            Command::Append { partition, .. } => Some((place, *partition)),
            _ => None,
        })
        .collect()
}

/// The frame of an entry without commands, which says that all entries before it are durable.
pub(super) fn witness(format: Format, index: u64, stamp: i64) -> BytesMut {
    let encoded = entry_codec::encode(&[]);
    let header = FrameHeader {
        length: len_u32(encoded.len),
        body_crc: encoded.crc,
        shard: SHARD,
        term: TERM,
        index,
        durable: index.saturating_sub(1),
        stamp,
        structure_crc: Some(encoded.structure_crc),
    };
    let mut frame = BytesMut::new();
    header.encode(format, &mut frame);
    frame.extend_from_slice(&encoded.rest);
    frame
}

/// Makes sure that no frame begins after the end.
fn erase(path: &str, opened: &Opened, end: u64, later: &Later) -> io::Result<()> {
    let until = match opened.format {
        Format::V1 if opened.bytes > end => {
            tracing::warn!(path, from = end, "cutting an unfinished write off the log");
            return opened.file.truncate(end);
        }
        Format::V1 => return Ok(()),
        Format::V2 { .. } | Format::V3 { .. } => match later.last {
            Some(last) => last + opened.format.header_len() as u64,
            None => return Ok(()),
        },
    };
    let until = until.min(opened.bytes);
    tracing::warn!(path, from = end, until, "erasing an unfinished write");
    let zeros = vec![0; ERASE_BYTES];
    let mut at = end;
    while at < until {
        let wanted = usize::try_from(until - at).map_or(ERASE_BYTES, |b| b.min(ERASE_BYTES));
        opened
            .file
            .write_at(at, &[zeros.get(..wanted).unwrap_or_default()])?;
        at += wanted as u64;
    }
    Ok(())
}

/// What no frame says was durable may have been read here from the page cache, even after a sync of it had failed, which then shows no
/// more: it is written again and synced before anybody builds on it. It is read again for that, since it may be much, and looked at again,
/// since what the system had in memory it may have forgotten meanwhile.
fn write_again(opened: &Opened, unsure: &Unsure, end: u64) -> io::Result<()> {
    let file = &*opened.file;
    if let Some((index, at)) = unsure.frames.front().copied() {
        let mut frames = Frames::new(opened.format, at, index);
        let mut at = at;
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let mut piece = vec![0; left.min(RECOVERY_PIECE_BYTES)];
            file.read_at(at, &mut piece)?;
            at += piece.len() as u64;
            let (mut from, mut parts) = (None, Vec::new());
            frames.feed(piece.into(), None, |frame| {
                from.get_or_insert(frame.at);
                parts.push(frame.bytes);
                io::Result::Ok(true)
            })?;
            if let Some(from) = from {
                let parts: Vec<&[u8]> = parts.iter().map(|frame: &Bytes| &frame[..]).collect();
                file.write_at(from, &parts)?;
            }
        }
        if frames.at != end {
            return Err(io::Error::other(
                "what was read is not there any more when it is read again",
            ));
        }
    }
    file.sync()
}

pub(crate) fn io_error(
    action: &'static str,
    path: &str,
) -> impl FnOnce(io::Error) -> OpenError + use<> {
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
