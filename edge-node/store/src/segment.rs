//! One file of a log: a header, then entries. A header holds all that is needed to go on writing, so that the newest segment
//! alone is enough, with or without the ledger.
//!
//! ```text
//! "TOWLSEG\n" | u16 format version | u8 kind of log | u32 length of the state | u32 CRC-32C of the state | state
//! state: u64 first entry number | u64 first record position | i64 producer id | i16 producer epoch
//!        | u32 n, n x (u8 lane | u16 length, stream | i32 next sequence) | u32 n, n x (u64 stream | u32 partition | i64 next)
//! ```

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use record::StreamName;

use crate::disk::DiskFile;
use crate::frame::{Damage, Entry, Lane, MIN_BODY, PREFIX};
use crate::limits;
use crate::wire::{Reader, Short, put_text};

/// The format that is written. A newer one is refused.
pub const FORMAT_VERSION: u16 = 1;
const MAGIC: &[u8; 8] = b"TOWLSEG\n";
const FIXED: usize = 19;

/// Who writes a log: the identity under which the core knows the batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    /// Of lane 0; lane L writes with `id + L`.
    pub id: i64,
    pub epoch: i16,
}

/// What a log knows at some point between two entries.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LogState {
    pub next_number: u64,
    pub next_position: u64,
    pub producer: Producer,
    pub sequences: HashMap<(Lane, StreamName), i32>,
    pub origins: HashMap<(u64, u32), i64>,
}

impl LogState {
    /// Notes an entry that stands in the log. Sequences count from the batch itself: it was made from this state.
    pub fn pass(&mut self, entry: &Entry) {
        self.next_number = entry.number() + 1;
        let Entry::Frame(frame) = entry else { return };
        self.next_position = frame.end();
        if let Some(origin) = frame.origin {
            self.origins
                .insert((origin.stream, origin.partition), origin.next);
        } else if frame.batch.producer_epoch() == self.producer.epoch {
            let next = record::next_sequence(frame.batch.last_sequence());
            self.sequences
                .insert((frame.lane, frame.stream.clone()), next);
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
    let mut s = Vec::new();
    s.extend_from_slice(&state.next_number.to_be_bytes());
    s.extend_from_slice(&state.next_position.to_be_bytes());
    s.extend_from_slice(&state.producer.id.to_be_bytes());
    s.extend_from_slice(&state.producer.epoch.to_be_bytes());
    s.extend_from_slice(&(state.sequences.len() as u32).to_be_bytes());
    for ((lane, stream), next) in &state.sequences {
        s.push(lane.0);
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
    out.extend_from_slice(&crc32c::crc32c(&s).to_be_bytes());
    out.extend_from_slice(&s);
    out
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
    if version > FORMAT_VERSION {
        return Err(HeaderError::Newer(version));
    }
    let found_kind = r.get_u8()?;
    let len = r.get_u32()? as usize;
    let crc = r.get_u32()?;
    if version != FORMAT_VERSION || found_kind != kind || len > limits::MAX_SEGMENT_HEADER {
        return Err(HeaderError::Damaged);
    }
    let mut state = vec![0; len];
    if read_full(file, &mut state, FIXED as u64)? < len {
        return Err(HeaderError::Torn);
    }
    if crc32c::crc32c(&state) != crc {
        return Err(HeaderError::Damaged);
    }
    let mut r = Reader(state.into());
    let mut state = LogState {
        next_number: r.get_u64()?,
        next_position: r.get_u64()?,
        producer: Producer {
            id: r.get_i64()?,
            epoch: r.get_i16()?,
        },
        sequences: HashMap::new(),
        origins: HashMap::new(),
    };
    for _ in 0..r.get_u32()? {
        let lane = Lane(r.get_u8()?);
        let stream = StreamName::new(&r.text()?).map_err(|_| HeaderError::Damaged)?;
        state.sequences.insert((lane, stream), r.get_i32()?);
    }
    for _ in 0..r.get_u32()? {
        let key = (r.get_u64()?, r.get_u32()?);
        state.origins.insert(key, r.get_i64()?);
    }
    Ok((state, (FIXED + len) as u64))
}

/// Reads until the buffer is full or the file ends.
fn read_full(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

/// Reads the entries of a segment one after the other.
pub(crate) struct SegmentReader {
    file: Arc<dyn DiskFile>,
    /// Where `buffer` begins in the file.
    offset: u64,
    end: u64,
    buffer: BytesMut,
    expected: Option<u64>,
}

pub(crate) enum ReadEntryError {
    Damage(Damage),
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
        }
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
        let word = |at: usize| {
            let bytes = self.buffer.get(at..at + 4).and_then(|b| b.try_into().ok());
            bytes.map_or(0, u32::from_be_bytes)
        };
        let (len, crc) = (word(0) as usize, word(4));
        if !(MIN_BODY..=limits::MAX_ENTRY).contains(&len) || !self.fill(PREFIX + len)? {
            return Err(Damage::Length.into());
        }
        if crc32c::crc32c(&self.buffer[PREFIX..PREFIX + len]) != crc {
            return Err(Damage::Checksum.into());
        }
        let mut bytes = self.buffer.split_to(PREFIX + len);
        self.offset += (PREFIX + len) as u64;
        // A copy, so that a kept frame does not keep the whole chunk.
        let entry = Entry::decode(Bytes::copy_from_slice(&bytes.split_off(PREFIX)))?;
        if self.expected.is_some_and(|number| number != entry.number()) {
            return Err(Damage::Number.into());
        }
        self.expected = Some(entry.number() + 1);
        Ok(Some(entry))
    }

    /// Makes the buffer hold `len` bytes; false when the file ends before that.
    fn fill(&mut self, len: usize) -> Result<bool, ReadEntryError> {
        if self.buffer.len() >= len {
            return Ok(true);
        }
        let have = self.buffer.len();
        let left = self.end.saturating_sub(self.offset + have as u64);
        let want = (len - have).max(limits::READ_CHUNK);
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(want);
        self.buffer.resize(have + want, 0);
        let got = read_full(
            &*self.file,
            &mut self.buffer[have..],
            self.offset + have as u64,
        )
        .map_err(ReadEntryError::Io)?;
        self.buffer.truncate(have + got);
        Ok(self.buffer.len() >= len)
    }
}

/// Length of a file by its path.
pub(crate) fn read_len(disk: &dyn crate::disk::Disk, path: &std::path::Path) -> io::Result<u64> {
    disk.open(path)?.len()
}
