//! A WAL file, frame by frame. Damage does not end it: what is sound behind it is shown, too.

use bytes::Bytes;

use super::InspectError;
use crate::entry::Command;
use crate::entry_codec;
use crate::wal::frame::{
    FILE_HEADER, FileHeader, Format, FrameHeader, VERSION, decode_file_header, formats_at,
};
use crate::wal::scan::{damaged_in, frame_at};

/// The bytes of one WAL file, read from the front.
#[derive(Debug)]
pub struct WalFile {
    bytes: Bytes,
    format: Format,
    first_index: u64,
    /// First index of the file that follows, if there is one.
    next_file: Option<u64>,
    at: usize,
    expected: u64,
    ended: bool,
}

/// What stands at a place of the file.
#[derive(Debug)]
pub enum WalItem {
    /// A frame; of a sound entry, or of one of which only records are damaged.
    Frame(WalFrame),
    /// Bytes that had been made durable, and are damaged.
    Damage(WalDamage),
    /// The end of what was written: always the last item.
    End {
        /// Position of the end in the file.
        at: u64,
        /// Bytes after it.
        bytes: u64,
        /// What they are.
        rest: WalRest,
    },
}

/// One frame: an entry.
#[derive(Debug)]
pub struct WalFrame {
    /// Position in the file.
    pub at: u64,
    /// Bytes, header included.
    pub bytes: u64,
    /// Bytes after the header.
    pub body_len: u32,
    /// Which replicated log the entry belongs to.
    pub shard: u32,
    /// Term of the leader that made it.
    pub term: u64,
    /// Its place in the log, from 1.
    pub index: u64,
    /// Newest index durable when it was written.
    pub durable: u64,
    /// The leader's clock, milliseconds since the epoch.
    pub stamp: i64,
    /// What it says, and where in the body the batches of the appends begin; an error when its checksum holds and its content is none of
    /// this version.
    pub commands: Result<(Vec<Command>, Vec<u32>), String>,
    /// Of the places of batches in the body those where records are damaged; none in a sound frame.
    pub damaged: Vec<u32>,
}

/// A damaged place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalDamage {
    /// Where it begins in the file.
    pub at: u64,
    /// Where the next sound frame begins, or the end of the file.
    pub until: u64,
    /// First index that is lost with it.
    pub first_index: u64,
    /// Last index that is lost with it.
    pub last_index: u64,
    /// What is wrong.
    pub reason: String,
}

/// What stands after the end of what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalRest {
    /// Nothing.
    Nothing,
    /// Zeros: room that was reserved and never written.
    Unwritten,
    /// Frames of an earlier use of the file, which is recycled: they were durable once, and are not of the log any more.
    Recycled {
        /// First index of those found.
        first_index: u64,
        /// Last index of those found.
        last_index: u64,
    },
    /// An unfinished write of this index: nobody was told that it is durable. The next start cuts it off.
    Unfinished {
        /// Index of the entry.
        index: u64,
    },
    /// Neither zeros nor frames: an unfinished write, or what is left of an earlier use of the file.
    Unknown,
}

impl WalFile {
    /// Reads the header. `first_index` is what the name of the file says (none: what the first frame says), `next_file` the first index of
    /// the file that follows (see [`super::wal_file_after`]): a file that has one must hold every entry up to it.
    pub fn open(
        bytes: Bytes,
        first_index: Option<u64>,
        next_file: Option<u64>,
    ) -> Result<WalFile, InspectError> {
        let first_index = first_index.or_else(|| first_index_in(&bytes)).unwrap_or(0);
        match decode_file_header(&bytes, first_index) {
            FileHeader::Sound(format) => Ok(WalFile {
                bytes,
                format,
                first_index,
                next_file,
                at: FILE_HEADER,
                expected: first_index,
                ended: false,
            }),
            FileHeader::Newer(found) => Err(InspectError::NewerVersion {
                found,
                supported: VERSION,
            }),
            FileHeader::Damaged => Err(InspectError::Damaged("the file header")),
            FileHeader::Foreign => Err(InspectError::Foreign("a WAL file")),
        }
    }

    /// First index of the file.
    pub fn first_index(&self) -> u64 {
        self.first_index
    }

    /// Version of its format.
    pub fn version(&self) -> u32 {
        match self.format {
            Format::V1 => 1,
            Format::V2 { .. } => 2,
            Format::V3 { .. } => 3,
        }
    }

    fn frame(&mut self, header: &FrameHeader, body: Bytes, damaged: Vec<u32>) -> WalItem {
        let at = self.at as u64;
        let bytes = self.format.frame_len(header.length);
        self.at += self.format.header_len() + header.length as usize;
        self.expected = header.index + 1;
        WalItem::Frame(WalFrame {
            at,
            bytes,
            body_len: header.length,
            shard: header.shard,
            term: header.term,
            index: header.index,
            durable: header.durable,
            stamp: header.stamp,
            commands: entry_codec::decode(body)
                .map(|(commands, batches_at)| (commands, batches_at.into_vec()))
                .map_err(|e| e.to_string()),
            damaged,
        })
    }

    /// The frame at a place of which at most records are damaged, and where.
    fn readable_at(&self, place: usize) -> Option<(FrameHeader, Bytes, Vec<u32>)> {
        let header = FrameHeader::decode(self.bytes.get(place..)?, self.format)?;
        let from = place + self.format.header_len();
        let to = from.checked_add(header.length as usize)?;
        let body = (to <= self.bytes.len()).then(|| self.bytes.slice(from..to))?;
        let damaged = damaged_in(&header, &body)?;
        Some((header, body, damaged.into_vec()))
    }

    /// At a place where the next frame is not: damage, or the end.
    fn break_or_end(&mut self) -> WalItem {
        let (at, index) = (self.at, self.expected);
        let candidates = self.format.candidates(&self.bytes, at);
        let left = self.bytes.get(at..).unwrap_or_default();
        if self.next_file == Some(index) {
            return self.end(left.len(), WalRest::Nothing);
        }
        let mut was_durable = self.next_file.is_some_and(|next| next > index);
        let mut resume = None;
        let mut begun = false;
        for place in candidates {
            let after = self.bytes.get(place..).unwrap_or_default();
            let header = FrameHeader::decode(after, self.format);
            // In version 1, what stands in a body may look like a header.
            let whole = frame_at(&self.bytes, place, self.format).map(|(header, _)| header);
            let salted = self.format.salt().is_some();
            let counts = if salted { header } else { whole };
            if let Some(later) = counts.filter(|later| later.index > index)
                && resume.is_none()
                && self.readable_at(place).is_some()
            {
                resume = Some((place, later.index));
            }
            was_durable |=
                counts.is_some_and(|later| later.index > index && later.durable >= index);
            begun |= salted || header.is_some_and(|h| h.index >= index);
        }
        if was_durable {
            // With its structure sound it is an entry all the same.
            if let Some((header, body, damaged)) = self.readable_at(at)
                && header.index == index
            {
                return self.frame(&header, body, damaged);
            }
            let reason = self.reason();
            let (until, next_index) = resume.unwrap_or_else(|| {
                let next = self.next_file.filter(|next| *next > index);
                (self.bytes.len(), next.unwrap_or(index + 1))
            });
            self.at = until;
            self.expected = next_index;
            return WalItem::Damage(WalDamage {
                at: at as u64,
                until: until as u64,
                first_index: index,
                last_index: next_index - 1,
                reason,
            });
        }
        let rest = if left.is_empty() {
            WalRest::Nothing
        } else if left.iter().all(|byte| *byte == 0) {
            WalRest::Unwritten
        } else if begun || self.format == Format::V1 {
            WalRest::Unfinished { index }
        } else {
            older(left, self.first_index)
        };
        self.end(left.len(), rest)
    }

    fn end(&mut self, bytes: usize, rest: WalRest) -> WalItem {
        self.ended = true;
        WalItem::End {
            at: self.at as u64,
            bytes: bytes as u64,
            rest,
        }
    }

    fn reason(&self) -> String {
        let left = self.bytes.get(self.at..).unwrap_or_default();
        match FrameHeader::decode(left, self.format) {
            _ if left.is_empty() => "the file ends early".to_owned(),
            None => "the frame header is damaged".to_owned(),
            Some(header) if header.index != self.expected => format!(
                "entry {} stands where entry {} should",
                header.index, self.expected
            ),
            Some(header) if left.len() < self.format.header_len() + header.length as usize => {
                "the file ends before the frame does".to_owned()
            }
            Some(_) => "the checksum of the body does not match".to_owned(),
        }
    }
}

impl Iterator for WalFile {
    type Item = WalItem;

    fn next(&mut self) -> Option<WalItem> {
        if self.ended {
            return None;
        }
        match frame_at(&self.bytes, self.at, self.format) {
            Some((header, body)) if header.index == self.expected => {
                Some(self.frame(&header, body, Vec::new()))
            }
            _ => Some(self.break_or_end()),
        }
    }
}

/// First index of a file, by its first frame, or, where that is damaged, the first sound one after it.
fn first_index_in(bytes: &Bytes) -> Option<u64> {
    let frame = bytes.get(FILE_HEADER..)?;
    let mut found = formats_at(frame).filter_map(|format| FrameHeader::decode(frame, format));
    if let Some(header) = found.next() {
        return Some(header.index);
    }
    let FileHeader::Sound(format) = decode_file_header(bytes, 0) else {
        return None;
    };
    let places = format.candidates(bytes, FILE_HEADER);
    let mut later = places
        .into_iter()
        .filter_map(|place| frame_at(bytes, place, format));
    later
        .next()
        .map(|(header, _)| header.index.saturating_sub(1))
}

/// What stands in a recycled file after its end: frames with the salts of earlier uses.
fn older(left: &[u8], first_index: u64) -> WalRest {
    let mut found: Option<(u64, u64)> = None;
    // Behind the salt, a frame is what it was in version 1.
    for fields in Format::V1.candidates(left, 0) {
        let old = fields.checked_sub(8).and_then(|at| left.get(at..));
        let header = old.and_then(|old| {
            let mut salted = formats_at(old).filter(|format| format.salt().is_some());
            salted.find_map(|format| FrameHeader::decode(old, format))
        });
        if let Some(header) = header.filter(|header| header.index < first_index) {
            let (first, last) = found.unwrap_or((header.index, header.index));
            found = Some((first.min(header.index), last.max(header.index)));
        }
    }
    match found {
        Some((first_index, last_index)) => WalRest::Recycled {
            first_index,
            last_index,
        },
        None => WalRest::Unknown,
    }
}
