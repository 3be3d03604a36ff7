use serde::{Deserialize, Serialize};

use crate::Edge;

/// What an edge says of itself when it is asked `status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// The edge's clock.
    pub time_ms: i64,
    /// Whether it knows that its clock is right.
    #[serde(default)]
    pub time_known: bool,
    pub uptime_seconds: u64,
    pub link: QueueLink,
    #[serde(default)]
    pub lanes: Vec<QueueLane>,
    /// Batches that the core refused for good, and that are kept on the edge.
    pub quarantined: u64,
    /// Parts of its store that could not be read when it was started, and were set aside: segments, and the ledger.
    #[serde(default)]
    pub set_aside: u64,
    /// Bytes of all segments on its disk.
    pub disk_bytes: u64,
    pub wear: Wear,
}

/// The edge's view of its link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueLink {
    pub up: bool,
    /// One sentence.
    pub state: String,
    /// `quic` or `tls`.
    #[serde(default)]
    pub transport: Option<String>,
    /// Connections since the edge was started.
    #[serde(default)]
    pub connections: u64,
}

/// One lane of an edge: what waits in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueLane {
    pub lane: u8,
    pub name: String,
    /// 0 to 9; higher goes first.
    #[serde(default)]
    pub priority: Option<u8>,
    /// Messages that the core has not acknowledged.
    pub messages: u64,
    /// Bytes of the segments that hold them.
    pub bytes: u64,
    /// When the oldest of them was stamped.
    #[serde(default)]
    pub oldest_ms: Option<i64>,
    /// Messages a second, over the last second.
    #[serde(default)]
    pub in_per_second: f64,
    #[serde(default)]
    pub out_per_second: f64,
    /// Messages that were evicted since the edge was started.
    #[serde(default)]
    pub evicted: u64,
    /// Gaps that the core has not been told of yet.
    #[serde(default)]
    pub gaps: u64,
}

/// What the outbox costs the flash, since the edge was started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wear {
    /// By all that the edge keeps, as far as its system counts that.
    pub written_bytes: u64,
    /// Topics and payloads of the messages in them: what writing would cost without any overhead.
    pub payload_bytes: u64,
}

impl QueueStatus {
    /// Messages that wait, over all lanes.
    pub fn messages(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.messages).sum()
    }

    /// Bytes that wait, over all lanes.
    pub fn bytes(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.bytes).sum()
    }

    /// How long the oldest message has waited.
    pub fn lag_ms(&self) -> Option<i64> {
        let oldest = self.lanes.iter().filter_map(|lane| lane.oldest_ms).min()?;
        Some((self.time_ms - oldest).max(0))
    }
}

/// Reply to `GET /v1/edges/{name}/queue`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    pub edge: Edge,
    /// What the edge said; when it is not connected, what it said last since this core was started.
    #[serde(default)]
    pub status: Option<QueueStatus>,
    /// When it said so, by the core's clock.
    #[serde(default)]
    pub asked_ms: Option<i64>,
    /// Why that is not of now.
    #[serde(default)]
    pub stale: Option<String>,
}

/// What an edge is asked with `peek`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peek {
    /// Name or number; none: all lanes.
    #[serde(default)]
    pub lane: Option<String>,
    /// Messages of each lane at most.
    #[serde(default)]
    pub count: Option<u32>,
}

/// Reply to `GET /v1/edges/{name}/queue/peek`, and what an edge answers to `peek`: the next messages that it will send.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peeked {
    pub messages: Vec<PeekedMessage>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeekedMessage {
    pub lane: String,
    /// Number of the outbox entry that it is in.
    pub entry: u64,
    pub stream: String,
    pub topic: String,
    pub time_ms: i64,
    /// Size of the payload.
    pub bytes: u64,
    /// The first bytes of the payload; what is not UTF-8 is replaced.
    pub payload: String,
}

/// Reply to `GET /v1/fleet`: the edges, and what those that are connected say of themselves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fleet {
    /// The core's clock.
    pub time_ms: i64,
    pub edges: Vec<FleetEdge>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FleetEdge {
    pub edge: Edge,
    /// Records and bytes of batches that came from it since the core was started.
    pub records: u64,
    pub bytes: u64,
    #[serde(default)]
    pub status: Option<QueueStatus>,
}

/// A copy of an edge that was not let in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FencingEvent {
    pub first_ms: i64,
    pub last_ms: i64,
    /// How often it tried.
    pub times: u64,
    /// Where the copy connected from, at last.
    pub remote: String,
    /// Where the one that is let in was then.
    #[serde(default)]
    pub other: Option<String>,
    pub producer_id: i64,
    pub incarnation: i16,
    /// How it shows that it is a copy.
    pub reason: String,
}

/// Entries of an edge's lane that will never come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    pub lane: u8,
    pub name: String,
    /// A replaced disk has another one, and numbers its entries from the beginning again.
    #[serde(default)]
    pub producer_id: i64,
    pub first: u64,
    pub last: u64,
    pub received_ms: i64,
    /// What the edge says: `reason`, `records`, `bytes`, `first_time_ms`, `last_time_ms`.
    pub report: serde_json::Value,
}

/// A lane of an edge, as the core knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EdgeLane {
    pub number: u8,
    pub name: String,
    /// 0 to 9; higher goes first.
    pub priority: u8,
    pub link_compression: bool,
    /// Last outbox entry that is committed here.
    #[serde(default)]
    pub last_frame: Option<u64>,
}

/// Reply to `GET /v1/edges/{name}/gaps`: the newest, by lane and place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gaps {
    pub gaps: Vec<Gap>,
    #[serde(default)]
    pub totals: GapTotals,
    /// What the edge could not read at its starts; none: nothing ever was.
    #[serde(default)]
    pub set_aside: Option<SetAside>,
}

/// Parts of what an edge had stored that it could not read at its starts and has set aside, on all disks that it ever had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    pub ledgers: u64,
    /// Single values of a ledger.
    pub values: u64,
    pub segments: u64,
    pub identities: u64,
    /// When the core heard of the last.
    pub last_ms: i64,
}

/// Of all gaps that an edge ever reported, also of those that are not listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapTotals {
    pub ranges: u64,
    /// Messages in them, as far as the edge knew.
    pub records: u64,
    pub bytes: u64,
}

/// Reply to `GET /v1/edges/{name}/gaps/all`: a page of every gap that stream `_gaps` has of the edge, in the order in which the core heard of them.
/// A page may be empty and not be the last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GapsPage {
    pub gaps: Vec<Gap>,
    /// What to ask the next page with, as `after`; none: that was all.
    #[serde(default)]
    pub next: Option<String>,
    /// Records that this page would have come to, and that are not in the stream any more: of this edge or of others.
    #[serde(default)]
    pub gone: u64,
    /// The same of records that are damaged.
    #[serde(default)]
    pub damaged: u64,
}
