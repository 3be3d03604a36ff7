//! What a log holds: frames (one record batch each), counts of dropped messages, and releases of QoS 2 packet ids.
//!
//! An entry on disk, integers big-endian:
//!
//! ```text
//! u32 length of the body | u32 CRC-32C of the body | body: u8 kind | u64 number | u32 place | ...
//! kind 1, frame:   u64 position | u8 lane | u8 flags | flag 1, origin: u64 stream, u32 partition, i64 next | flag 2, blind: u64 boot
//!                  | flag 4, views: u32 n, n x (u32 index, u8 0 hidden or u8 1, u16 length, key)
//!                  | flag 8, delayed: u32 n, n x (i64 due time, u64 number)
//!                  | u16 length, stream | u32 n, n x u32 retained | u32 n, n x (u16 length, client | u16 packet id)
//!                  | u32 length, RecordBatch v2
//! kind 2, dropped: u64 messages | u64 bytes | i64 first time | i64 last time
//! kind 3, release: u16 length, client | u16 packet id
//! ```
//!
//! The place is how many entries of the same write stand before it: `number - place` and everything after it became durable with one
//! sync, everything before it earlier. So it tells a write that was torn by a power cut from damage to what was durable.

use bytes::Bytes;
use record::{Batch, StreamName};

use crate::delayed::DelayedKey;
use crate::wire::{Reader, Short, put_text};

/// The number of a lane: of its log, and what is added to the producer id, so that order is checked within it and never across.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(pub u8);

impl Lane {
    pub const DEFAULT: Lane = Lane(0);
}

/// Where a batch from the core stood there: within one (stream, partition), one that is not above the last stored is a repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    pub stream: u64,
    pub partition: u32,
    pub next: i64,
}

/// A QoS 2 message's packet id, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PacketRef {
    pub client: String,
    pub packet_id: u16,
}

/// What local readers see of a record of a lane, where that is not the record itself. It is kept beside the batch: the core does not
/// get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum View {
    /// Nothing: it is for the core alone.
    Hidden,
    /// The record under this key, which also is the key of the retained message.
    Key(String),
}

/// One record batch in a log.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Number of the entry in its log. Grows; not every number is a frame.
    pub number: u64,
    /// Position of the first record: records of a log are counted from 0 on.
    pub position: u64,
    pub lane: Lane,
    pub stream: StreamName,
    pub batch: Batch,
    /// Which records of the batch, counted from 0, set or clear the retained message of their key.
    pub retained: Vec<u32>,
    pub exactly_once: Vec<PacketRef>,
    pub origin: Option<Origin>,
    /// The boot in which its records were stamped while the time was not known.
    pub blind: Option<u64>,
    /// By index into the batch, ascending: the records that local readers see in another way.
    pub views: Vec<(u32, View)>,
    /// Those of its records that have waited for their time: they wait no more.
    pub delayed: Vec<DelayedKey>,
}

impl Frame {
    /// Position after the last record.
    pub fn end(&self) -> u64 {
        self.position + u64::from(self.batch.record_count())
    }

    /// About what the frame costs in memory, in bytes.
    pub fn weight(&self) -> usize {
        let views = self.views.iter().map(|(_, view)| match view {
            View::Hidden => 32,
            View::Key(key) => 32 + key.len(),
        });
        self.batch.len()
            + 128
            + self.retained.len() * 4
            + self.exactly_once.len() * 64
            + self.delayed.len() * DelayedKey::LEN
            + views.sum::<usize>()
    }

    /// How local readers see a record, by its index in the batch. `None` = as it is.
    pub fn view(&self, index: u32) -> Option<&View> {
        let found = self.views.binary_search_by_key(&index, |(index, _)| *index);
        found
            .ok()
            .and_then(|at| self.views.get(at))
            .map(|(_, view)| view)
    }
}

/// Messages that were dropped because their lane was full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub records: u64,
    pub bytes: u64,
    pub first_time: i64,
    pub last_time: i64,
}

#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Frame(Frame),
    Dropped { number: u64, dropped: Dropped },
    Release { number: u64, packet: PacketRef },
}

const FRAME: u8 = 1;
const DROPPED: u8 = 2;
const RELEASE: u8 = 3;
const HAS_ORIGIN: u8 = 1;
const IS_BLIND: u8 = 2;
const HAS_VIEWS: u8 = 4;
const HAS_DELAYED: u8 = 8;
const HIDDEN: u8 = 0;
const KEY: u8 = 1;
/// Bytes before the body.
pub(crate) const PREFIX: usize = 8;
/// Kind, number and place.
pub(crate) const MIN_BODY: usize = 13;

/// Why bytes are not an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damage {
    #[error("checksum does not match")]
    Checksum,
    #[error("impossible length")]
    Length,
    #[error("not the next entry number")]
    Number,
    #[error("unknown kind of entry")]
    Kind,
    #[error("malformed entry")]
    Malformed,
    #[error("the disk can not read it")]
    Unreadable,
}

impl From<Short> for Damage {
    fn from(_: Short) -> Damage {
        Damage::Malformed
    }
}

impl Entry {
    pub fn number(&self) -> u64 {
        match self {
            Entry::Frame(frame) => frame.number,
            Entry::Dropped { number, .. } | Entry::Release { number, .. } => *number,
        }
    }

    /// `place`: how many entries of the same write stand before it.
    pub fn encode(&self, place: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; PREFIX]);
        out.push(match self {
            Entry::Frame(_) => FRAME,
            Entry::Dropped { .. } => DROPPED,
            Entry::Release { .. } => RELEASE,
        });
        out.extend_from_slice(&self.number().to_be_bytes());
        out.extend_from_slice(&place.to_be_bytes());
        match self {
            Entry::Frame(frame) => {
                out.extend_from_slice(&frame.position.to_be_bytes());
                out.push(frame.lane.0);
                let origin = if frame.origin.is_some() {
                    HAS_ORIGIN
                } else {
                    0
                };
                let blind = if frame.blind.is_some() { IS_BLIND } else { 0 };
                let views = if frame.views.is_empty() { 0 } else { HAS_VIEWS };
                let delayed = if frame.delayed.is_empty() {
                    0
                } else {
                    HAS_DELAYED
                };
                out.push(origin | blind | views | delayed);
                if let Some(origin) = frame.origin {
                    out.extend_from_slice(&origin.stream.to_be_bytes());
                    out.extend_from_slice(&origin.partition.to_be_bytes());
                    out.extend_from_slice(&origin.next.to_be_bytes());
                }
                if let Some(boot) = frame.blind {
                    out.extend_from_slice(&boot.to_be_bytes());
                }
                if views != 0 {
                    put_views(out, &frame.views);
                }
                if delayed != 0 {
                    out.extend_from_slice(&(frame.delayed.len() as u32).to_be_bytes());
                    for key in &frame.delayed {
                        out.extend_from_slice(&key.to_bytes());
                    }
                }
                put_text(out, frame.stream.as_str());
                out.extend_from_slice(&(frame.retained.len() as u32).to_be_bytes());
                for index in &frame.retained {
                    out.extend_from_slice(&index.to_be_bytes());
                }
                out.extend_from_slice(&(frame.exactly_once.len() as u32).to_be_bytes());
                for packet in &frame.exactly_once {
                    put_packet(out, packet);
                }
                out.extend_from_slice(&(frame.batch.len() as u32).to_be_bytes());
                out.extend_from_slice(frame.batch.bytes());
            }
            Entry::Dropped { dropped, .. } => {
                out.extend_from_slice(&dropped.records.to_be_bytes());
                out.extend_from_slice(&dropped.bytes.to_be_bytes());
                out.extend_from_slice(&dropped.first_time.to_be_bytes());
                out.extend_from_slice(&dropped.last_time.to_be_bytes());
            }
            Entry::Release { packet, .. } => put_packet(out, packet),
        }
        let body = start + PREFIX;
        let len = (out.len() - body) as u32;
        let crc = crc32c::crc32c(&out[body..]);
        out[start..start + 4].copy_from_slice(&len.to_be_bytes());
        out[start + 4..body].copy_from_slice(&crc.to_be_bytes());
    }

    /// A body whose checksum was checked, and the entry's place.
    pub fn decode(body: Bytes) -> Result<(Entry, u32), Damage> {
        let mut r = Reader(body);
        let kind = r.get_u8()?;
        let number = r.get_u64()?;
        let place = r.get_u32()?;
        let entry = match kind {
            FRAME => Entry::Frame(frame(number, &mut r)?),
            DROPPED => Entry::Dropped {
                number,
                dropped: Dropped {
                    records: r.get_u64()?,
                    bytes: r.get_u64()?,
                    first_time: r.get_i64()?,
                    last_time: r.get_i64()?,
                },
            },
            RELEASE => Entry::Release {
                number,
                packet: packet(&mut r)?,
            },
            _ => return Err(Damage::Kind),
        };
        if u64::from(place) > number {
            return Err(Damage::Malformed);
        }
        Ok((entry, place))
    }
}

fn frame(number: u64, r: &mut Reader) -> Result<Frame, Damage> {
    let position = r.get_u64()?;
    let lane = Lane(r.get_u8()?);
    let flags = r.get_u8()?;
    let origin = if flags & HAS_ORIGIN == 0 {
        None
    } else {
        Some(Origin {
            stream: r.get_u64()?,
            partition: r.get_u32()?,
            next: r.get_i64()?,
        })
    };
    let blind = if flags & IS_BLIND == 0 {
        None
    } else {
        Some(r.get_u64()?)
    };
    let views = if flags & HAS_VIEWS == 0 {
        Vec::new()
    } else {
        views(r)?
    };
    let delayed = if flags & HAS_DELAYED == 0 {
        Vec::new()
    } else {
        delayed(r)?
    };
    let stream = StreamName::new(&r.text()?).map_err(|_| Damage::Malformed)?;
    let n = r.get_u32()? as usize;
    if n > r.0.len() / 4 {
        return Err(Damage::Malformed);
    }
    let retained = (0..n).map(|_| r.get_u32()).collect::<Result<_, _>>()?;
    let n = r.get_u32()? as usize;
    if n > r.0.len() / 4 {
        return Err(Damage::Malformed);
    }
    let exactly_once = (0..n).map(|_| packet(r)).collect::<Result<_, _>>()?;
    let len = r.get_u32()? as usize;
    let batch = Batch::from_trusted(r.take(len)?).map_err(|_| Damage::Malformed)?;
    Ok(Frame {
        number,
        position,
        lane,
        stream,
        batch,
        retained,
        exactly_once,
        origin,
        blind,
        views,
        delayed,
    })
}

fn delayed(r: &mut Reader) -> Result<Vec<DelayedKey>, Damage> {
    let n = r.get_u32()? as usize;
    if n > r.0.len() / DelayedKey::LEN {
        return Err(Damage::Malformed);
    }
    Ok((0..n)
        .map(|_| DelayedKey::read(r))
        .collect::<Result<_, _>>()?)
}

fn put_views(out: &mut Vec<u8>, views: &[(u32, View)]) {
    out.extend_from_slice(&(views.len() as u32).to_be_bytes());
    for (index, view) in views {
        out.extend_from_slice(&index.to_be_bytes());
        match view {
            View::Hidden => out.push(HIDDEN),
            View::Key(key) => {
                out.push(KEY);
                put_text(out, key);
            }
        }
    }
}

fn views(r: &mut Reader) -> Result<Vec<(u32, View)>, Damage> {
    let n = r.get_u32()? as usize;
    if n > r.0.len() / 5 {
        return Err(Damage::Malformed);
    }
    let view = |r: &mut Reader| {
        let index = r.get_u32()?;
        let view = match r.get_u8()? {
            HIDDEN => View::Hidden,
            KEY => View::Key(r.text()?),
            _ => return Err(Damage::Malformed),
        };
        Ok((index, view))
    };
    (0..n).map(|_| view(r)).collect()
}

fn put_packet(out: &mut Vec<u8>, packet: &PacketRef) {
    put_text(out, &packet.client);
    out.extend_from_slice(&packet.packet_id.to_be_bytes());
}

fn packet(r: &mut Reader) -> Result<PacketRef, Short> {
    Ok(PacketRef {
        client: r.text()?,
        packet_id: r.get_u16()?,
    })
}
