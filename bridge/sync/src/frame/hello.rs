//! Who comes, and what the core says to it: `Hello`, `Welcome`, `HelloRefused`, `Pace`.

use bytes::{BufMut, BytesMut};

use super::FrameError;
use super::body::{Body, put_count, put_reason, put_text};
use crate::code::{HelloRefusal, TimeQuality};
use crate::limits;

/// One lane of an edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneInfo {
    /// What the frames of the lane carry; offset of its producer id.
    pub number: u8,
    /// For people, and the second half of the key of its gap reports.
    pub name: String,
    /// 0 to 9; higher goes first.
    pub priority: u8,
    /// The edge takes dictionaries for the streams of this lane: it compresses what it sends there.
    pub link_compression: bool,
}

const LINK_COMPRESSION: u8 = 1;

/// What an edge says first on its control stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hello {
    /// [`crate::VERSION`]. Of a hello of another version only this and the name are read.
    pub version: u16,
    /// Name of the edge as it was enrolled; the core compares it with the certificate.
    pub edge: String,
    /// Base of the producer ids of this edge's batches (low byte 0): lane n writes under `producer_id + n`.
    pub producer_id: i64,
    /// The base before it, when this edge took a new one and may still send batches that were written under the old.
    pub previous_producer_id: Option<i64>,
    /// Number of this start of the edge: the epoch of all batches that are written from now on. Never below that of a batch that is sent.
    pub incarnation: i16,
    /// Random, as long as the process lives: tells a reconnect from a copy that came to the same incarnation.
    pub nonce: u64,
    /// Earlier starts of this data directory as (incarnation, nonce): the last that was welcome, and those after it that said hello. A
    /// copy of the directory that went on by itself does not know the starts of the other. Empty: not known, the numbers alone decide.
    /// At most [`limits::MAX_EARLIER`].
    pub earlier: Vec<(i16, u64)>,
    /// At most [`limits::MAX_LANES`].
    pub lanes: Vec<LaneInfo>,
    /// Ids of the dictionaries that the edge still has: the core does not send them again. At most [`limits::MAX_DICTIONARIES`].
    pub dictionaries: Vec<u32>,
    /// The software's version, for people.
    pub software: String,
    /// Whether the edge knows what time it is.
    pub time: TimeQuality,
}

impl Hello {
    pub(super) fn put(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        out.put_u16(self.version);
        put_text(out, "edge name", &self.edge, limits::MAX_EDGE_NAME)?;
        out.put_i64(self.producer_id);
        out.put_i64(self.previous_producer_id.unwrap_or(-1));
        out.put_i16(self.incarnation);
        out.put_u64(self.nonce);
        put_count(
            out,
            "earlier starts",
            self.earlier.len(),
            limits::MAX_EARLIER,
        )?;
        for (incarnation, nonce) in &self.earlier {
            out.put_i16(*incarnation);
            out.put_u64(*nonce);
        }
        put_count(out, "lanes", self.lanes.len(), limits::MAX_LANES)?;
        for lane in &self.lanes {
            out.put_u8(lane.number);
            put_text(out, "lane name", &lane.name, limits::MAX_LANE_NAME)?;
            out.put_u8(lane.priority);
            out.put_u8(if lane.link_compression {
                LINK_COMPRESSION
            } else {
                0
            });
        }
        put_count(
            out,
            "dictionaries",
            self.dictionaries.len(),
            limits::MAX_DICTIONARIES,
        )?;
        for id in &self.dictionaries {
            out.put_u32(*id);
        }
        put_text(out, "software", &self.software, limits::MAX_REASON)?;
        out.put_u8(self.time.to_wire());
        Ok(())
    }

    pub(super) fn take(body: &mut Body) -> Result<Hello, FrameError> {
        let version = body.u16("version")?;
        let edge = body.text("edge name", limits::MAX_EDGE_NAME)?;
        if version != crate::VERSION {
            // What follows is that version's own; the answer is a refusal that says so.
            body.0.clear();
            return Ok(Hello {
                version,
                edge,
                ..Hello::default()
            });
        }
        Ok(Hello {
            version,
            edge,
            producer_id: body.i64("producer id")?,
            previous_producer_id: match body.i64("previous producer id")? {
                -1 => None,
                id => Some(id),
            },
            incarnation: body.i16("incarnation")?,
            nonce: body.u64("nonce")?,
            earlier: {
                let count = body.count("earlier starts", limits::MAX_EARLIER, 10)?;
                (0..count)
                    .map(|_| Ok((body.i16("earlier start")?, body.u64("earlier start")?)))
                    .collect::<Result<_, FrameError>>()?
            },
            lanes: {
                let count = body.count("lanes", limits::MAX_LANES, 5)?;
                (0..count)
                    .map(|_| take_lane(body))
                    .collect::<Result<_, _>>()?
            },
            dictionaries: {
                let count = body.count("dictionaries", limits::MAX_DICTIONARIES, 4)?;
                (0..count)
                    .map(|_| body.u32("dictionary id"))
                    .collect::<Result<_, _>>()?
            },
            software: body.text("software", limits::MAX_REASON)?,
            time: TimeQuality::from_wire(body.u8("time quality")?),
        })
    }
}

fn take_lane(body: &mut Body) -> Result<LaneInfo, FrameError> {
    Ok(LaneInfo {
        number: body.u8("lane")?,
        name: body.text("lane name", limits::MAX_LANE_NAME)?,
        priority: body.u8("priority")?,
        link_compression: match body.u8("lane flags")? {
            0 => false,
            LINK_COMPRESSION => true,
            unknown => return Err(FrameError::UnknownFlags(unknown)),
        },
    })
}

/// When to come back after the connection is over: `floor` plus a random share of `spread`. The core makes both longer the more
/// edges it has, so that a whole fleet comes back over time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retry {
    /// Milliseconds.
    pub floor_ms: u32,
    /// Milliseconds.
    pub spread_ms: u32,
}

impl Retry {
    fn put(&self, out: &mut BytesMut) {
        out.put_u32(self.floor_ms);
        out.put_u32(self.spread_ms);
    }

    fn take(body: &mut Body) -> Result<Retry, FrameError> {
        Ok(Retry {
            floor_ms: body.u32("retry floor")?,
            spread_ms: body.u32("retry spread")?,
        })
    }
}

/// The core's answer to an accepted hello.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Welcome {
    pub version: u16,
    /// The core's clock, milliseconds since 1970: what an edge without a clock learns the time from.
    pub time_ms: i64,
    /// Largest batch that the core takes, in bytes.
    pub max_batch: u32,
    /// For the reconnect after this connection, until a [`Pace`] says otherwise.
    pub retry: Retry,
    /// Where else the core can be reached (`HOST:PORT`, `quic://…`, `tls://…`); empty: nothing to add to what the edge knows.
    pub cores: Vec<String>,
}

impl Welcome {
    pub(super) fn put(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        out.put_u16(self.version);
        out.put_i64(self.time_ms);
        out.put_u32(self.max_batch);
        self.retry.put(out);
        put_count(out, "core addresses", self.cores.len(), limits::MAX_CORES)?;
        for core in &self.cores {
            put_text(out, "core address", core, limits::MAX_CORE_ADDRESS)?;
        }
        Ok(())
    }

    pub(super) fn take(body: &mut Body) -> Result<Welcome, FrameError> {
        Ok(Welcome {
            version: body.u16("version")?,
            time_ms: body.i64("time")?,
            max_batch: body.u32("largest batch")?,
            retry: Retry::take(body)?,
            cores: {
                let count = body.count("core addresses", limits::MAX_CORES, 2)?;
                (0..count)
                    .map(|_| body.text("core address", limits::MAX_CORE_ADDRESS))
                    .collect::<Result<_, _>>()?
            },
        })
    }
}

/// The core did not let an edge in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloRefused {
    pub code: HelloRefusal,
    /// When to try again, where trying again can help.
    pub retry: Retry,
    pub reason: String,
}

impl HelloRefused {
    pub(super) fn put(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        out.put_u16(self.code.to_wire());
        self.retry.put(out);
        put_reason(out, &self.reason)
    }

    pub(super) fn take(body: &mut Body) -> Result<HelloRefused, FrameError> {
        Ok(HelloRefused {
            code: HelloRefusal::from_wire(body.u16("code")?),
            retry: Retry::take(body)?,
            reason: body.text("reason", limits::MAX_REASON)?,
        })
    }
}

/// What the core wants of an edge from now on. Each one replaces the one before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// Most bytes a second up, over all lanes; 0: no limit.
    pub bytes_per_second: u64,
    pub retry: Retry,
}

impl Pace {
    pub(super) fn put(&self, out: &mut BytesMut) {
        out.put_u64(self.bytes_per_second);
        self.retry.put(out);
    }

    pub(super) fn take(body: &mut Body) -> Result<Pace, FrameError> {
        Ok(Pace {
            bytes_per_second: body.u64("bytes per second")?,
            retry: Retry::take(body)?,
        })
    }
}
