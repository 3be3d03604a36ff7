//! Doors for `tests/fuzz`, no part of the API: what recovery reads from disk, without the disk and the checksums in front of it.
//! Each gives what was read as it is written again.

use bytes::{Bytes, BytesMut};

use crate::segment::{self, Footer, TRAILER_BYTES, Trailer};
use crate::state::State;
use crate::wal::frame::{Format, FrameHeader};
use crate::{entry_codec, snapshot};

/// The header at the front of a frame of the WAL.
pub fn frame_header(bytes: &[u8]) -> Option<Bytes> {
    // Of any file: the salt of the file that it says it belongs to.
    let salt = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let format = Format::V2 { salt };
    let header = FrameHeader::decode(bytes, format)?;
    let mut out = BytesMut::new();
    header.encode(format, &mut out);
    Some(out.freeze())
}

/// The body of a frame.
pub fn entry(body: Bytes) -> Option<Bytes> {
    let (commands, _) = entry_codec::decode(body).ok()?;
    Some(
        entry_codec::encode(&commands)
            .parts
            .into_iter()
            .flatten()
            .collect(),
    )
}

/// The body of a checkpoint.
pub fn checkpoint(body: Bytes) -> Option<Bytes> {
    let state = State::new(0);
    let head = snapshot::decode(body, crate::checkpoint::VERSION, &state).ok()?;
    let snapshot = snapshot::take(&state, head);
    Some(snapshot.encode().into_iter().flatten().collect())
}

/// A whole segment, from its trailer on; checksums are taken for right. Gives its footer and what of its chunks is batches.
pub fn segment(object: Bytes) -> Option<Bytes> {
    let size = object.len() as u64;
    let end = object.len().checked_sub(TRAILER_BYTES)?;
    let trailer = Trailer::decode(&object[end..], size).ok()?;
    let at = trailer.footer_at(size).ok()?;
    let bytes = object.slice(usize::try_from(at).ok()?..end);
    let crc = crc32c::crc32c(&bytes);
    let footer = Footer::decode(bytes.clone(), crc, at).ok()?;
    for chunk in footer.parts.iter().flat_map(|part| &part.chunks) {
        let range = chunk.range();
        let bytes =
            object.slice(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?);
        if let Ok(batches) = segment::batches(&bytes) {
            assert_eq!(
                batches.iter().map(record::Batch::len).sum::<usize>(),
                bytes.len()
            );
        }
    }
    Some(bytes)
}

/// A valid segment, to begin with: a part for each batch.
pub fn example_segment(batches: &[record::Batch]) -> Bytes {
    let log = uuid::Uuid::nil();
    let mut writer = segment::SegmentWriter::new(crate::SegmentId::new(1, 1), log);
    for (partition, batch) in (0..).zip(batches) {
        let Ok(name) = record::StreamName::new("s") else {
            continue;
        };
        writer.begin_part(segment::PartHead {
            partition: crate::StreamId(1).partition(partition),
            uuid: log,
            address: record::StreamAddress::new(record::Namespace::default(), name),
            base_offset: batch.base_offset(),
            first_index: 1,
        });
        writer.push(batch);
        writer.end_part(batch.next_offset(), Vec::new());
    }
    writer.finish().0.concat().into()
}
