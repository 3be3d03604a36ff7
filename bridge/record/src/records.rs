//! The records inside a batch. `Record` is written as `length attributes timestampDelta offsetDelta key value headers`,
//! all numbers but the attributes as varints.

use bytes::{Buf, Bytes};

use crate::{Batch, BatchError, TimestampType, limits, varint};

/// A record where it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub offset: i64,
    /// Milliseconds since the epoch; -1 where the producer gave none.
    pub timestamp: i64,
    pub key: Option<Bytes>,
    /// Empty is not null: null is a tombstone.
    pub value: Option<Bytes>,
    pub headers: Vec<Header>,
}

/// A record that has no place in the log yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewRecord {
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<Header>,
}

/// A number of 32 bits and of 64 bits as varint, at most.
const MAX_VARINT: usize = 5;
const MAX_VARLONG: usize = 10;

impl NewRecord {
    /// Bytes that it takes in a batch, uncompressed, at most.
    #[must_use]
    pub fn max_encoded_len(&self) -> usize {
        let field = |bytes: Option<&Bytes>| MAX_VARINT + bytes.map_or(0, Bytes::len);
        let headers = self.headers.iter();
        let headers = headers.map(|h| MAX_VARINT + h.name.len() + field(h.value.as_ref()));
        // Length, attributes, timestamp, offset, and how many headers there are.
        let head = 3 * MAX_VARINT + 1 + MAX_VARLONG;
        head + field(self.key.as_ref()) + field(self.value.as_ref()) + headers.sum::<usize>()
    }
}

impl From<Record> for NewRecord {
    fn from(record: Record) -> NewRecord {
        let Record {
            offset: _,
            timestamp,
            key,
            value,
            headers,
        } = record;
        NewRecord {
            timestamp,
            key,
            value,
            headers,
        }
    }
}

/// Names need not be unique, and their order is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// UTF-8 by Kafka's protocol; not checked, since Kafka's brokers do not check it either.
    pub name: Bytes,
    pub value: Option<Bytes>,
}

impl Header {
    pub fn new(name: impl Into<Bytes>, value: impl Into<Bytes>) -> Header {
        Header {
            name: name.into(),
            value: Some(value.into()),
        }
    }
}

/// Iterates over a batch. Ends after the first error.
#[derive(Debug)]
pub struct Records {
    /// What is left of the decompressed record section.
    rest: Bytes,
    base_offset: i64,
    last_offset_delta: i32,
    base_timestamp: i64,
    /// Set when the log's clock rules.
    append_time: Option<i64>,
    announced: u32,
    found: u32,
    ended: bool,
}

impl Records {
    pub(crate) fn new(batch: &Batch, section: Bytes) -> Records {
        Records {
            rest: section,
            base_offset: batch.base_offset(),
            last_offset_delta: batch.last_offset_delta(),
            base_timestamp: batch.base_timestamp(),
            append_time: (batch.timestamp_type() == TimestampType::LogAppend)
                .then(|| batch.max_timestamp()),
            announced: batch.record_count(),
            found: 0,
            ended: false,
        }
    }

    /// Bytes of the record section that were not read yet.
    pub(crate) fn bytes_left(&self) -> usize {
        self.rest.len()
    }

    /// The next record if it is wanted by its offset and key; `Some(Ok(None))` = there is one, and it is not: nothing behind its key was looked at.
    pub fn next_if(
        &mut self,
        wanted: impl FnOnce(i64, Option<&[u8]>) -> bool,
    ) -> Option<Result<Option<Record>, BatchError>> {
        if self.ended {
            return None;
        }
        let item = self.advance(wanted).transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }

    /// `Ok(None)` = that was all of them.
    fn advance(
        &mut self,
        wanted: impl FnOnce(i64, Option<&[u8]>) -> bool,
    ) -> Result<Option<Option<Record>>, BatchError> {
        if self.found == self.announced {
            return match self.rest.len() {
                0 => Ok(None),
                left => Err(BatchError::BytesAfterRecords(left)),
            };
        }
        if self.rest.is_empty() {
            return Err(BatchError::RecordCount {
                announced: self.announced,
                found: self.found,
            });
        }
        let record = self
            .decode(wanted)
            .map_err(|reason| BatchError::BadRecord {
                index: self.found,
                reason,
            })?;
        self.found += 1;
        Ok(Some(record))
    }

    fn decode(
        &mut self,
        wanted: impl FnOnce(i64, Option<&[u8]>) -> bool,
    ) -> Result<Option<Record>, &'static str> {
        let mut cursor = &self.rest[..];
        let length = varint::take_i32(&mut cursor).ok_or("its length is not a varint")?;
        let length = usize::try_from(length).map_err(|_| "its length is negative")?;
        let start = self.rest.len() - cursor.len();
        if length > cursor.len() {
            return Err("it is longer than the batch");
        }
        let end = start + length;
        let (head, cursor) = self.head(self.rest.get(start..end).unwrap_or_default())?;
        let mut after_key = cursor;
        if !wanted(head.offset, take_slice(&mut after_key)?) {
            self.rest.advance(end);
            return Ok(None);
        }
        let body = self.rest.slice(start..end);
        let record = head.rest(&body, cursor)?;
        self.rest.advance(end);
        Ok(Some(record))
    }

    /// What stands before the key, and what follows it.
    fn head<'b>(&self, body: &'b [u8]) -> Result<(Head, &'b [u8]), &'static str> {
        // The attributes byte is unused in magic 2.
        let mut cursor = body.get(1..).ok_or("it is empty")?;
        let timestamp_delta =
            varint::take_i64(&mut cursor).ok_or("its timestamp is not a varlong")?;
        let offset_delta = varint::take_i32(&mut cursor).ok_or("its offset is not a varint")?;
        if offset_delta < 0 || offset_delta > self.last_offset_delta {
            return Err("its offset is outside the batch");
        }
        let head = Head {
            offset: self.base_offset.saturating_add(i64::from(offset_delta)),
            timestamp: match self.append_time {
                Some(stamp) => stamp,
                None => self
                    .base_timestamp
                    .checked_add(timestamp_delta)
                    .ok_or("its timestamp overflows")?,
            },
        };
        Ok((head, cursor))
    }
}

/// What a record says before its key.
struct Head {
    offset: i64,
    timestamp: i64,
}

impl Head {
    /// The whole record, of which `cursor` is what begins with the key.
    fn rest(self, body: &Bytes, mut cursor: &[u8]) -> Result<Record, &'static str> {
        let key = take_bytes(body, &mut cursor)?;
        let value = take_bytes(body, &mut cursor)?;
        let count = varint::take_i32(&mut cursor).ok_or("its header count is not a varint")?;
        let count = usize::try_from(count).map_err(|_| "its header count is negative")?;
        // Each header takes two bytes at least: a count that cannot be true is refused before memory is taken.
        if count > limits::MAX_HEADERS_PER_RECORD || count > cursor.len() / 2 {
            return Err("it has too many headers");
        }
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            let name = take_bytes(body, &mut cursor)?.ok_or("a header has no name")?;
            let value = take_bytes(body, &mut cursor)?;
            headers.push(Header { name, value });
        }
        if !cursor.is_empty() {
            return Err("bytes follow its last header");
        }
        Ok(Record {
            offset: self.offset,
            timestamp: self.timestamp,
            key,
            value,
            headers,
        })
    }
}

/// A length, -1 for null, and so many bytes, as a slice of `body`, of which `cursor` is the unread end.
fn take_bytes(body: &Bytes, cursor: &mut &[u8]) -> Result<Option<Bytes>, &'static str> {
    let slice = take_slice(cursor)?;
    let end = body.len() - cursor.len();
    Ok(slice.map(|slice| body.slice(end - slice.len()..end)))
}

/// The same, borrowed.
fn take_slice<'b>(cursor: &mut &'b [u8]) -> Result<Option<&'b [u8]>, &'static str> {
    let length = varint::take_i32(cursor).ok_or("a length is not a varint")?;
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| "a length is below -1")?;
    let (slice, after) = cursor
        .split_at_checked(length)
        .ok_or("a length goes beyond the record")?;
    *cursor = after;
    Ok(Some(slice))
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.next_if(|_, _| true)?;
        item.transpose()
    }
}

impl std::iter::FusedIterator for Records {}
