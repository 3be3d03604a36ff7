use crate::{Compression, limits};

/// Why bytes are not a batch that can be served. Each is a fact about the bytes: trying again does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("batch is cut off: {have} bytes, {need} needed")]
    Truncated { need: usize, have: usize },
    #[error("batch length field {0} is outside what a batch can have")]
    BadLength(i64),
    #[error("batch is {len} bytes, the limit is {limit}")]
    TooLarge { len: usize, limit: usize },
    #[error("{0} bytes follow the batch where exactly one was expected")]
    TrailingBytes(usize),
    #[error("record format (magic) {0} is not supported, only 2 is")]
    UnsupportedMagic(i8),
    #[error("checksum mismatch: the batch says {stored:#010x}, its bytes give {computed:#010x}")]
    Checksum { stored: u32, computed: u32 },
    #[error("compression codec {0} is unknown")]
    UnknownCompression(u8),
    #[error("{codec:?} data is corrupt: {reason}")]
    Decompress { codec: Compression, reason: String },
    #[error("records decompress to more than {} bytes", limits::MAX_DECOMPRESSED)]
    DecompressedTooLarge,
    #[error("batch header is contradictory: {0}")]
    BadHeader(&'static str),
    #[error("record {index} of the batch is malformed: {reason}")]
    BadRecord { index: u32, reason: &'static str },
    #[error("batch announces {announced} records but holds {found}")]
    RecordCount { announced: u32, found: u32 },
    #[error("{0} bytes follow the last record of the batch")]
    BytesAfterRecords(usize),
}

/// Why a batch cannot be built from the records given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    #[error("a batch needs at least one record")]
    Empty,
    #[error("the record makes the batch {len} bytes, the limit is {limit}: start another batch")]
    TooLarge { len: usize, limit: usize },
    #[error(
        "the record has {count} headers, the limit is {}",
        limits::MAX_HEADERS_PER_RECORD
    )]
    TooManyHeaders { count: usize },
    #[error("the timestamp is too far from the first record's to be written as a difference")]
    TimestampRange,
}
