//! Headers that only Towline sets. From clients they are removed on ingress, so that nobody can pass off bytes of his
//! own as another protocol's properties.

use crate::{Batch, BatchBuilder, BatchError, Compression, NewRecord, TimestampType};

/// What the names of reserved headers begin with.
pub const RESERVED_PREFIX: &[u8] = b"_tl.";

#[must_use]
pub fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(RESERVED_PREFIX)
}

/// The batch without reserved headers: the batch itself where it has none, which costs one search through its bytes.
/// Otherwise its records are encoded again, with the same offsets, times, producer and sequences; gzip and snappy
/// become lz4. Checks every record of the batch only in that case.
pub fn strip_reserved(batch: &Batch) -> Result<Batch, BatchError> {
    if !batch.contains_reserved_headers()? {
        return Ok(batch.clone());
    }
    // Encoding numbers the records anew, which is right only when there are no gaps.
    batch.check_records()?;
    let compression = match batch.compression() {
        Compression::Gzip | Compression::Snappy => Compression::Lz4,
        same => same,
    };
    let mut builder = BatchBuilder::new().compression(compression).producer(
        batch.producer_id(),
        batch.producer_epoch(),
        batch.base_sequence(),
    );
    if batch.is_transactional() {
        builder = builder.transactional();
    }
    if batch.is_control() {
        builder = builder.control();
    }
    if batch.timestamp_type() == TimestampType::LogAppend {
        builder = builder.log_append_time(batch.max_timestamp());
    }
    for record in batch.records()? {
        let mut record = NewRecord::from(record?);
        record.headers.retain(|header| !is_reserved(&header.name));
        // Less than what was read, which was within every limit.
        builder
            .push(&record)
            .map_err(|_| BatchError::DecompressedTooLarge)?;
    }
    let stripped = builder
        .build()
        .map_err(|_| BatchError::BadHeader("no records"))?;
    Ok(stripped.into_patched(batch.base_offset(), batch.leader_epoch()))
}
