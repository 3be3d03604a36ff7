use bytes::Bytes;
use record::{Batch, BatchBuilder, Namespace, NewRecord, StreamAddress, StreamName};

use super::*;
use crate::kernel::AbortedTransaction;
use crate::stream::StreamId;

fn batch(offset: i64, timestamp: i64, size: usize) -> Batch {
    let mut builder = BatchBuilder::new();
    builder
        .push(&NewRecord {
            timestamp,
            key: None,
            value: Some(vec![7; size].into()),
            headers: Vec::new(),
        })
        .unwrap();
    builder.build().unwrap().into_patched(offset, 0)
}

fn head(stream: u64, partition: u32, base_offset: i64) -> PartHead {
    PartHead {
        partition: StreamId(stream).partition(partition),
        uuid: Uuid::from_u128(u128::from(stream)),
        address: StreamAddress::new(
            Namespace::default(),
            StreamName::new(&format!("s{stream}")).unwrap(),
        ),
        base_offset,
        first_index: 9,
    }
}

const LOG: Uuid = Uuid::from_u128(77);

/// Two partitions; the second has a part with several chunks and a loss.
fn example() -> (Bytes, SegmentMeta, Vec<Batch>) {
    let mut writer = SegmentWriter::new(SegmentId::new(3, 5), LOG);
    let mut all = Vec::new();
    writer.begin_part(head(1, 0, 10));
    for offset in 10..13 {
        let batch = batch(offset, 1000 + offset, 100);
        writer.push(&batch);
        all.push(batch);
    }
    writer.end_part(15, Vec::new());
    writer.begin_part(head(1, 1, 0));
    writer.end_part(4, Vec::new());
    writer.begin_part(head(2, 0, 0));
    for offset in 0..4 {
        let batch = batch(offset, 500, 300_000);
        writer.push(&batch);
        all.push(batch);
    }
    writer.push_lost(4, 6);
    let last = batch(7, -1, 1_000_000);
    writer.push(&last);
    all.push(last);
    let aborted = AbortedTransaction {
        producer_id: 8,
        first_offset: 1,
        last_offset: 3,
    };
    writer.end_part(8, vec![aborted]);
    let (parts, meta) = writer.finish();
    (parts.concat().into(), meta, all)
}

fn footer_of(object: &Bytes) -> Result<Footer, SegmentError> {
    let size = object.len() as u64;
    let trailer = Trailer::decode(&object[object.len() - TRAILER_BYTES..], size)?;
    let at = trailer.footer_at(size)?;
    let footer = object.slice(at as usize..object.len() - TRAILER_BYTES);
    Footer::decode(footer, trailer.footer_crc, at)
}

#[test]
fn a_segment_describes_itself() {
    let (object, meta, all) = example();
    check_header(&object[..HEADER_BYTES]).unwrap();
    let footer = footer_of(&object).unwrap();
    assert_eq!((footer.id, footer.log), (meta.id, LOG));
    assert_eq!(meta.bytes, object.len() as u64);
    let summaries: Vec<_> = footer.parts.iter().map(FooterPart::summary).collect();
    assert_eq!(summaries, meta.parts);
    // The part without batches is left out, and a part may cover more than its batches do.
    assert_eq!(footer.parts.len(), 2);
    assert_eq!(
        (footer.parts[0].base_offset, footer.parts[0].next_offset),
        (10, 15)
    );
    assert_eq!(footer.parts[0].max_timestamp, 1012);
    let chunks = &footer.parts[1].chunks;
    assert_eq!(
        chunks.iter().map(|c| c.base_offset).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4, 7]
    );
    assert!(chunks[4].is_lost());
    let mut read = Vec::new();
    for chunk in footer.parts.iter().flat_map(|p| &p.chunks) {
        let bytes = object.slice(chunk.position as usize..chunk.range().end as usize);
        chunk.verify(&bytes).unwrap();
        read.extend(batches(&bytes).unwrap());
    }
    assert_eq!(read, all);
    let part = footer.part_with(StreamId(2).partition(0), 5).unwrap();
    assert_eq!(
        (part.chunk_with(5), part.chunk_end(4), part.chunk_end(5)),
        (4, 7, 8)
    );
    assert!(footer.part_with(StreamId(2).partition(0), 8).is_none());
    assert!(footer.part_with(StreamId(1).partition(1), 0).is_none());
}

#[test]
fn a_changed_byte_is_noticed() {
    let (object, _, _) = example();
    let sound = footer_of(&object).unwrap();
    let ends = (0..64).chain(object.len() - 600..object.len());
    for at in ends.chain((0..object.len()).step_by(100_003)) {
        let mut damaged = object.to_vec();
        damaged[at] ^= 0x10;
        let damaged = Bytes::from(damaged);
        let header = check_header(&damaged[..HEADER_BYTES]);
        let Ok(footer) = footer_of(&damaged) else {
            continue;
        };
        let mut chunks = footer.parts.iter().flat_map(|p| &p.chunks);
        let data = chunks.try_for_each(|chunk| {
            chunk.verify(&damaged[chunk.position as usize..chunk.range().end as usize])
        });
        // The reserved fields of header and trailer mean nothing.
        let reserved = (12..16).contains(&at) || (8..12).contains(&(object.len() - 1 - at));
        assert!(header.is_err() || data.is_err() || reserved, "byte {at}");
        assert!(footer == sound, "byte {at}");
    }
}

#[test]
fn lengths_that_cannot_be_are_refused_before_anything_is_allocated() {
    let (object, _, _) = example();
    let size = object.len() as u64;
    let mut trailer = object[object.len() - TRAILER_BYTES..].to_vec();
    trailer[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        Trailer::decode(&trailer, size),
        Err(SegmentError::Malformed(_))
    ));
    trailer[..4].copy_from_slice(&(size as u32).to_le_bytes());
    assert!(matches!(
        Trailer::decode(&trailer, size),
        Err(SegmentError::Malformed(_))
    ));
    let mut footer = vec![0; 24];
    footer.extend_from_slice(&u32::MAX.to_le_bytes());
    let crc = crc32c::crc32c(&footer);
    assert!(matches!(
        Footer::decode(footer.into(), crc, 16),
        Err(SegmentError::Malformed(_))
    ));
    assert!(matches!(
        batches(&Bytes::from(vec![0xff; 64])),
        Err(SegmentError::Malformed(_))
    ));
}

#[test]
fn the_key_says_which_segment_it_is() {
    let id = SegmentId::new(2, 0x1f);
    let key = id.key(LOG);
    assert!(key.ends_with("/segments/000000020000001f.segment"));
    assert_eq!(SegmentId::of_key(LOG, &key), Some(id));
    assert_eq!(id.epoch(), 2);
    for other in [
        key.replace(".segment", ".tmp"),
        key.replace("0000", "+000"),
        format!("x{key}"),
    ] {
        assert_eq!(SegmentId::of_key(LOG, &other), None);
    }
}
