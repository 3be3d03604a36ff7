//! WAL files as bytes: where their frames are, and how the first version of the format wrote them.
#![allow(dead_code)]

use std::ops::Range;

pub const FILE_HEADER: usize = 24;
/// Salt, then the fields that version 1 has, too.
pub const FRAME_HEADER: usize = 56;

/// Where the frames of a file are, one after another.
pub fn frames(file: &[u8]) -> Vec<Range<usize>> {
    let salt = &file[12..20];
    let mut frames = Vec::new();
    let mut at = FILE_HEADER;
    while file[at..].starts_with(salt) {
        let length = u32::from_le_bytes(file[at + 8..at + 12].try_into().unwrap());
        let end = at + FRAME_HEADER + length as usize;
        frames.push(at..end);
        at = end;
    }
    frames
}

/// Index of the frame that begins at `at`.
pub fn index_at(file: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(file[at + 28..at + 36].try_into().unwrap())
}

/// The same frames in a file of version 1, which ends with them.
pub fn as_version_1(file: &[u8]) -> Vec<u8> {
    let frames = frames(file);
    let first = frames
        .first()
        .map_or(1, |frame| index_at(file, frame.start));
    let mut out = b"TLWAL\0\0\0".to_vec();
    out.extend(1_u32.to_le_bytes());
    out.extend(first.to_le_bytes());
    out.extend(crc32c::crc32c(&out).to_le_bytes());
    for frame in frames {
        let fields = &file[frame.start + 8..frame.start + FRAME_HEADER - 4];
        out.extend(fields);
        out.extend(crc32c::crc32c(fields).to_le_bytes());
        out.extend(&file[frame.start + FRAME_HEADER..frame.end]);
    }
    out
}
