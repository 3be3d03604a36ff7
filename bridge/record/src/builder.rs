//! Builds a batch. Each record is copied once, into the buffer that becomes the batch (or the compressor's input).

use bytes::{BufMut, BytesMut};

use crate::batch::{
    self, Batch, CONTROL_BIT, HEADER_LEN, LENGTH_END, NO_PRODUCER_EPOCH, NO_PRODUCER_ID,
    NO_SEQUENCE, TIMESTAMP_TYPE_BIT, TRANSACTIONAL_BIT,
};
use crate::records::{Header, NewRecord};
use crate::{BuildError, Compression, limits, varint};

/// Collects records and encodes them as one batch at base offset 0.
#[derive(Debug)]
pub struct BatchBuilder {
    /// [`HEADER_LEN`] bytes to be filled in, then the records in the clear.
    buffer: BytesMut,
    compression: Compression,
    flags: i16,
    append_time: Option<i64>,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    count: u32,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    #[must_use]
    pub fn new() -> BatchBuilder {
        Self::with_room(1024 - HEADER_LEN)
    }

    /// For records of so many bytes in all ([`NewRecord::max_encoded_len`]): they are not copied again while the batch grows, which it may beyond that.
    #[must_use]
    pub fn with_room(bytes: usize) -> BatchBuilder {
        let all = HEADER_LEN.saturating_add(bytes).min(limits::MAX_BATCH_LEN);
        let mut buffer = BytesMut::with_capacity(all);
        buffer.put_bytes(0, HEADER_LEN);
        BatchBuilder {
            buffer,
            compression: Compression::None,
            flags: 0,
            append_time: None,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            base_timestamp: -1,
            max_timestamp: -1,
            count: 0,
        }
    }

    /// Compresses with lz4 or zstd. The batch stays uncompressed where that is not smaller, and for gzip and snappy,
    /// which are read for others' sake but not written.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Makes the batch idempotent: its first record has sequence `base_sequence`.
    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        (self.producer_id, self.producer_epoch, self.base_sequence) = (id, epoch, base_sequence);
        self
    }

    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.flags |= TRANSACTIONAL_BIT;
        self
    }

    /// The records are markers, not data: see [`crate::ControlRecord`].
    #[must_use]
    pub fn control(mut self) -> Self {
        self.flags |= CONTROL_BIT;
        self
    }

    /// Readers see `timestamp` (milliseconds since the epoch, the log's clock) on every record.
    #[must_use]
    pub fn log_append_time(mut self, timestamp: i64) -> Self {
        self.flags |= TIMESTAMP_TYPE_BIT;
        self.append_time = Some(timestamp);
        self
    }

    /// Appends a record. On an error the builder is as before.
    pub fn push(&mut self, record: &NewRecord) -> Result<(), BuildError> {
        let NewRecord {
            timestamp,
            key,
            value,
            headers,
        } = record;
        if headers.len() > limits::MAX_HEADERS_PER_RECORD {
            return Err(BuildError::TooManyHeaders {
                count: headers.len(),
            });
        }
        let base = if self.count == 0 {
            *timestamp
        } else {
            self.base_timestamp
        };
        let timestamp_delta = timestamp
            .checked_sub(base)
            .ok_or(BuildError::TimestampRange)?;
        let offset_delta = i64::from(self.count);
        let body = 1
            + varint::encoded_len(timestamp_delta)
            + varint::encoded_len(offset_delta)
            + nullable_len(key.as_deref())
            + nullable_len(value.as_deref())
            + varint::encoded_len(headers.len() as i64)
            + headers
                .iter()
                .map(|h| nullable_len(Some(&h.name)) + nullable_len(h.value.as_deref()))
                .sum::<usize>();
        let len = self.buffer.len() + varint::encoded_len(body as i64) + body;
        if len > limits::MAX_BATCH_LEN {
            return Err(BuildError::TooLarge {
                len,
                limit: limits::MAX_BATCH_LEN,
            });
        }

        self.buffer.reserve(len - self.buffer.len());
        varint::put(&mut self.buffer, body as i64);
        self.buffer.put_u8(0);
        varint::put(&mut self.buffer, timestamp_delta);
        varint::put(&mut self.buffer, offset_delta);
        put_nullable(&mut self.buffer, key.as_deref());
        put_nullable(&mut self.buffer, value.as_deref());
        varint::put(&mut self.buffer, headers.len() as i64);
        for Header { name, value } in headers {
            put_nullable(&mut self.buffer, Some(name));
            put_nullable(&mut self.buffer, value.as_deref());
        }
        self.base_timestamp = base;
        self.max_timestamp = if self.count == 0 {
            *timestamp
        } else {
            self.max_timestamp.max(*timestamp)
        };
        self.count += 1;
        Ok(())
    }

    /// Bytes of the batch so far, header included, before compression.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Records so far.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    pub fn build(mut self) -> Result<Batch, BuildError> {
        if self.count == 0 {
            return Err(BuildError::Empty);
        }
        let (header, records) = self.buffer.split_at(HEADER_LEN);
        let (mut bytes, written) = match self.compression.compress(header, records) {
            Some(compressed) => (
                BytesMut::from(bytes::Bytes::from(compressed)),
                self.compression,
            ),
            None => (std::mem::take(&mut self.buffer), Compression::None),
        };
        let length = (bytes.len() - LENGTH_END) as i32; // at most MAX_BATCH_LEN
        batch::put(&mut bytes, 8, length.to_be_bytes());
        batch::put(&mut bytes, 12, (-1i32).to_be_bytes());
        batch::put(&mut bytes, 16, 2i8.to_be_bytes());
        batch::put(
            &mut bytes,
            21,
            (self.flags | written.attribute_bits()).to_be_bytes(),
        );
        batch::put(&mut bytes, 23, (self.count - 1).to_be_bytes());
        batch::put(&mut bytes, 27, self.base_timestamp.to_be_bytes());
        batch::put(
            &mut bytes,
            35,
            self.append_time.unwrap_or(self.max_timestamp).to_be_bytes(),
        );
        batch::put(&mut bytes, 43, self.producer_id.to_be_bytes());
        batch::put(&mut bytes, 51, self.producer_epoch.to_be_bytes());
        batch::put(&mut bytes, 53, self.base_sequence.to_be_bytes());
        batch::put(&mut bytes, 57, self.count.to_be_bytes());
        batch::seal(&mut bytes);
        Ok(Batch::assembled(bytes.freeze()))
    }
}

fn nullable_len(field: Option<&[u8]>) -> usize {
    match field {
        None => varint::encoded_len(-1),
        Some(bytes) => varint::encoded_len(bytes.len() as i64) + bytes.len(),
    }
}

fn put_nullable(out: &mut BytesMut, field: Option<&[u8]>) {
    match field {
        None => varint::put(out, -1),
        Some(bytes) => {
            varint::put(out, bytes.len() as i64);
            out.put_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Compression;
    use bytes::Bytes;

    #[test]
    fn with_room_nothing_is_copied_again() {
        let field = |len: usize| Some(Bytes::from(vec![7; len]));
        let records: Vec<NewRecord> = [0, 1, 63, 64, 300, 20_000, 70_000]
            .into_iter()
            .flat_map(|len| {
                let header = Header {
                    name: Bytes::from(vec![b'h'; len % 200]),
                    value: field(len % 300),
                };
                let with = |key, value, headers: Vec<Header>| NewRecord {
                    timestamp: i64::try_from(len).expect("a length") * 1_000_000,
                    key,
                    value,
                    headers,
                };
                [
                    with(None, field(len), Vec::new()),
                    with(field(len % 100), None, vec![header.clone(), header]),
                ]
            })
            .collect();
        let room = records.iter().map(NewRecord::max_encoded_len).sum();
        let mut builder = BatchBuilder::with_room(room).compression(Compression::None);
        let place = builder.buffer.as_ptr();
        for record in &records {
            let before = builder.len();
            builder.push(record).expect("there is room");
            assert!(builder.len() - before <= record.max_encoded_len());
        }
        assert_eq!(builder.buffer.as_ptr(), place);
    }
}
