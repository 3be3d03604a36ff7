//! Reading one file at open: its sound frames, from pieces of it, and what stands after them.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::files::WalFile;
use super::frame::{FILE_HEADER, FileHeader, Format, FrameHeader, PROLOGUE, VERSION};
use super::recover::{corrupt, io_error};
use super::{frame, path};
use crate::entry_codec::{self, BatchesAt};
use crate::error::OpenError;
use crate::limits::RECOVERY_PIECE_BYTES;
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
    Frames(Opened),
    /// A file of version 1 that never got a whole header, and so no frame.
    Unborn,
}

/// A file whose frames are to be read.
pub(crate) struct Opened {
    pub file: Arc<dyn DiskFile>,
    pub format: Format,
    /// Size of the file.
    pub bytes: u64,
    /// Where the first frame that is wanted begins, and its index.
    pub from: u64,
    pub expected: u64,
}

/// Opens a file and reads its header.
pub(crate) fn open(disk: &dyn Disk, planned: &Planned) -> Result<Found, OpenError> {
    let first = planned.first_index;
    let path = path(first);
    let is_last = planned.next.is_none();
    let file = disk.open(&path, is_last).map_err(io_error("open", &path))?;
    let len = file.len().map_err(io_error("measure", &path))?;
    let prologue = read(&*file, 0, len.min(PROLOGUE as u64)).map_err(io_error("read", &path))?;
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
        // In version 1 the header was made durable before the first frame was written, since then before the file gets its name.
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
    Ok(Found::Frames(Opened {
        file,
        format,
        bytes: len,
        from,
        expected,
    }))
}

/// A frame of which everything is sound that applying it needs.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Where it begins in its file.
    pub at: u64,
    pub header: FrameHeader,
    /// Header and body.
    pub bytes: Bytes,
    /// Where in the body the batches begin whose records are damaged, or were never wholly written.
    pub damaged: BatchesAt,
}

/// Takes pieces of a file, one after the other, for the frames that are in them.
pub(crate) struct Frames {
    format: Format,
    /// Where the next frame begins, and the index that it must have.
    pub at: u64,
    pub expected: u64,
    /// The front of that frame, where it ended with the piece.
    begun: BytesMut,
}

impl Frames {
    /// For pieces from a position on, where the frame `expected` begins.
    pub fn new(format: Format, at: u64, expected: u64) -> Frames {
        Frames {
            format,
            at,
            expected,
            begun: BytesMut::new(),
        }
    }

    /// Hands the frames of a piece to `take`, up to the one before `next`, if there is such. False if no more pieces are wanted: what follows
    /// is none, or `take` has said that it is not one.
    pub fn feed<E>(
        &mut self,
        mut piece: Bytes,
        next: Option<u64>,
        mut take: impl FnMut(Frame) -> Result<bool, E>,
    ) -> Result<bool, E> {
        while next != Some(self.expected) {
            let front = if self.begun.is_empty() {
                &piece[..]
            } else {
                &self.begun[..]
            };
            let Some((len, header)) = self.look_at(front) else {
                return Ok(false);
            };
            let bytes = if !self.begun.is_empty() {
                let missing = len.saturating_sub(self.begun.len());
                if missing > 0 && piece.is_empty() {
                    return Ok(true);
                }
                if missing > 0 {
                    let more = piece.split_to(missing.min(piece.len()));
                    self.begun.reserve(missing);
                    self.begun.extend_from_slice(&more);
                    continue;
                }
                self.begun.split().freeze()
            } else if piece.len() < len {
                self.begun.reserve(len);
                self.begun.extend_from_slice(&piece);
                return Ok(true);
            } else {
                piece.split_to(len)
            };
            let body = bytes.slice(self.format.header_len().min(bytes.len())..);
            let sound = header.and_then(|header| Some((header, damaged_in(&header, &body)?)));
            let Some((header, damaged)) = sound else {
                // It is where the next frame should be, and is none.
                return Ok(false);
            };
            let (at, len) = (self.at, bytes.len() as u64);
            drop(body);
            if !take(Frame {
                at,
                header,
                bytes,
                damaged,
            })? {
                return Ok(false);
            }
            self.at += len;
            self.expected += 1;
        }
        Ok(false)
    }

    /// How long the frame is that begins with these bytes, and its header; without the header, how many bytes are wanted to know. `None` if
    /// it is not the one expected. A length is believed only with the checksum of its header.
    fn look_at(&self, front: &[u8]) -> Option<(usize, Option<FrameHeader>)> {
        let header_len = self.format.header_len();
        if front.len() < header_len {
            return Some((header_len, None));
        }
        let header = FrameHeader::decode(front, self.format)?;
        let len = header_len + header.length as usize;
        (header.index == self.expected).then_some((len, Some(header)))
    }
}

/// What stands after the last sound frame of the newest file, where more frames may begin.
#[derive(Debug, Default)]
pub(crate) struct Later {
    /// Of the sound headers of later frames, the one that says the most to have been durable, if that includes the one missing.
    pub says_durable: Option<FrameHeader>,
    /// The last place where a frame begins, or may.
    pub last: Option<u64>,
}

impl Later {
    /// Looks through a file of `bytes` bytes from a position on, where the frame `expected` should be: all of it, since what is missing may be
    /// as large as an entry may be, but not where the system knows that nothing was ever written.
    pub fn search(
        file: &dyn DiskFile,
        format: Format,
        from: u64,
        bytes: u64,
        expected: u64,
    ) -> io::Result<Later> {
        let mut later = Later::default();
        if format.salt().is_none() {
            // Of version 1 anything may look like a header, so only whole frames count. Its files ended with their last frame.
            let rest = read(file, from, bytes - from)?;
            for at in format.candidates(&rest, 0) {
                let found = frame_at(&rest, at, format).map(|(header, _)| header);
                later.note(from + at as u64, found, expected);
            }
            return Ok(later);
        }
        // Each piece begins with as much of the one before as may be the front of a header.
        let overlap = format.header_len() as u64 - 1;
        let mut piece = vec![0; RECOVERY_PIECE_BYTES];
        let mut at = from;
        while at < bytes {
            at = at.max(file.next_data(at)?.saturating_sub(overlap));
            let left = usize::try_from(bytes.saturating_sub(at)).unwrap_or(usize::MAX);
            let wanted = left.min(piece.len());
            let Some(piece) = piece.get_mut(..wanted).filter(|piece| !piece.is_empty()) else {
                break;
            };
            file.read_at(at, piece)?;
            for place in format.candidates(piece, 0) {
                let found = piece.get(place..).unwrap_or_default();
                let found = FrameHeader::decode(found, format);
                later.note(at + place as u64, found, expected);
            }
            let end = at + wanted as u64;
            at = if end < bytes { end - overlap } else { end };
        }
        Ok(later)
    }

    fn note(&mut self, at: u64, found: Option<FrameHeader>, expected: u64) {
        self.last = self.last.max(Some(at));
        let says = found.filter(|later| later.index > expected && later.durable >= expected);
        let known = self.says_durable.map(|known| known.durable);
        if let Some(says) = says.filter(|says| known.is_none_or(|known| says.durable > known)) {
            self.says_durable = Some(says);
        }
    }
}

fn read(file: &dyn DiskFile, from: u64, len: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_at(from, &mut bytes)?;
    Ok(bytes.into())
}

/// Where in the body of a frame the batches begin whose records are damaged: none, if it is sound. `None` if more is damaged than records.
pub(crate) fn damaged_in(header: &FrameHeader, body: &Bytes) -> Option<BatchesAt> {
    if header.covers(body) {
        return Some(BatchesAt::new());
    }
    if body.len() != header.length as usize {
        return None;
    }
    entry_codec::damaged_batches(body, header.structure_crc?)
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

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [Format; 3] = [Format::V1, Format::V2 { salt: 77 }, Format::V3 { salt: 77 }];

    fn frames(format: Format, bodies: &[usize]) -> (Vec<u8>, Vec<u64>) {
        let mut out = BytesMut::new();
        let mut places = Vec::new();
        for (index, len) in (5..).zip(bodies) {
            places.push(out.len() as u64);
            let body: Vec<u8> = (0..*len).map(|n| (n as u64 * index) as u8).collect();
            let header = FrameHeader {
                length: *len as u32,
                body_crc: crc32c::crc32c(&body),
                shard: 0,
                term: 1,
                index,
                durable: 0,
                stamp: 0,
                structure_crc: Some(0),
            };
            header.encode(format, &mut out);
            out.extend_from_slice(&body);
        }
        (out.to_vec(), places)
    }

    /// The indexes found, where they end, and whether more pieces were wanted.
    fn found(
        format: Format,
        bytes: &[u8],
        piece: usize,
        next: Option<u64>,
    ) -> (Vec<u64>, u64, bool) {
        let mut frames = Frames::new(format, 0, 5);
        let mut found = Vec::new();
        let mut more = true;
        for piece in bytes.chunks(piece) {
            more = frames
                .feed(Bytes::copy_from_slice(piece), next, |frame| {
                    let at = usize::try_from(frame.at).unwrap();
                    assert_eq!(frame.bytes, bytes[at..at + frame.bytes.len()]);
                    found.push(frame.header.index);
                    Ok::<bool, ()>(true)
                })
                .unwrap();
            if !more {
                break;
            }
        }
        (found, frames.at, more)
    }

    #[test]
    fn frames_are_found_in_pieces_of_any_size() {
        for format in FORMATS {
            let (bytes, places) = frames(format, &[3, 0, 100, 7, 250, 1]);
            for piece in 1..=bytes.len() {
                let whole = (vec![5, 6, 7, 8, 9, 10], bytes.len() as u64, true);
                assert_eq!(found(format, &bytes, piece, None), whole, "{piece}");
                // Up to the one that another file begins with.
                let some = (vec![5, 6], places[2], false);
                assert_eq!(found(format, &bytes, piece, Some(7)), some, "{piece}");
                // Cut off within one.
                let cut = &bytes[..bytes.len() - 1];
                let but_one = (vec![5, 6, 7, 8, 9], places[5], true);
                assert_eq!(found(format, cut, piece, None), but_one, "{piece}");
            }
        }
    }

    #[test]
    fn a_damaged_frame_ends_them_where_it_begins() {
        for format in FORMATS {
            let (bytes, places) = frames(format, &[3, 0, 100, 7]);
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1;
                let sound = places
                    .iter()
                    .rposition(|place| *place <= at as u64)
                    .unwrap();
                for piece in [1, 7, 60, bytes.len()] {
                    let (found, end, more) = found(format, &damaged, piece, None);
                    let expected: Vec<u64> = (5..5 + sound as u64).collect();
                    assert_eq!((found, end), (expected, places[sound]), "{at} {piece}");
                    // A length that is not believed is not waited for.
                    assert!(!more || at >= bytes.len() - 64, "{at} {piece}");
                }
            }
        }
    }
}
