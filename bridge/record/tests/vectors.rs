//! Batches captured from librdkafka 2.12.1, one a codec: 50 records of the same value. `tests/interop` makes them anew
//! with `TOWLINE_CAPTURE=<folder> cargo test -p interop`.

use bytes::Bytes;
use record::{Batch, Compression, NewRecord};

#[test]
fn captured_batches_are_read() {
    for (bytes, codec) in [
        (
            &include_bytes!("vectors/librdkafka-none.batch")[..],
            Compression::None,
        ),
        (
            include_bytes!("vectors/librdkafka-gzip.batch"),
            Compression::Gzip,
        ),
        (
            include_bytes!("vectors/librdkafka-snappy.batch"),
            Compression::Snappy,
        ),
        (
            include_bytes!("vectors/librdkafka-lz4.batch"),
            Compression::Lz4,
        ),
        (
            include_bytes!("vectors/librdkafka-zstd.batch"),
            Compression::Zstd,
        ),
    ] {
        let batch = Batch::parse(Bytes::from_static(bytes)).unwrap();
        assert_eq!((batch.compression(), batch.record_count()), (codec, 50));
        batch.check_records().unwrap();
        let value = Bytes::from_static(b"the same again and again, the same again and again");
        let expected = NewRecord {
            timestamp: 1_790_000_000_000,
            key: None,
            value: Some(value),
            headers: vec![],
        };
        for record in batch.records().unwrap() {
            assert_eq!(NewRecord::from(record.unwrap()), expected);
        }
    }
}
