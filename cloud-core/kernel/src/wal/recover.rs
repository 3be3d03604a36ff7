//! Reading the WAL back at open: every whole frame is applied, a torn tail is cut, damage to what was durable is reported.

use std::io;

use bytes::Bytes;

use super::files::WalFiles;
use super::frame::{
    FILE_HEADER, FRAME_HEADER, FileHeader, FrameHeader, VERSION, decode_file_header,
};
use super::writer::Current;
use super::{DIRECTORY, first_index, path};
use crate::entry_codec;
use crate::error::OpenError;
use crate::ports::Disk;
use crate::state::{FrameAt, State};

/// Where the log ends.
pub(crate) struct Recovered {
    pub current: Option<Current>,
    pub next_index: u64,
    pub last_stamp: i64,
    /// Entries applied.
    pub entries: u64,
}

/// Applies the frames after `applied` (what the checkpoint has).
pub(crate) fn recover(
    disk: &dyn Disk,
    state: &State,
    files: &WalFiles,
    applied: u64,
    stamp: i64,
) -> Result<Recovered, OpenError> {
    let names = disk.list(DIRECTORY).map_err(io_error("list", DIRECTORY))?;
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| first_index(name)).collect();
    firsts.sort_unstable();
    state.count_live(&firsts);
    let mut recovered = Recovered {
        current: None,
        next_index: applied + 1,
        last_stamp: stamp,
        entries: 0,
    };
    for (position, first) in firsts.iter().enumerate() {
        let path = path(*first);
        let is_last = position + 1 == firsts.len();
        let file = disk.open(&path, is_last).map_err(io_error("open", &path))?;
        let len = file.len().map_err(io_error("measure", &path))?;
        let skip = firsts
            .get(position + 1)
            .is_some_and(|next| *next <= applied + 1);
        // Of a file that the checkpoint covers only the header is looked at; its frames are verified when they are read.
        let wanted = if skip {
            len.min(FILE_HEADER as u64)
        } else {
            len
        };
        let mut bytes = vec![
            0;
            usize::try_from(wanted).map_err(|_| corrupt(
                &path,
                0,
                *first,
                "the file is too large"
            ))?
        ];
        file.read_at(0, &mut bytes)
            .map_err(io_error("read", &path))?;
        let bytes = Bytes::from(bytes);
        match decode_file_header(&bytes) {
            FileHeader::Sound(found) if found == *first => {}
            FileHeader::Newer(found) => {
                return Err(OpenError::NewerVersion {
                    path,
                    found,
                    supported: VERSION,
                });
            }
            FileHeader::Foreign => {
                return Err(OpenError::Foreign {
                    path,
                    reason: "it does not begin like a WAL file".into(),
                });
            }
            FileHeader::Sound(_) | FileHeader::Damaged => {
                // The header is made durable before the first frame is written, so a creation that was cut short has no frames.
                if !is_last || (0..bytes.len()).any(|at| frame_at(&bytes, at).is_some()) {
                    return Err(corrupt(&path, 0, *first, "the file header is damaged"));
                }
                drop(file);
                state.wal_use.lock().files.remove(first);
                disk.remove(&path).map_err(io_error("remove", &path))?;
                disk.sync_dir(DIRECTORY)
                    .map_err(io_error("sync", DIRECTORY))?;
                continue;
            }
        }
        files.set_size(*first, len);
        if skip {
            continue;
        }
        if *first > recovered.next_index {
            let gap = format!(
                "entries {} to {} are missing before it",
                recovered.next_index,
                first - 1
            );
            return Err(corrupt(&path, 0, recovered.next_index, &gap));
        }
        let (end, expected) = replay(&path, &bytes, *first, applied, state, &mut recovered)?;
        if is_last && expected <= applied {
            return Err(corrupt(
                &path,
                end,
                expected,
                "an entry that a checkpoint builds on is damaged or missing",
            ));
        }
        if end < len {
            check_cut(&path, &bytes, end, expected, is_last)?;
            tracing::warn!(
                path,
                from = end,
                bytes = len - end,
                "cutting an unfinished write off the log"
            );
            file.truncate(end).map_err(io_error("truncate", &path))?;
            file.sync().map_err(io_error("sync", &path))?;
            files.set_size(*first, end);
        }
        if is_last {
            // What was written but not synced before a crash of the process alone may have been read here from the page cache:
            // it must be on the disk before anybody builds on it.
            file.sync().map_err(io_error("sync", &path))?;
            recovered.current = Some(Current {
                file,
                first_index: *first,
                len: end,
            });
        }
    }
    Ok(recovered)
}

/// Applies the frames of a file; returns where the sound ones end, and the index that should follow.
fn replay(
    path: &str,
    bytes: &Bytes,
    first: u64,
    applied: u64,
    state: &State,
    recovered: &mut Recovered,
) -> Result<(u64, u64), OpenError> {
    let mut at = FILE_HEADER;
    let mut expected = first;
    while let Some((header, body)) = frame_at(bytes, at) {
        if header.index != expected {
            break;
        }
        expected += 1;
        if header.index > applied {
            let place = |reason: &str| corrupt(path, at as u64, header.index, reason);
            let (commands, batches_at) =
                entry_codec::decode(body).map_err(|e| place(&e.to_string()))?;
            let frame_at = u32::try_from(at).map_err(|_| place("the file is too large"))?;
            let frame = FrameAt {
                index: header.index,
                frame_at,
                body_len: header.length,
                stamp: header.stamp,
            };
            state.apply(frame, commands, &batches_at);
            recovered.entries += 1;
            recovered.next_index = header.index + 1;
            recovered.last_stamp = recovered.last_stamp.max(header.stamp);
        }
        at += FRAME_HEADER + header.length as usize;
    }
    Ok((at as u64, expected))
}

/// A damaged frame may be cut only if it was never durable: no later frame says so, and no later file was begun.
fn check_cut(
    path: &str,
    bytes: &Bytes,
    end: u64,
    index: u64,
    is_last: bool,
) -> Result<(), OpenError> {
    if !is_last {
        return Err(corrupt(
            path,
            end,
            index,
            "a frame is damaged, and later files exist",
        ));
    }
    let start = usize::try_from(end).unwrap_or(usize::MAX);
    for at in start..bytes.len() {
        if let Some((later, _)) = frame_at(bytes, at)
            && later.index > index
            && later.durable >= index
        {
            return Err(corrupt(
                path,
                end,
                index,
                &format!(
                    "the frame is damaged, and entry {} after it is sound",
                    later.index
                ),
            ));
        }
    }
    Ok(())
}

/// The whole and sound frame at a place, if there is one.
fn frame_at(bytes: &Bytes, at: usize) -> Option<(FrameHeader, Bytes)> {
    let header = FrameHeader::decode(bytes.get(at..)?)?;
    let from = at + FRAME_HEADER;
    let to = from.checked_add(header.length as usize)?;
    (to <= bytes.len())
        .then(|| bytes.slice(from..to))
        .filter(|body| header.covers(body))
        .map(|body| (header, body))
}

pub(crate) fn io_error(action: &'static str, path: &str) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io {
        action,
        path,
        source,
    }
}

fn corrupt(path: &str, position: u64, index: u64, reason: &str) -> OpenError {
    OpenError::Corrupt {
        path: path.to_owned(),
        position,
        index,
        reason: reason.to_owned(),
    }
}
