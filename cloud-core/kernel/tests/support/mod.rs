//! WAL files as bytes: where their frames are, and how earlier versions of the format wrote them.
#![allow(dead_code)]

use std::ops::Range;

pub const FILE_HEADER: usize = 24;
/// Salt, then the fields that version 1 has, too, with the checksum of the structure at their end.
pub const FRAME_HEADER: usize = 60;
/// Of the frame of a single append, what stands before its records: its header, the command, and the header of the batch.
pub const BEFORE_RECORDS: usize = FRAME_HEADER + 4 + 18 + 61;

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

/// Salt and fields of a frame, without the checksums of the structure and of the header.
fn salt_and_fields<'a>(file: &'a [u8], frame: &Range<usize>) -> &'a [u8] {
    &file[frame.start..frame.start + FRAME_HEADER - 8]
}

fn put_with_crc(out: &mut Vec<u8>, header: &[u8]) {
    out.extend(header);
    out.extend(crc32c::crc32c(header).to_le_bytes());
}

/// The same frames in a file of version 2, of the same size.
pub fn as_version_2(file: &[u8]) -> Vec<u8> {
    let mut header = file[..20].to_vec();
    header[8..12].copy_from_slice(&2_u32.to_le_bytes());
    let mut out = Vec::new();
    put_with_crc(&mut out, &header);
    for frame in frames(file) {
        put_with_crc(&mut out, salt_and_fields(file, &frame));
        out.extend(&file[frame.start + FRAME_HEADER..frame.end]);
    }
    out.resize(file.len(), 0);
    out
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
        put_with_crc(&mut out, &salt_and_fields(file, &frame)[8..]);
        out.extend(&file[frame.start + FRAME_HEADER..frame.end]);
    }
    out
}
