//! Leaving records out of a batch, as compaction does. What stays keeps its offset, its timestamp and its bytes.

use bytes::{BufMut, BytesMut};

use crate::batch::{self, Batch, HEADER_LEN, LENGTH_END};
use crate::records::Records;
use crate::{BatchError, Record, TimestampType};

/// Bits of the attributes that name the codec.
const CODEC_BITS: i16 = 0x07;

/// What is left of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retained {
    /// Every record stays: the batch is as it was.
    All,
    /// Some stay, in a batch of the same base offset, last offset delta and producer fields, compressed as it was (in the clear where
    /// this crate does not write the codec).
    Some(Batch),
    /// No record stays.
    None,
}

impl Batch {
    /// Leaves out the records that `keep` does not want. Offsets never change: the result has gaps.
    pub fn retain(&self, mut keep: impl FnMut(&Record) -> bool) -> Result<Retained, BatchError> {
        let section = self
            .compression()
            .decompress(self.bytes().slice(HEADER_LEN..))?;
        let mut records = Records::new(self, section.clone());
        let mut out = BytesMut::new();
        let mut max_timestamp = -1;
        let (mut all, mut kept) = (0u32, 0u32);
        let mut from = 0;
        while let Some(record) = records.next() {
            let record = record?;
            let to = section.len() - records.bytes_left();
            all += 1;
            if keep(&record) {
                if kept == 0 {
                    out.reserve(HEADER_LEN + section.len());
                    out.put_slice(self.bytes().get(..HEADER_LEN).unwrap_or_default());
                }
                kept += 1;
                max_timestamp = record.timestamp.max(max_timestamp);
                out.put_slice(section.get(from..to).unwrap_or_default());
            }
            from = to;
        }
        if kept == all {
            return Ok(Retained::All);
        }
        if kept == 0 {
            return Ok(Retained::None);
        }
        Ok(Retained::Some(self.with_records(out, kept, max_timestamp)))
    }

    /// `clear`: this batch's header and other records, not compressed.
    fn with_records(&self, clear: BytesMut, count: u32, max_timestamp: i64) -> Batch {
        let (header, records) = clear.split_at(HEADER_LEN);
        let codec = self.compression();
        let (mut bytes, codec_bits) = match codec.compress(header, records) {
            Some(compressed) => (
                BytesMut::from(bytes::Bytes::from(compressed)),
                codec.attribute_bits(),
            ),
            None => (clear, 0),
        };
        // Fewer records than before: at most MAX_BATCH_LEN.
        let length = (bytes.len() - LENGTH_END) as i32;
        batch::put(&mut bytes, 8, length.to_be_bytes());
        let attributes = self.attributes() & !CODEC_BITS | codec_bits;
        batch::put(&mut bytes, 21, attributes.to_be_bytes());
        if self.timestamp_type() == TimestampType::Create {
            batch::put(&mut bytes, 35, max_timestamp.to_be_bytes());
        }
        batch::put(&mut bytes, 57, count.to_be_bytes());
        batch::seal(&mut bytes);
        Batch::assembled(bytes.freeze())
    }
}
