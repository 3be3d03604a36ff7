//! One RecordBatch v2: its header fields, what is checked before it is believed, and the two fields that may change.

use bytes::{Bytes, BytesMut};

use crate::records::{Record, Records};
use crate::{BatchError, Compression, limits, reserved, sequence_after};

/// Bytes before the record section.
pub const HEADER_LEN: usize = 61;
/// `producer_id` of a batch whose producer is not idempotent.
pub const NO_PRODUCER_ID: i64 = -1;
/// `producer_epoch` of such a batch.
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// `base_sequence` of such a batch.
pub const NO_SEQUENCE: i32 = -1;

/// Bytes before the length field ends: base offset and batch length.
pub(crate) const LENGTH_END: usize = 12;
/// Where the checksum's cover begins: at the attributes.
pub(crate) const CRC_START: usize = 21;

pub(crate) const TIMESTAMP_TYPE_BIT: i16 = 1 << 3;
pub(crate) const TRANSACTIONAL_BIT: i16 = 1 << 4;
pub(crate) const CONTROL_BIT: i16 = 1 << 5;

/// Whose clock the timestamps of a batch come from (bit 3 of the attributes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    Create,
    /// The log's: every record carries the batch's `max_timestamp`.
    LogAppend,
}

/// Exactly one RecordBatch v2 whose shape and, unless it came [from a trusted place](Batch::from_trusted), checksum
/// were checked. Cloning is cheap.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch {
    /// At least [`HEADER_LEN`] bytes, and as many as the length field says.
    bytes: Bytes,
}

impl Batch {
    /// Takes `bytes` for one batch, nothing before or after it, and checks length, magic, codec and checksum.
    /// The records inside are checked when they are read, or by [`Batch::check_records`].
    pub fn parse(bytes: Bytes) -> Result<Batch, BatchError> {
        let batch = Batch::from_trusted(bytes)?;
        batch.check_crc()?;
        Ok(batch)
    }

    /// Takes one batch off the front of `bytes` and checks it like [`Batch::parse`]. On an error `bytes` is unchanged.
    pub fn split_first(bytes: &mut Bytes) -> Result<Batch, BatchError> {
        let len = announced_len(bytes)?;
        if bytes.len() < len {
            return Err(BatchError::Truncated {
                need: len,
                have: bytes.len(),
            });
        }
        let batch = Batch::parse(bytes.slice(..len))?;
        *bytes = bytes.slice(len..);
        Ok(batch)
    }

    /// Like [`Batch::parse`] without computing the checksum: for bytes that another checksum has just covered.
    pub fn from_trusted(bytes: Bytes) -> Result<Batch, BatchError> {
        let len = announced_len(&bytes)?;
        if bytes.len() < len {
            return Err(BatchError::Truncated {
                need: len,
                have: bytes.len(),
            });
        }
        if bytes.len() > len {
            return Err(BatchError::TrailingBytes(bytes.len() - len));
        }
        let batch = Batch { bytes };
        batch.check_header()?;
        Ok(batch)
    }

    /// What the builder has just put together.
    pub(crate) fn assembled(bytes: Bytes) -> Batch {
        Batch { bytes }
    }

    fn check_header(&self) -> Result<(), BatchError> {
        let magic = i8::from_be_bytes(self.field(16));
        if magic != 2 {
            return Err(BatchError::UnsupportedMagic(magic));
        }
        Compression::from_attributes(self.attributes())?;
        if self.last_offset_delta() < 0 {
            return Err(BatchError::BadHeader("negative last offset delta"));
        }
        let count = i32::from_be_bytes(self.field(57));
        if count < 0 {
            return Err(BatchError::BadHeader("negative record count"));
        }
        if i64::from(count) > i64::from(self.last_offset_delta()) + 1 {
            return Err(BatchError::BadHeader("more records than offsets"));
        }
        if self
            .base_offset()
            .checked_add(i64::from(self.last_offset_delta()) + 1)
            .is_none()
        {
            return Err(BatchError::BadHeader("offsets beyond the largest"));
        }
        Ok(())
    }

    /// Computes the checksum again. [`Batch::parse`] has done so already.
    pub fn check_crc(&self) -> Result<(), BatchError> {
        let computed = crc32c::crc32c(self.bytes.get(CRC_START..).unwrap_or_default());
        if computed != self.crc() {
            return Err(BatchError::Checksum {
                stored: self.crc(),
                computed,
            });
        }
        Ok(())
    }

    /// What a log checks before it accepts a batch from a producer: every record is well formed, there are as many as
    /// announced, and their offsets are 0, 1, 2, ... (Only a compacted log may have gaps.) Decompresses.
    pub fn check_records(&self) -> Result<(), BatchError> {
        let announced = self.record_count();
        if announced == 0 || i64::from(self.last_offset_delta()) + 1 != i64::from(announced) {
            return Err(BatchError::BadHeader(
                "record count and last offset delta disagree",
            ));
        }
        for (index, record) in (0u32..).zip(self.records()?) {
            if record?.offset != self.base_offset().saturating_add(i64::from(index)) {
                return Err(BatchError::BadRecord {
                    index,
                    reason: "its offset is not the next one",
                });
            }
        }
        Ok(())
    }

    /// The batch as it is stored and sent.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Bytes of the whole batch, header included.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a batch is never empty: it has a header"
    )]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    #[must_use]
    pub fn base_offset(&self) -> i64 {
        i64::from_be_bytes(self.field(0))
    }

    /// Last offset minus base offset; never negative.
    #[must_use]
    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(self.field(23))
    }

    #[must_use]
    pub fn last_offset(&self) -> i64 {
        self.base_offset()
            .saturating_add(i64::from(self.last_offset_delta()))
    }

    /// The offset that follows the batch.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    #[must_use]
    pub fn leader_epoch(&self) -> i32 {
        i32::from_be_bytes(self.field(12))
    }

    /// CRC-32C of everything from the attributes on, as stored in the header.
    #[must_use]
    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(self.field(17))
    }

    #[must_use]
    pub fn attributes(&self) -> i16 {
        i16::from_be_bytes(self.field(21))
    }

    #[must_use]
    pub fn compression(&self) -> Compression {
        // An unknown codec did not pass check_header.
        Compression::from_attributes(self.attributes()).unwrap_or_default()
    }

    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL_BIT != 0
    }

    /// Whether the batch holds a marker (see [`crate::ControlRecord`]) instead of data.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes() & CONTROL_BIT != 0
    }

    #[must_use]
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes() & TIMESTAMP_TYPE_BIT == 0 {
            TimestampType::Create
        } else {
            TimestampType::LogAppend
        }
    }

    /// Milliseconds since the epoch that the records' timestamps are relative to.
    #[must_use]
    pub fn base_timestamp(&self) -> i64 {
        i64::from_be_bytes(self.field(27))
    }

    /// The largest timestamp in the batch, milliseconds since the epoch.
    #[must_use]
    pub fn max_timestamp(&self) -> i64 {
        i64::from_be_bytes(self.field(35))
    }

    #[must_use]
    pub fn producer_id(&self) -> i64 {
        i64::from_be_bytes(self.field(43))
    }

    #[must_use]
    pub fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes(self.field(51))
    }

    #[must_use]
    pub fn base_sequence(&self) -> i32 {
        i32::from_be_bytes(self.field(53))
    }

    /// The sequence of the last record; after `i32::MAX` comes 0. [`NO_SEQUENCE`] without an idempotent producer.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        match self.base_sequence() {
            negative if negative < 0 => NO_SEQUENCE,
            base => sequence_after(base, self.last_offset_delta().unsigned_abs()),
        }
    }

    /// As announced by the header; [`Batch::records`] yields exactly so many or an error.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        u32::from_be_bytes(self.field(57))
    }

    /// The same batch at another place in the log. Copies the bytes; [`Batch::into_patched`] can often avoid that.
    #[must_use]
    pub fn patched(&self, base_offset: i64, leader_epoch: i32) -> Batch {
        if self.base_offset() == base_offset && self.leader_epoch() == leader_epoch {
            return self.clone();
        }
        Batch::patch(BytesMut::from(&self.bytes[..]), base_offset, leader_epoch)
    }

    /// Like [`Batch::patched`], in place when nobody else holds the bytes.
    #[must_use]
    pub fn into_patched(self, base_offset: i64, leader_epoch: i32) -> Batch {
        match self.bytes.try_into_mut() {
            Ok(own) => Batch::patch(own, base_offset, leader_epoch),
            Err(shared) => Batch { bytes: shared }.patched(base_offset, leader_epoch),
        }
    }

    fn patch(mut bytes: BytesMut, base_offset: i64, leader_epoch: i32) -> Batch {
        put(&mut bytes, 0, base_offset.to_be_bytes());
        put(&mut bytes, 12, leader_epoch.to_be_bytes());
        Batch {
            bytes: bytes.freeze(),
        }
    }

    /// The same records stamped with the log's clock (`timestamp`, milliseconds since the epoch). This is the one
    /// change that reaches below the checksum, which is computed anew: for streams that ask for log-append time.
    #[must_use]
    pub fn with_log_append_time(&self, timestamp: i64) -> Batch {
        let mut bytes = BytesMut::from(&self.bytes[..]);
        put(
            &mut bytes,
            21,
            (self.attributes() | TIMESTAMP_TYPE_BIT).to_be_bytes(),
        );
        put(&mut bytes, 35, timestamp.to_be_bytes());
        seal(&mut bytes);
        Batch {
            bytes: bytes.freeze(),
        }
    }

    /// The same records at another time: `add_ms` is added to all their timestamps, and the checksum computed anew. For an edge that
    /// learns what time it is after it has stamped them, before anybody else has seen them.
    #[must_use]
    pub fn rebased(&self, add_ms: i64) -> Batch {
        if add_ms == 0 {
            return self.clone();
        }
        let mut bytes = BytesMut::from(&self.bytes[..]);
        let (base, max) = (self.base_timestamp(), self.max_timestamp());
        put(&mut bytes, 27, base.saturating_add(add_ms).to_be_bytes());
        put(&mut bytes, 35, max.saturating_add(add_ms).to_be_bytes());
        seal(&mut bytes);
        Batch {
            bytes: bytes.freeze(),
        }
    }

    /// Decompresses, and iterates. Of an uncompressed batch, keys and values are slices of the batch's own memory.
    pub fn records(&self) -> Result<Records, BatchError> {
        let section = self
            .compression()
            .decompress(self.bytes.slice(HEADER_LEN..))?;
        Ok(Records::new(self, section))
    }

    /// Whether any record carries a header that clients may not set.
    pub fn contains_reserved_headers(&self) -> Result<bool, BatchError> {
        let section = self
            .compression()
            .decompress(self.bytes.slice(HEADER_LEN..))?;
        // Most batches hold no such bytes anywhere: then no record needs to be looked at.
        if memchr::memmem::find(&section, reserved::RESERVED_PREFIX).is_none() {
            return Ok(false);
        }
        for record in Records::new(self, section) {
            let Record { headers, .. } = record?;
            if headers
                .iter()
                .any(|header| reserved::is_reserved(&header.name))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        // The constructor checked that HEADER_LEN bytes are there, and every caller reads below that.
        self.bytes
            .get(at..)
            .and_then(<[u8]>::first_chunk)
            .copied()
            .unwrap_or([0; N])
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("base_offset", &self.base_offset())
            .field("records", &self.record_count())
            .field("len", &self.len())
            .field("compression", &self.compression())
            .field(
                "producer",
                &(
                    self.producer_id(),
                    self.producer_epoch(),
                    self.base_sequence(),
                ),
            )
            .finish_non_exhaustive()
    }
}

/// The length of the batch that `bytes` starts with, from its length field, if a batch can be that long.
fn announced_len(bytes: &[u8]) -> Result<usize, BatchError> {
    let field = bytes
        .get(8..LENGTH_END)
        .and_then(<[u8]>::first_chunk)
        .ok_or(BatchError::Truncated {
            need: HEADER_LEN,
            have: bytes.len(),
        })?;
    let length = i64::from(i32::from_be_bytes(*field));
    let len = usize::try_from(length).map_err(|_| BatchError::BadLength(length))? + LENGTH_END;
    // An older record format has a shorter header; say so rather than "bad length".
    if let Some(&magic) = bytes.get(16) {
        let magic = i8::from_be_bytes([magic]);
        if magic != 2 {
            return Err(BatchError::UnsupportedMagic(magic));
        }
    }
    if len < HEADER_LEN {
        return Err(BatchError::BadLength(length));
    }
    if len > limits::MAX_BATCH_LEN {
        return Err(BatchError::TooLarge {
            len,
            limit: limits::MAX_BATCH_LEN,
        });
    }
    Ok(len)
}

/// Writes a header field. `bytes` has a whole header.
pub(crate) fn put<const N: usize>(bytes: &mut [u8], at: usize, field: [u8; N]) {
    if let Some(place) = bytes.get_mut(at..at + N) {
        place.copy_from_slice(&field);
    }
}

/// Writes the checksum of `bytes`, a whole batch, into its header.
pub(crate) fn seal(bytes: &mut [u8]) {
    let crc = crc32c::crc32c(bytes.get(CRC_START..).unwrap_or_default());
    put(bytes, 17, crc.to_be_bytes());
}
