//! The frame of an entry, and the header of a file.
//!
//! ```text
//! file:  "TLWAL\0\0\0" | version u32 = 3 | salt u64 | CRC u32
//! frame: salt u64 | length u32 | body CRC u32 | shard u32 | term u64 | index u64 | durable u64 | stamp i64 | structure CRC u32 | header CRC u32
//!        | body
//! ```
//! A file has its full size from the start and may have been another one before, so what stands after the last frame can be anything. The
//! *salt* is drawn anew each time a file is prepared: a frame belongs to its file if it begins with the file's salt. Nobody outside knows
//! it, so no body can be made to look like a frame, and it is quickly searched for.
//!
//! `durable` is the newest index that had been made durable before this frame was written. It tells a torn tail from corruption: a damaged
//! frame may be cut only if no later frame says that it was durable.
//!
//! The *structure* is the body without the records of its batches: what applying the entry needs. With it sound and the body not, only records
//! are damaged: the entry still holds, at its offsets, and the batches' own checksums say which of them cannot be read.
//!
//! Version 2 had no checksum of the structure. Version 1 had no salt either, in its place in the file header the first index, and files that ended with their last frame.

use bytes::{BufMut, BytesMut};
use memchr::memmem;

use crate::limits::MAX_ENTRY_BYTES;

/// Version of the format of WAL files.
pub(crate) const VERSION: u32 = 3;
pub(crate) const FILE_HEADER: usize = 24;
const MAGIC: &[u8; 8] = b"TLWAL\0\0\0";
/// Header of a frame of version 1.
const FIELDS: usize = 48;
/// Bytes of a salt, in front of it.
const SALT: usize = 8;
/// Bytes of the structure's checksum, within it.
const STRUCTURE: usize = 4;

/// How the frames of a file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    V1,
    V2 {
        /// See the top of this file.
        salt: u64,
    },
    V3 {
        /// See the top of this file.
        salt: u64,
    },
}

impl Format {
    /// Bytes in front of a body.
    pub const fn header_len(self) -> usize {
        match self {
            Format::V1 => FIELDS,
            Format::V2 { .. } => SALT + FIELDS,
            Format::V3 { .. } => SALT + FIELDS + STRUCTURE,
        }
    }

    /// What every frame of the file begins with.
    pub const fn salt(self) -> Option<u64> {
        match self {
            Format::V1 => None,
            Format::V2 { salt } | Format::V3 { salt } => Some(salt),
        }
    }

    /// Header and body.
    pub const fn frame_len(self, body_len: u32) -> u64 {
        self.header_len() as u64 + body_len as u64
    }

    /// Places in `bytes`, from `from` on, where a frame header may stand: all that do are among them.
    pub fn candidates(self, bytes: &[u8], from: usize) -> Vec<usize> {
        // Of version 1 there is only shard 0, term 1 that stands still, after length and body CRC.
        let (needle, at) = match self.salt() {
            None => ([&0_u32.to_le_bytes()[..], &1_u64.to_le_bytes()].concat(), 8),
            Some(salt) => (salt.to_le_bytes().to_vec(), 0),
        };
        let searched = bytes.get(from..).unwrap_or_default();
        memmem::find_iter(searched, &needle)
            .filter_map(|found| (from + found).checked_sub(at))
            .filter(|place| *place >= from)
            .collect()
    }
}

/// What stands in front of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Length of the body.
    pub length: u32,
    /// CRC-32C of the body.
    pub body_crc: u32,
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
    /// CRC-32C of the structure; `None` in files of a version without.
    pub structure_crc: Option<u32>,
}

impl FrameHeader {
    /// Adds the header to `out`.
    pub fn encode(&self, format: Format, out: &mut BytesMut) {
        let from = out.len();
        if let Some(salt) = format.salt() {
            out.put_u64_le(salt);
        }
        out.put_u32_le(self.length);
        out.put_u32_le(self.body_crc);
        out.put_u32_le(self.shard);
        out.put_u64_le(self.term);
        out.put_u64_le(self.index);
        out.put_u64_le(self.durable);
        out.put_i64_le(self.stamp);
        if let Format::V3 { .. } = format {
            out.put_u32_le(self.structure_crc.unwrap_or_default());
        }
        let crc = crc32c::crc32c(out.get(from..).unwrap_or_default());
        out.put_u32_le(crc);
    }

    /// The header at the front of `bytes`; `None` if it is not whole and sound, or of another file.
    pub fn decode(bytes: &[u8], format: Format) -> Option<FrameHeader> {
        let header = bytes.get(..format.header_len())?;
        let fields = match format.salt() {
            None => header,
            Some(salt) if u64_at(header, 0)? == salt => header.get(SALT..)?,
            Some(_) => return None,
        };
        let crc_at = header.len() - 4;
        if crc32c::crc32c(header.get(..crc_at)?) != u32_at(header, crc_at)? {
            return None;
        }
        let structure_crc = match format {
            Format::V3 { .. } => Some(u32_at(fields, FIELDS - 4)?),
            Format::V1 | Format::V2 { .. } => None,
        };
        let header = FrameHeader {
            length: u32_at(fields, 0)?,
            body_crc: u32_at(fields, 4)?,
            shard: u32_at(fields, 8)?,
            term: u64_at(fields, 12)?,
            index: u64_at(fields, 20)?,
            durable: u64_at(fields, 28)?,
            stamp: u64_at(fields, 36)?.cast_signed(),
            structure_crc,
        };
        (header.length as usize <= MAX_ENTRY_BYTES).then_some(header)
    }

    /// Whether `body` is the body of this frame.
    pub fn covers(&self, body: &[u8]) -> bool {
        body.len() == self.length as usize && crc32c::crc32c(body) == self.body_crc
    }
}

/// What a file header says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FileHeader {
    Sound(Format),
    /// Made by a version that is newer.
    Newer(u32),
    /// Not whole, or damaged, or of another name.
    Damaged,
    /// Another kind of file.
    Foreign,
}

pub(crate) fn encode_file_header(salt: u64) -> BytesMut {
    let mut out = BytesMut::with_capacity(FILE_HEADER);
    out.put_slice(MAGIC);
    out.put_u32_le(VERSION);
    out.put_u64_le(salt);
    let crc = crc32c::crc32c(&out);
    out.put_u32_le(crc);
    out
}

/// Reads the header of the file that begins with entry `first_index`. `bytes` are its first bytes; with a frame header among them the salt
/// is known from that, too.
pub(crate) fn decode_file_header(bytes: &[u8], first_index: u64) -> FileHeader {
    let (Some(magic), Some(version), Some(field), Some(crc)) = (
        bytes.get(..8),
        u32_at(bytes, 8),
        u64_at(bytes, 12),
        u32_at(bytes, 20),
    ) else {
        return FileHeader::Damaged;
    };
    // Magic and version stand still in all versions to come; the rest may change.
    if magic == MAGIC && version > VERSION {
        return FileHeader::Newer(version);
    }
    if magic == MAGIC && bytes.get(..20).map(crc32c::crc32c) == Some(crc) {
        return match version {
            VERSION => FileHeader::Sound(Format::V3 { salt: field }),
            2 => FileHeader::Sound(Format::V2 { salt: field }),
            1 if field == first_index => FileHeader::Sound(Format::V1),
            _ => FileHeader::Damaged,
        };
    }
    match format_of_first_frame(bytes, first_index) {
        Some(format) => FileHeader::Sound(format),
        // Zeros are what a torn creation leaves.
        None if magic == MAGIC || magic.iter().all(|b| *b == 0) => FileHeader::Damaged,
        None => FileHeader::Foreign,
    }
}

/// The format that the first frame is sound in, whatever the file header says.
fn format_of_first_frame(bytes: &[u8], first_index: u64) -> Option<Format> {
    let frame = bytes.get(FILE_HEADER..)?;
    formats_at(frame).find(|format| {
        FrameHeader::decode(frame, *format).is_some_and(|header| header.index == first_index)
    })
}

/// The formats that a frame which begins with `bytes` can be of, by the salt that it claims.
pub(crate) fn formats_at(bytes: &[u8]) -> impl Iterator<Item = Format> + use<> {
    let salted = u64_at(bytes, 0).map(|salt| [Format::V3 { salt }, Format::V2 { salt }]);
    salted.into_iter().flatten().chain([Format::V1])
}

/// Bytes at the front of a file that say the most about its format.
pub(crate) const PROLOGUE: usize = FILE_HEADER + SALT + FIELDS + STRUCTURE;

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
