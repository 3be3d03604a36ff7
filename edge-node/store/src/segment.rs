//! One file of a log: a header, then entries. A header holds all that is needed to go on writing, so that the newest segment
//! alone is enough, with or without the ledger.
//!
//! ```text
//! "TOWLSEG\n" | u16 format version | u8 kind of log | u32 length of the state | u32 CRC-32C of these three and the state | state
//! state: u8 lane | u64 first entry number | u64 first record position | i64 producer id | i64 id before that, -1: none
//!        | i16 producer epoch | u64 dropped messages, u64 bytes of them, so far | i64 last time | u64 boot of the last time if it is blind, 0: it is not
//!        | u32 n, n x (u16 length, stream | i32 next sequence) | u32 n, n x (u64 stream | u32 partition | i64 next)
//! ```

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use record::StreamName;

use crate::disk::{DiskFile, is_of_the_medium};
use crate::frame::{Damage, Entry, Lane, MIN_BODY, PREFIX};
use crate::limits;
use crate::log::End;
use crate::wire::{Reader, Short, put_text};

/// The format that is written. A newer one is refused.
pub const FORMAT_VERSION: u16 = 2;
const MAGIC: &[u8; 8] = b"TOWLSEG\n";
const FIXED: usize = 19;
/// Where the kind stands in it.
pub(crate) const KIND_AT: u64 = 10;
/// Where the checksum stands in it.
const CRC: usize = 15;
/// A producer that took nobody's place.
const NO_ID: i64 = -1;

/// Who writes: the identity under which the core knows the batches, one for all lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    /// Its low byte is 0; lane L writes with `id + L`.
    pub id: i64,
    /// The id that this one took the place of, for the core: what has the old id is older.
    pub previous: Option<i64>,
    /// The incarnation: one more at each start.
    pub epoch: i16,
}

/// When the last record was stamped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Milliseconds since 1970; -1: there was none.
    pub ms: i64,
    pub blind: Option<u64>,
}

impl Stamp {
    pub const NONE: Stamp = Stamp {
        ms: -1,
        blind: None,
    };
}

/// What a log knows at some point between two entries.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LogState {
    pub lane: Lane,
    pub next_number: u64,
    pub next_position: u64,
    pub producer: Producer,
    pub last: Stamp,
    /// Messages that were dropped since the log began and are counted in it, and their bytes.
    pub dropped: (u64, u64),
    pub sequences: HashMap<StreamName, i32>,
    pub origins: HashMap<(u64, u32), i64>,
}

impl LogState {
    /// Notes an entry that stands in the log. Sequences count from the batch itself: it was made from this state.
    pub fn pass(&mut self, entry: &Entry) {
        self.next_number = entry.number() + 1;
        if let Entry::Dropped { dropped, .. } = entry {
            self.dropped.0 += dropped.records;
            self.dropped.1 += dropped.bytes;
        }
        let Entry::Frame(frame) = entry else { return };
        self.next_position = frame.end();
        self.last = Stamp {
            ms: frame.batch.max_timestamp(),
            blind: frame.blind,
        };
        if let Some(origin) = frame.origin {
            self.origins
                .insert((origin.stream, origin.partition), origin.next);
        } else if frame.batch.producer_epoch() == self.producer.epoch {
            let next = record::next_sequence(frame.batch.last_sequence());
            self.sequences.insert(frame.stream.clone(), next);
        }
    }

    /// The end of a log in this state.
    pub fn end(&self) -> End {
        End {
            number: self.next_number,
            position: self.next_position,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    /// Shorter than its own header: the power was cut while it was made, and nothing in it was ever acknowledged.
    #[error("the header is not complete")]
    Torn,
    #[error("the header is damaged")]
    Damaged,
    #[error("format version {0}, this program reads up to {FORMAT_VERSION}: use a newer program")]
    Newer(u16),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Short> for HeaderError {
    fn from(_: Short) -> HeaderError {
        HeaderError::Damaged
    }
}

pub(crate) fn encode_header(kind: u8, state: &LogState) -> Vec<u8> {
    let mut s = vec![state.lane.0];
    s.extend_from_slice(&state.next_number.to_be_bytes());
    s.extend_from_slice(&state.next_position.to_be_bytes());
    s.extend_from_slice(&state.producer.id.to_be_bytes());
    s.extend_from_slice(&state.producer.previous.unwrap_or(NO_ID).to_be_bytes());
    s.extend_from_slice(&state.producer.epoch.to_be_bytes());
    s.extend_from_slice(&state.dropped.0.to_be_bytes());
    s.extend_from_slice(&state.dropped.1.to_be_bytes());
    s.extend_from_slice(&state.last.ms.to_be_bytes());
    s.extend_from_slice(&state.last.blind.unwrap_or(0).to_be_bytes());
    s.extend_from_slice(&(state.sequences.len() as u32).to_be_bytes());
    for (stream, next) in &state.sequences {
        put_text(&mut s, stream.as_str());
        s.extend_from_slice(&next.to_be_bytes());
    }
    s.extend_from_slice(&(state.origins.len() as u32).to_be_bytes());
    for ((stream, partition), next) in &state.origins {
        s.extend_from_slice(&stream.to_be_bytes());
        s.extend_from_slice(&partition.to_be_bytes());
        s.extend_from_slice(&next.to_be_bytes());
    }
    let mut out = Vec::with_capacity(FIXED + s.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT_VERSION.to_be_bytes());
    out.push(kind);
    out.extend_from_slice(&(s.len() as u32).to_be_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out[MAGIC.len()..]), &s);
    out.extend_from_slice(&crc.to_be_bytes());
    out.extend_from_slice(&s);
    out
}

/// The version that a header names which can not be read otherwise, if it is a newer one.
pub(crate) fn looks_newer(file: &dyn DiskFile) -> Option<u16> {
    let mut start = [0; MAGIC.len() + 2];
    let whole = read_full(file, &mut start, 0).is_ok_and(|len| len == start.len());
    let version = start.strip_prefix(MAGIC)?.try_into().ok();
    let version = u16::from_be_bytes(version?);
    (whole && version > FORMAT_VERSION).then_some(version)
}

/// The state at the beginning of a segment, and where its entries begin.
pub(crate) fn read_header(file: &dyn DiskFile, kind: u8) -> Result<(LogState, u64), HeaderError> {
    let mut fixed = [0; FIXED];
    if read_full(file, &mut fixed, 0)? < FIXED {
        return Err(HeaderError::Torn);
    }
    let mut r = Reader(Bytes::copy_from_slice(&fixed));
    if r.take(MAGIC.len())? != MAGIC[..] {
        return Err(HeaderError::Damaged);
    }
    let version = r.get_u16()?;
    let found_kind = r.get_u8()?;
    let len = r.get_u32()? as usize;
    let crc = r.get_u32()?;
    if len > limits::MAX_SEGMENT_HEADER {
        return Err(HeaderError::Damaged);
    }
    let mut state = vec![0; len];
    if read_full(file, &mut state, FIXED as u64)? < len {
        return Err(HeaderError::Torn);
    }
    if crc32c::crc32c_append(crc32c::crc32c(&fixed[MAGIC.len()..CRC]), &state) != crc {
        return Err(HeaderError::Damaged);
    }
    // Only now: a version that a flipped bit made keeps no store from opening.
    if version > FORMAT_VERSION {
        return Err(HeaderError::Newer(version));
    }
    if version != FORMAT_VERSION || found_kind != kind {
        return Err(HeaderError::Damaged);
    }
    let mut r = Reader(state.into());
    let mut state = LogState {
        lane: Lane(r.get_u8()?),
        next_number: r.get_u64()?,
        next_position: r.get_u64()?,
        producer: Producer {
            id: r.get_i64()?,
            previous: Some(r.get_i64()?).filter(|id| *id != NO_ID),
            epoch: r.get_i16()?,
        },
        dropped: (r.get_u64()?, r.get_u64()?),
        last: Stamp {
            ms: r.get_i64()?,
            blind: Some(r.get_u64()?).filter(|boot| *boot != 0),
        },
        sequences: HashMap::new(),
        origins: HashMap::new(),
    };
    for _ in 0..r.get_u32()? {
        let stream = StreamName::new(&r.text()?).map_err(|_| HeaderError::Damaged)?;
        state.sequences.insert(stream, r.get_i32()?);
    }
    for _ in 0..r.get_u32()? {
        let key = (r.get_u64()?, r.get_u32()?);
        state.origins.insert(key, r.get_i64()?);
    }
    Ok((state, (FIXED + len) as u64))
}

/// Reads until the buffer is full or the file ends.
fn read_full(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    match read_most(file, buffer, offset) {
        (done, None) => Ok(done),
        (_, Some(error)) => Err(error),
    }
}

/// Reads until the buffer is full, the file ends, or the rest can not be read.
fn read_most(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> (usize, Option<io::Error>) {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) => return (done, Some(error)),
        }
    }
    (done, None)
}

/// Reads the entries of a segment one after the other.
pub(crate) struct SegmentReader {
    file: Arc<dyn DiskFile>,
    /// Where `buffer` begins in the file.
    offset: u64,
    end: u64,
    buffer: BytesMut,
    /// Number after the last entry that was read.
    expected: Option<u64>,
    /// Number of the first entry of the last one's write.
    group: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadEntryError {
    #[error("{0}")]
    Damage(Damage),
    #[error("{0}")]
    Io(io::Error),
}

impl From<Damage> for ReadEntryError {
    fn from(damage: Damage) -> Self {
        ReadEntryError::Damage(damage)
    }
}

impl SegmentReader {
    /// Reads from `offset` (where an entry begins) to `end`. `expected` is the number of the first entry, where it is known.
    pub fn new(
        file: Arc<dyn DiskFile>,
        offset: u64,
        end: u64,
        expected: Option<u64>,
    ) -> SegmentReader {
        SegmentReader {
            file,
            offset,
            end,
            buffer: BytesMut::new(),
            expected,
            group: 0,
        }
    }

    /// Number of the first entry that became durable together with the last one that was read.
    pub fn group(&self) -> u64 {
        self.group
    }

    /// Number after the last entry that was read; 0 after damage.
    pub fn at(&self) -> u64 {
        self.expected.unwrap_or(0)
    }

    /// Where the next entry begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next entry, or `None` at the end.
    pub fn next(&mut self) -> Result<Option<Entry>, ReadEntryError> {
        if self.offset >= self.end {
            return Ok(None);
        }
        if !self.fill(PREFIX)? {
            return Err(Damage::Length.into());
        }
        let (len, crc) = (self.word(0) as usize, self.word(4));
        if !(MIN_BODY..=limits::MAX_ENTRY).contains(&len) || !self.fill(PREFIX + len)? {
            return Err(Damage::Length.into());
        }
        if crc32c::crc32c(&self.buffer[PREFIX..PREFIX + len]) != crc {
            return Err(Damage::Checksum.into());
        }
        // A copy, so that a kept frame does not keep the whole chunk.
        let body = Bytes::copy_from_slice(&self.buffer[PREFIX..PREFIX + len]);
        let (entry, place) = Entry::decode(body)?;
        if self.expected.is_some_and(|number| number != entry.number()) {
            return Err(Damage::Number.into());
        }
        let _ = self.buffer.split_to(PREFIX + len);
        self.offset += (PREFIX + len) as u64;
        self.expected = entry.number().checked_add(1);
        self.group = entry.number() - u64::from(place);
        Ok(Some(entry))
    }

    /// Looks for the next whole entry behind damage, from the byte after the place of the damage on. False: there is none.
    pub fn resync(&mut self) -> Result<bool, ReadEntryError> {
        let lowest = self.expected.unwrap_or(0);
        let mut step = 1;
        loop {
            // One byte further; what was read already stays.
            let _ = self.buffer.split_to(step.min(self.buffer.len()));
            self.offset += step as u64;
            match self.fill(PREFIX + MIN_BODY) {
                Ok(true) => step = 1,
                Ok(false) => {
                    self.offset = self.end;
                    self.buffer.clear();
                    return Ok(false);
                }
                Err(ReadEntryError::Damage(_)) => {
                    self.pass_unreadable();
                    step = 0;
                    continue;
                }
                Err(error) => return Err(error),
            }
            let (len, crc) = (self.word(0) as usize, self.word(4));
            let kind = self.buffer.get(PREFIX).copied().unwrap_or(0);
            let number =
                (u64::from(self.word(PREFIX + 1)) << 32) | u64::from(self.word(PREFIX + 5));
            let left = self.end.saturating_sub(self.offset + PREFIX as u64);
            // Cheap checks first: they fail at almost every byte.
            if (1..=3).contains(&kind)
                && (MIN_BODY..=limits::MAX_ENTRY).contains(&len)
                && len as u64 <= left
                && number >= lowest
                && self.fill_readable(PREFIX + len)?
                && crc32c::crc32c(&self.buffer[PREFIX..PREFIX + len]) == crc
            {
                // The numbers begin anew from here.
                self.expected = None;
                return Ok(true);
            }
        }
    }

    fn word(&self, at: usize) -> u32 {
        let bytes = self.buffer.get(at..at + 4).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u32::from_be_bytes)
    }

    /// Goes to where the disk may be able to read again.
    fn pass_unreadable(&mut self) {
        let broken = self.offset + self.buffer.len() as u64;
        self.offset = (broken / limits::UNREADABLE + 1) * limits::UNREADABLE;
        self.buffer.clear();
    }

    /// Like [`SegmentReader::fill`]; false also when the disk can not read so much.
    fn fill_readable(&mut self, len: usize) -> Result<bool, ReadEntryError> {
        match self.fill(len) {
            Err(ReadEntryError::Damage(_)) => Ok(false),
            result => result,
        }
    }

    /// Makes the buffer hold `len` bytes; false when the file ends before that. What the disk can not read is damage.
    fn fill(&mut self, len: usize) -> Result<bool, ReadEntryError> {
        if self.buffer.len() >= len {
            return Ok(true);
        }
        let have = self.buffer.len();
        let left = self.end.saturating_sub(self.offset + have as u64);
        let want = (len - have).max(limits::READ_CHUNK);
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(want);
        self.buffer.resize(have + want, 0);
        let place = self.offset + have as u64;
        let (got, error) = read_most(&*self.file, &mut self.buffer[have..], place);
        self.buffer.truncate(have + got);
        match error {
            // Of what was asked for, the beginning may be all that is needed.
            _ if self.buffer.len() >= len => Ok(true),
            None => Ok(false),
            Some(error) if is_of_the_medium(&error) => Err(Damage::Unreadable.into()),
            Some(error) => Err(ReadEntryError::Io(error)),
        }
    }
}

/// Length of a file by its path.
pub(crate) fn read_len(disk: &dyn crate::disk::Disk, path: &std::path::Path) -> io::Result<u64> {
    disk.open(path)?.len()
}
