//! Doors for `tests/fuzz`, no part of the API: what recovery reads from disk, without the disk and the checksums in front of it.
//! Each gives what was read as it is written again.

use bytes::{Bytes, BytesMut};

use crate::entry::Command;
use crate::segment::{self, Footer, TRAILER_BYTES, Trailer};
use crate::state::{FrameAt, State};
use crate::wal::frame::{Format, FrameHeader};
use crate::{entry_codec, snapshot};

/// The header at the front of a frame of the WAL.
pub fn frame_header(bytes: &[u8]) -> Option<Bytes> {
    // Of any file: the salt of the file that it says it belongs to.
    let salt = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let format = Format::V3 { salt };
    let header = FrameHeader::decode(bytes, format)?;
    let mut out = BytesMut::new();
    header.encode(format, &mut out);
    Some(out.freeze())
}

/// The body of a frame.
pub fn entry(body: Bytes) -> Option<Bytes> {
    let (commands, _) = entry_codec::decode(body.clone()).ok()?;
    let encoded = entry_codec::encode(&commands);
    // As if the checksum of the body did not hold.
    if let Some(damaged) = entry_codec::damaged_batches(&body, encoded.structure_crc) {
        assert!(!damaged.is_empty() && damaged.len() <= commands.len());
    }
    let mut out = BytesMut::new();
    for (range, batch) in encoded.cut(&commands) {
        out.extend_from_slice(encoded.rest.get(range)?);
        if let Some(batch) = batch {
            out.extend_from_slice(batch.bytes());
        }
    }
    Some(out.freeze())
}

/// The body of a checkpoint.
pub fn checkpoint(body: Bytes) -> Option<Bytes> {
    let state = State::new(0);
    let head = snapshot::decode(body, crate::checkpoint::VERSION, &state).ok()?;
    let snapshot = snapshot::take(&state, head, bytes::BytesMut::new());
    Some(snapshot.encode().into_iter().flatten().collect())
}

/// A whole segment, from its trailer on; checksums are taken for right. Looks into all of its chunks.
pub fn segment(object: Bytes) -> Option<Bytes> {
    let size = object.len() as u64;
    let end = object.len().checked_sub(TRAILER_BYTES)?;
    let trailer = Trailer::decode(&object[end..], size).ok()?;
    let at = trailer.footer_at(size).ok()?;
    let data = object.slice(..usize::try_from(at).ok()?);
    let bytes = object.slice(data.len()..end);
    let crc = crc32c::crc32c(&bytes);
    let footer = Footer::decode(bytes, crc, at).ok()?;
    for chunk in footer.parts.iter().flat_map(|part| &part.chunks) {
        let range = chunk.range();
        let bytes =
            data.slice(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?);
        if let Ok(batches) = segment::batches(&bytes) {
            let read: usize = batches.iter().map(record::Batch::len).sum();
            assert_eq!(read, bytes.len());
        }
    }
    let footer = footer.encode();
    let trailer = Trailer {
        footer_bytes: crate::codec::len_u32(footer.len()),
        footer_crc: crc32c::crc32c(&footer),
    };
    Some([data, footer, trailer.encode()].concat().into())
}

/// A valid checkpoint, to begin with: a bit of everything.
pub fn example_checkpoint(batch: record::Batch) -> Bytes {
    let state = State::new(0);
    let log = uuid::Uuid::from_u128(7);
    let partition = crate::StreamId(1).partition(0);
    let part = crate::SegmentPart {
        partition,
        base_offset: 0,
        next_offset: batch.next_offset(),
        max_timestamp: 5,
        bytes: 100,
        first_index: 1,
        compacted: crate::segment::Compacted::Never,
    };
    let meta = crate::SegmentMeta {
        id: crate::SegmentId::new(1, 1),
        bytes: 200,
        footer_bytes: 20,
        footer_crc: 1,
        parts: vec![part],
    };
    let (Ok(namespace), Ok(name)) = (
        record::Namespace::new("default"),
        record::StreamName::new("orders"),
    ) else {
        return Bytes::new();
    };
    let append = || Command::Append {
        partition,
        batch: batch.clone(),
        rule: crate::SequenceRule::Window,
    };
    let commands = vec![
        Command::CreateStream {
            address: record::StreamAddress::new(namespace, name),
            uuid: log,
            partitions: 2,
            config: [("retention.ms".to_owned(), "900".to_owned())].into(),
        },
        Command::TablePut {
            table: "table".into(),
            key: Bytes::from_static(b"key"),
            value: Bytes::from_static(b"value"),
        },
        Command::CursorCommit {
            group: "group".into(),
            positions: vec![crate::CursorPosition {
                partition,
                offset: 12,
                metadata: Bytes::from_static(b"note"),
                committed_at: 0,
            }],
        },
        Command::QueueSources {
            queue: "queue".into(),
            sources: vec![(partition, 1)],
        },
        Command::ColdClaim {
            log,
            epoch: 1,
            nonce: log,
        },
    ];
    for (index, commands) in (1..).zip([
        commands,
        vec![append()],
        vec![Command::SegmentSealed { segment: meta }],
        vec![append()],
    ]) {
        let at = FrameAt {
            index,
            frame_at: 100,
            body_len: 400,
            stamp: 1000,
            volatile: false,
            in_tail: true,
        };
        state.apply(at, commands, &[50]);
    }
    let head = snapshot::SnapshotHead {
        index: 4,
        stamp: 1000,
        ..Default::default()
    };
    let snapshot = snapshot::take(&state, head, bytes::BytesMut::new());
    snapshot.encode().into_iter().flatten().collect()
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
