//! What a batch promises: records come back as they went in, damage is noticed, hostile bytes are an error.
//! A failing case prints what replays it; `PROPTEST_RNG_SEED` replays a whole run.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use record::{
    Batch, BatchBuilder, BatchError, BuildError, Compression, Envelope, HEADER_LEN, Header, Native,
    NewRecord, Protocol, Record, Retained, TimestampType, limits, strip_reserved,
};

fn some_bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        3 => vec(any::<u8>(), 0..40).prop_map(Bytes::from),
        1 => (any::<u8>(), 0..5000usize).prop_map(|(byte, len)| Bytes::from(vec![byte; len])),
    ]
}

fn some_header() -> impl Strategy<Value = Header> {
    let name = prop_oneof![
        4 => "[a-z-]{0,12}",
        1 => Just("_tl.mqtt".to_owned()),
        1 => Just("content-type".to_owned()),
    ];
    (name, proptest::option::of(some_bytes())).prop_map(|(name, value)| Header {
        name: Bytes::from(name),
        value,
    })
}

fn some_record() -> impl Strategy<Value = NewRecord> {
    (
        0..4_000_000_000_000i64,
        proptest::option::of(some_bytes()),
        proptest::option::of(some_bytes()),
        vec(some_header(), 0..4),
    )
        .prop_map(|(timestamp, key, value, headers)| NewRecord {
            timestamp,
            key,
            value,
            headers,
        })
}

fn written_codec() -> impl Strategy<Value = Compression> {
    prop_oneof![
        Just(Compression::None),
        Just(Compression::Lz4),
        Just(Compression::Zstd)
    ]
}

fn build(builder: BatchBuilder, records: &[NewRecord]) -> Batch {
    let mut builder = builder;
    for record in records {
        builder.push(record).unwrap();
    }
    builder.build().unwrap()
}

fn read(batch: &Batch) -> Vec<Record> {
    batch.records().unwrap().collect::<Result<_, _>>().unwrap()
}

/// Reads all there is to read, as a server does with bytes from the network.
fn exercise(bytes: Bytes) {
    let mut rest = bytes.clone();
    let _ = Batch::split_first(&mut rest);
    let _ = Batch::parse(bytes.clone());
    if let Ok(batch) = Batch::from_trusted(bytes) {
        if let Ok(records) = batch.records() {
            for record in records.flatten() {
                let _ = Envelope::from_record(&record).into_record();
            }
        }
        let _ = batch.check_records();
        let _ = strip_reserved(&batch);
        let _ = batch.last_sequence();
    }
}

proptest! {
    #[test]
    fn records_come_back(
        records in vec(some_record(), 1..20),
        codec in written_codec(),
        offset in 0..i64::MAX - 100,
        epoch: i32,
        sequence in 0..=i32::MAX,
    ) {
        let batch = build(BatchBuilder::new().compression(codec).producer(7, 2, sequence), &records);
        let batch = Batch::parse(batch.patched(offset, epoch).into_bytes()).unwrap();
        batch.check_records().unwrap();
        prop_assert_eq!((batch.base_offset(), batch.leader_epoch()), (offset, epoch));
        prop_assert_eq!((batch.producer_id(), batch.producer_epoch(), batch.base_sequence()), (7, 2, sequence));
        prop_assert_eq!(batch.next_offset(), offset + records.len() as i64);
        prop_assert_eq!(batch.max_timestamp(), records.iter().map(|record| record.timestamp).max().unwrap());
        let back = read(&batch);
        prop_assert_eq!(back.len(), records.len());
        for (place, (back, record)) in back.into_iter().zip(&records).enumerate() {
            prop_assert_eq!(back.offset, offset + place as i64);
            prop_assert_eq!(&NewRecord::from(back), record);
        }
    }

    #[test]
    fn what_is_not_wanted_is_passed_over(
        records in vec(some_record(), 1..20),
        codec in written_codec(),
        offset in 0..i64::MAX - 100,
        from in 0..20i64,
    ) {
        let batch = build(BatchBuilder::new().compression(codec), &records).patched(offset, 0);
        let wanted = |at: i64, key: Option<&[u8]>| at - offset >= from && key.is_none_or(|key| key.len() % 2 == 0);
        let mut all = batch.records().unwrap();
        let (mut found, mut passed) = (Vec::new(), 0);
        while let Some(record) = all.next_if(wanted) {
            match record.unwrap() {
                Some(record) => found.push(record),
                None => passed += 1,
            }
        }
        prop_assert_eq!(found.len() + passed, records.len());
        let mut expected = read(&batch);
        expected.retain(|record| wanted(record.offset, record.key.as_deref()));
        prop_assert_eq!(found, expected);
        prop_assert!(all.next().is_none());
    }

    /// The checksum covers everything from the attributes on.
    #[test]
    fn a_flipped_bit_is_noticed(records in vec(some_record(), 1..4), codec in written_codec(), place: prop::sample::Index, bit in 0..8u8) {
        let good = build(BatchBuilder::new().compression(codec), &records).into_bytes();
        let at = 16 + place.index(good.len() - 16);
        let mut bad = BytesMut::from(&good[..]);
        bad[at] ^= 1 << bit;
        prop_assert!(Batch::parse(bad.freeze()).is_err());
    }

    #[test]
    fn a_cut_batch_is_refused(records in vec(some_record(), 1..4), place: prop::sample::Index) {
        let good = build(BatchBuilder::new(), &records).into_bytes();
        let mut cut = good.slice(..place.index(good.len()));
        let before = cut.clone();
        prop_assert!(Batch::split_first(&mut cut).is_err());
        prop_assert_eq!(&cut, &before);
        prop_assert!(Batch::parse(cut).is_err());
    }

    /// Damage below a checksum that was made to fit: errors, never a panic.
    #[test]
    fn hostile_bytes_do_no_harm(
        records in vec(some_record(), 1..6),
        codec in written_codec(),
        read_as in 0..8u8,
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        tail in vec(any::<u8>(), 0..20),
    ) {
        let mut bytes = BytesMut::from(&build(BatchBuilder::new().compression(codec), &records).into_bytes()[..]);
        bytes.extend_from_slice(&tail);
        for (place, byte) in damage {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        bytes[22] = (bytes[22] & !7) | read_as;
        let length = (bytes.len() - 12) as i32;
        exercise(bytes.clone().freeze());
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[16] = 2;
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        exercise(bytes.freeze());
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..200)) {
        exercise(Bytes::from(bytes));
    }

    /// Nothing but the reserved headers goes.
    #[test]
    fn stripping_takes_reserved_headers_only(records in vec(some_record(), 1..10), codec in written_codec()) {
        let batch = build(BatchBuilder::new().compression(codec).producer(1, 0, 5).transactional(), &records);
        let batch = batch.into_patched(1000, 3);
        let stripped = strip_reserved(&batch).unwrap();
        prop_assert!(!stripped.contains_reserved_headers().unwrap());
        Batch::parse(stripped.bytes().clone()).unwrap();
        prop_assert_eq!(stripped.base_offset(), 1000);
        prop_assert_eq!((stripped.producer_id(), stripped.base_sequence(), stripped.is_transactional()), (1, 5, true));
        let mut expected = read(&batch);
        for record in &mut expected {
            record.headers.retain(|header| !header.name.starts_with(b"_tl."));
        }
        prop_assert_eq!(read(&stripped), expected);
        if !batch.contains_reserved_headers().unwrap() {
            prop_assert_eq!(stripped.bytes().as_ptr(), batch.bytes().as_ptr());
        }
    }

    #[test]
    fn an_envelope_comes_back(
        key in proptest::option::of(some_bytes()),
        value in proptest::option::of(some_bytes()),
        content_type in proptest::option::of(".{0,10}"),
        correlation_id in proptest::option::of(some_bytes()),
        reply_to in proptest::option::of(".{0,10}"),
        expires_at in proptest::option::of(any::<i64>()),
        native in proptest::option::of((any::<bool>(), some_bytes())),
        names in vec("[a-m]{0,8}", 0..4),
    ) {
        let envelope = Envelope {
            key, value, timestamp: 17, content_type, correlation_id, message_id: reply_to.clone(), reply_to, expires_at,
            headers: names.into_iter().map(|name| Header { name: Bytes::from(name), value: None }).collect(),
            native: native.map(|(mqtt, bytes)| Native { protocol: if mqtt { Protocol::Mqtt } else { Protocol::Amqp }, bytes }),
        };
        let NewRecord { timestamp, key, value, headers } = envelope.clone().into_record();
        prop_assert_eq!(Envelope::from_record(&Record { offset: 0, timestamp, key, value, headers }), envelope);
    }
}

fn plain(value: &'static str) -> NewRecord {
    NewRecord {
        timestamp: 5,
        value: Some(Bytes::from_static(value.as_bytes())),
        ..NewRecord::default()
    }
}

#[test]
fn values_of_an_uncompressed_batch_are_its_own_memory() {
    let batch = build(BatchBuilder::new(), &[plain("hello")]);
    let value = read(&batch)[0].value.clone().unwrap();
    assert!(batch.bytes().as_ptr_range().contains(&value.as_ptr()));
}

#[test]
fn patching_an_unshared_batch_copies_nothing() {
    let batch = build(BatchBuilder::new(), &[plain("hello")]);
    let place = batch.bytes().as_ptr();
    let patched = batch.into_patched(9, 1);
    assert_eq!(
        (patched.bytes().as_ptr(), patched.base_offset()),
        (place, 9)
    );
    let shared = patched.clone();
    assert_eq!(patched.into_patched(10, 1).base_offset(), 10);
    assert_eq!(shared.base_offset(), 9);
}

#[test]
fn log_append_time_rules_all_records() {
    let batch = build(BatchBuilder::new(), &[plain("a"), plain("b")]).with_log_append_time(99);
    let batch = Batch::parse(batch.into_bytes()).unwrap();
    assert_eq!(
        (batch.timestamp_type(), batch.max_timestamp()),
        (TimestampType::LogAppend, 99)
    );
    assert!(read(&batch).iter().all(|record| record.timestamp == 99));
}

#[test]
fn a_batch_is_moved_in_time_with_all_its_records() {
    let batch = build(BatchBuilder::new(), &[plain("a"), plain("b")]);
    let moved = Batch::parse(batch.rebased(-77).into_bytes()).unwrap();
    let times = |batch: &Batch| read(batch).iter().map(|r| r.timestamp).collect::<Vec<_>>();
    assert!(
        times(&batch)
            .iter()
            .zip(times(&moved))
            .all(|(before, after)| before - 77 == after)
    );
    assert_eq!(moved.max_timestamp(), batch.max_timestamp() - 77);
    assert_eq!(batch.rebased(0).bytes(), batch.bytes());
}

#[test]
fn sequences_wrap() {
    let batch = build(
        BatchBuilder::new().producer(1, 0, i32::MAX),
        &[plain("a"), plain("b")],
    );
    assert_eq!(batch.last_sequence(), 0);
    assert_eq!(
        build(BatchBuilder::new(), &[plain("a")]).last_sequence(),
        -1
    );
}

#[test]
fn batches_are_split_off_one_by_one() {
    let (a, b) = (
        build(BatchBuilder::new(), &[plain("a")]),
        build(BatchBuilder::new(), &[plain("b")]),
    );
    let mut bytes = Bytes::from([a.bytes().as_ref(), b.bytes()].concat());
    assert_eq!(
        Batch::parse(bytes.clone()),
        Err(BatchError::TrailingBytes(b.len()))
    );
    assert_eq!(Batch::split_first(&mut bytes).unwrap(), a);
    assert_eq!(Batch::split_first(&mut bytes).unwrap(), b);
    assert!(bytes.is_empty());
}

/// The record count in the header is believed by nobody before the records agree.
#[test]
fn count_and_contents_must_agree() {
    for (count, delta) in [(1i32, 1i32), (2, 2), (3, 2), (0, 0)] {
        let mut bytes =
            BytesMut::from(&build(BatchBuilder::new(), &[plain("a"), plain("b")]).into_bytes()[..]);
        bytes[23..27].copy_from_slice(&delta.to_be_bytes());
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        let batch = Batch::parse(bytes.freeze()).unwrap();
        assert!(
            batch.check_records().is_err(),
            "{count} records, last offset delta {delta}"
        );
    }
}

#[test]
fn lengths_are_checked_before_they_are_believed() {
    let good = build(BatchBuilder::new(), &[plain("a")]).into_bytes();
    for (length, expected) in [
        (
            i32::MAX,
            BatchError::TooLarge {
                len: i32::MAX as usize + 12,
                limit: limits::MAX_BATCH_LEN,
            },
        ),
        (-1, BatchError::BadLength(-1)),
        (48, BatchError::BadLength(48)),
        (50, BatchError::TrailingBytes(good.len() - 62)),
    ] {
        let mut bytes = BytesMut::from(&good[..]);
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        assert_eq!(Batch::parse(bytes.freeze()), Err(expected));
    }
    let mut old = BytesMut::from(&good[..]);
    old[16] = 1;
    assert_eq!(
        Batch::parse(old.freeze()),
        Err(BatchError::UnsupportedMagic(1))
    );
}

#[test]
fn what_cannot_be_built_is_refused() {
    assert_eq!(BatchBuilder::new().build(), Err(BuildError::Empty));
    let mut builder = BatchBuilder::new();
    let big = NewRecord {
        value: Some(Bytes::from(vec![0; limits::MAX_DECOMPRESSED])),
        ..NewRecord::default()
    };
    assert!(matches!(
        builder.push(&big),
        Err(BuildError::TooLarge { .. })
    ));
    let many = vec![Header::new("x", "y"); limits::MAX_HEADERS_PER_RECORD + 1];
    let many = NewRecord {
        headers: many,
        ..NewRecord::default()
    };
    assert!(matches!(
        builder.push(&many),
        Err(BuildError::TooManyHeaders { .. })
    ));
    assert_eq!((builder.len(), builder.count()), (HEADER_LEN, 0));
}

proptest! {
    /// What compaction leaves is what was wanted, unchanged, at the same offsets; the batch is whole for every reader.
    #[test]
    fn leaving_records_out_changes_no_other(
        records in vec(some_record(), 1..30),
        wanted in vec(any::<bool>(), 30),
        codec in written_codec(),
        append_time in proptest::option::of(0..4_000_000_000_000i64),
    ) {
        let mut builder = BatchBuilder::new().compression(codec).producer(7, 3, 40).transactional();
        if let Some(stamp) = append_time {
            builder = builder.log_append_time(stamp);
        }
        let batch = build(builder, &records).patched(1000, 5);
        let before: Vec<Record> = batch.records().unwrap().map(Result::unwrap).collect();
        let want = |offset: i64| wanted[usize::try_from(offset - 1000).unwrap()];
        let expected: Vec<Record> = before.iter().filter(|r| want(r.offset)).cloned().collect();
        match batch.retain(|record| want(record.offset)).unwrap() {
            Retained::All => prop_assert_eq!(expected.len(), before.len()),
            Retained::None => prop_assert!(expected.is_empty()),
            Retained::Some(left) => {
                let left = Batch::parse(left.into_bytes()).unwrap();
                let after: Vec<Record> = left.records().unwrap().map(Result::unwrap).collect();
                prop_assert!(after.len() < before.len());
                prop_assert_eq!(&after, &expected);
                prop_assert_eq!((left.base_offset(), left.last_offset()), (1000, batch.last_offset()));
                prop_assert_eq!(
                    (left.producer_id(), left.producer_epoch(), left.base_sequence(), left.last_sequence()),
                    (7, 3, 40, batch.last_sequence())
                );
                prop_assert!(left.is_transactional());
                prop_assert_eq!(left.leader_epoch(), 5);
                prop_assert_eq!(left.max_timestamp(), after.iter().map(|r| r.timestamp).max().unwrap());
            }
        }
    }
}
