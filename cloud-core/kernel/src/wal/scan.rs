//! Reading one file at open: its sound frames, and what stands after them.

use std::sync::Arc;

use bytes::Bytes;

use super::files::WalFile;
use super::frame::{FILE_HEADER, FileHeader, Format, FrameHeader, PROLOGUE, VERSION};
use super::recover::{corrupt, io_error};
use super::{frame, path};
use crate::error::OpenError;
use crate::ports::{Disk, DiskFile};

/// What is to be done with a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planned {
    pub first_index: u64,
    /// First index of the file after it; `None` for the newest.
    pub next: Option<u64>,
    /// Where reading begins, and the index of the frame there; `None` = a checkpoint covers all of it.
    pub from: Option<(u64, u64)>,
}

/// What was found in a file.
pub(crate) enum Found {
    /// Nothing was read but the header: damage is found when the entries are.
    Covered(WalFile),
    Frames(Frames),
    /// A file of version 1 that never got a whole header, and so no frame.
    Unborn,
}

/// A file with its frames.
pub(crate) struct Frames {
    pub file: Arc<dyn DiskFile>,
    pub format: Format,
    /// Size of the file.
    pub bytes: u64,
    /// The sound frames: position in the file, header, body.
    pub frames: Vec<(u64, FrameHeader, Bytes)>,
    /// Where they end, and the index that would follow.
    pub end: u64,
    pub expected: u64,
    /// What stands after them where a frame may begin: position, and the header if it is sound. Of the newest file only.
    pub later: Vec<(u64, Option<FrameHeader>)>,
}

pub(crate) fn load(disk: &dyn Disk, planned: &Planned) -> Result<Found, OpenError> {
    let first = planned.first_index;
    let path = path(first);
    let is_last = planned.next.is_none();
    let file = disk.open(&path, is_last).map_err(io_error("open", &path))?;
    let len = file.len().map_err(io_error("measure", &path))?;
    let prologue = read(&*file, &path, 0, len.min(PROLOGUE as u64))?;
    let format = match frame::decode_file_header(&prologue, first) {
        FileHeader::Sound(format) => format,
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
        // In version 1 the header was made durable before the first frame was written, in version 2 before the file got its name.
        FileHeader::Damaged if is_last && len <= FILE_HEADER as u64 => return Ok(Found::Unborn),
        FileHeader::Damaged if planned.from.is_none() => {
            tracing::error!(
                path,
                "the header of a WAL file is damaged; its records cannot be read"
            );
            return Ok(Found::Covered(WalFile {
                bytes: len,
                format: None,
            }));
        }
        FileHeader::Damaged => return Err(corrupt(&path, 0, first, "the file header is damaged")),
    };
    let Some((from, expected)) = planned.from else {
        return Ok(Found::Covered(WalFile {
            bytes: len,
            format: Some(format),
        }));
    };
    if from > len {
        let reason = "the file ends before what a checkpoint builds on";
        return Err(corrupt(&path, len, expected, reason));
    }
    let bytes = read(&*file, &path, from, len - from)?;
    let mut found = Frames {
        file,
        format,
        bytes: len,
        frames: Vec::new(),
        end: from,
        expected,
        later: Vec::new(),
    };
    found.scan(&bytes, planned.next);
    if is_last {
        found.search(&bytes, from);
    }
    Ok(Found::Frames(found))
}

impl Frames {
    /// Collects the sound frames at the front of `bytes`, up to the one before `next`.
    fn scan(&mut self, bytes: &Bytes, next: Option<u64>) {
        let mut at = 0;
        while next != Some(self.expected)
            && let Some((header, body)) = frame_at(bytes, at, self.format)
            && header.index == self.expected
        {
            let len = self.format.header_len() + body.len();
            self.frames.push((self.end, header, body));
            self.expected += 1;
            self.end += len as u64;
            at += len;
        }
    }

    /// Looks for what may be a frame after the sound ones. `bytes` were read from position `from`.
    fn search(&mut self, bytes: &Bytes, from: u64) {
        let start = usize::try_from(self.end - from).unwrap_or(usize::MAX);
        let places = self.format.candidates(bytes, start);
        self.later = places
            .into_iter()
            .map(|at| {
                let header = match self.format {
                    // Of version 1 anything may look like a header.
                    Format::V1 => frame_at(bytes, at, self.format).map(|(header, _)| header),
                    Format::V2 { .. } => {
                        FrameHeader::decode(bytes.get(at..).unwrap_or_default(), self.format)
                    }
                };
                (from + at as u64, header)
            })
            .collect();
        // What stays in memory must not hold on to a buffer that is mostly empty.
        if start < bytes.len() / 2 {
            let kept = bytes.slice(..start);
            let kept = Bytes::copy_from_slice(&kept);
            for (at, _, body) in &mut self.frames {
                let begin = usize::try_from(*at - from).unwrap_or(0) + self.format.header_len();
                *body = kept.slice(begin..begin + body.len());
            }
        }
    }
}

fn read(file: &dyn DiskFile, path: &str, from: u64, len: u64) -> Result<Bytes, OpenError> {
    let len = usize::try_from(len).map_err(|_| corrupt(path, 0, 0, "the file is too large"))?;
    let mut bytes = vec![0; len];
    file.read_at(from, &mut bytes)
        .map_err(io_error("read", path))?;
    Ok(bytes.into())
}

/// The whole and sound frame at a place, if there is one.
pub(crate) fn frame_at(bytes: &Bytes, at: usize, format: Format) -> Option<(FrameHeader, Bytes)> {
    let header = FrameHeader::decode(bytes.get(at..)?, format)?;
    let from = at + format.header_len();
    let to = from.checked_add(header.length as usize)?;
    (to <= bytes.len())
        .then(|| bytes.slice(from..to))
        .filter(|body| header.covers(body))
        .map(|body| (header, body))
}
