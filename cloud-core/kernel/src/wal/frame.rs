//! The frame of an entry, and the header of a file.
//!
//! ```text
//! frame: length u32 | body CRC u32 | shard u32 | term u64 | index u64 | durable u64 | stamp i64 | header CRC u32 | body
//! file:  "TLWAL\0\0\0" | version u32 | first index u64 | CRC u32
//! ```
//! `durable` is the newest index that had been made durable before this frame was written. It tells a torn tail from corruption: a damaged
//! frame may be cut only if no later frame says that it was durable.

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::MAX_ENTRY_BYTES;

/// Version of the format of WAL files.
pub(crate) const VERSION: u32 = 1;
pub(crate) const FILE_HEADER: usize = 24;
pub(crate) const FRAME_HEADER: usize = 48;
const MAGIC: &[u8; 8] = b"TLWAL\0\0\0";

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
}

impl FrameHeader {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(FRAME_HEADER);
        out.put_u32_le(self.length);
        out.put_u32_le(self.body_crc);
        out.put_u32_le(self.shard);
        out.put_u64_le(self.term);
        out.put_u64_le(self.index);
        out.put_u64_le(self.durable);
        out.put_i64_le(self.stamp);
        let crc = crc32c::crc32c(&out);
        out.put_u32_le(crc);
        out.freeze()
    }

    /// The header at the front of `bytes`; `None` if it is not whole and sound.
    pub fn decode(bytes: &[u8]) -> Option<FrameHeader> {
        let header: &[u8; FRAME_HEADER] = bytes.get(..FRAME_HEADER)?.try_into().ok()?;
        if crc32c::crc32c(header.get(..44)?) != u32_at(header, 44)? {
            return None;
        }
        let header = FrameHeader {
            length: u32_at(header, 0)?,
            body_crc: u32_at(header, 4)?,
            shard: u32_at(header, 8)?,
            term: u64_at(header, 12)?,
            index: u64_at(header, 20)?,
            durable: u64_at(header, 28)?,
            stamp: u64_at(header, 36)?.cast_signed(),
        };
        (header.length as usize <= MAX_ENTRY_BYTES).then_some(header)
    }

    /// Whether `body` is the body of this frame.
    pub fn covers(&self, body: &[u8]) -> bool {
        body.len() == self.length as usize && crc32c::crc32c(body) == self.body_crc
    }

    /// Header and body.
    pub fn frame_len(&self) -> u64 {
        FRAME_HEADER as u64 + u64::from(self.length)
    }
}

/// What a file header says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FileHeader {
    /// First index of the file.
    Sound(u64),
    /// Made by a version that is newer.
    Newer(u32),
    /// Not whole, or damaged.
    Damaged,
    /// Another kind of file.
    Foreign,
}

pub(crate) fn encode_file_header(first_index: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(FILE_HEADER);
    out.put_slice(MAGIC);
    out.put_u32_le(VERSION);
    out.put_u64_le(first_index);
    let crc = crc32c::crc32c(&out);
    out.put_u32_le(crc);
    out.freeze()
}

pub(crate) fn decode_file_header(bytes: &[u8]) -> FileHeader {
    let (Some(magic), Some(version), Some(first), Some(crc)) = (
        bytes.get(..8),
        u32_at(bytes, 8),
        u64_at(bytes, 12),
        u32_at(bytes, 20),
    ) else {
        return FileHeader::Damaged;
    };
    if magic != MAGIC {
        // Zeros are what a torn creation leaves.
        return if magic.iter().all(|b| *b == 0) {
            FileHeader::Damaged
        } else {
            FileHeader::Foreign
        };
    }
    // Magic and version stand still in all versions to come; the rest may change.
    if version > VERSION {
        return FileHeader::Newer(version);
    }
    match bytes.get(..20).map(crc32c::crc32c) {
        Some(computed) if computed == crc => FileHeader::Sound(first),
        _ => FileHeader::Damaged,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
