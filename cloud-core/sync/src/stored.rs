//! What is kept about an edge: a row of a kernel table.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sync_quic::{Hello, TimeQuality};

use crate::incarnation::Newest;
use crate::limits;
use crate::registry::RegistryError;

/// The kernel table. Key: edge name. Value: JSON of [`StoredEdge`].
pub(crate) const TABLE: &str = "sync.edges";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredEdge {
    /// SHA-256 of the certificate that it has to show, hexadecimal.
    pub fingerprint: String,
    pub serial: String,
    pub certificate_expires_ms: i64,
    pub enrolled_ms: i64,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(flatten)]
    pub newest: Newest,
    #[serde(default)]
    pub software: Option<String>,
    #[serde(default)]
    pub lanes: Vec<EdgeLane>,
    /// Whether the edge knew the time when it connected last.
    #[serde(default)]
    pub time_known: bool,
    #[serde(default)]
    pub remote: Option<SocketAddr>,
    #[serde(default)]
    pub first_seen_ms: Option<i64>,
    #[serde(default)]
    pub last_seen_ms: Option<i64>,
    /// Oldest first.
    #[serde(default)]
    pub fenced: Vec<FencingEvent>,
}

/// A lane of an edge, as its last hello names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeLane {
    pub number: u8,
    pub name: String,
    /// 0 to 9; higher goes first.
    pub priority: u8,
    pub link_compression: bool,
    /// Highest frame that is committed here.
    #[serde(default)]
    pub last_frame: Option<u64>,
}

/// A copy of an edge that was not let in. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FencingEvent {
    pub first_ms: i64,
    pub last_ms: i64,
    /// How often it tried.
    pub times: u64,
    /// Where the copy connected from, at last.
    pub remote: SocketAddr,
    /// Where the edge that is let in is or was.
    pub other: Option<SocketAddr>,
    pub producer_id: i64,
    pub incarnation: i16,
    /// How it shows that it is a copy.
    pub reason: String,
}

impl StoredEdge {
    /// Whether the hello says nothing that is not stored.
    pub(crate) fn knows(&self, hello: &Hello) -> bool {
        self.software.as_deref() == Some(&hello.software)
            && self.time_known == (hello.time == TimeQuality::Known)
            && self.lanes.len() == hello.lanes.len()
            && self.lanes.iter().zip(&hello.lanes).all(|(known, said)| {
                (
                    known.number,
                    &known.name,
                    known.priority,
                    known.link_compression,
                ) == (
                    said.number,
                    &said.name,
                    said.priority,
                    said.link_compression,
                )
            })
    }

    /// Takes over what people want to know of a hello.
    pub(crate) fn hear(&mut self, hello: &Hello) {
        self.software = Some(hello.software.clone());
        self.time_known = hello.time == TimeQuality::Known;
        let before = std::mem::take(&mut self.lanes);
        let last_frame = |number| {
            let lane = before.iter().find(|lane| lane.number == number);
            lane.and_then(|lane| lane.last_frame)
        };
        self.lanes = hello
            .lanes
            .iter()
            .map(|lane| EdgeLane {
                number: lane.number,
                name: lane.name.clone(),
                priority: lane.priority,
                link_compression: lane.link_compression,
                last_frame: last_frame(lane.number),
            })
            .collect();
    }

    /// Notes a frame as committed.
    pub(crate) fn committed(&mut self, number: u8, frame: u64) {
        let has_room = self.lanes.len() < 2 * sync::limits::MAX_LANES;
        match self.lanes.iter_mut().find(|lane| lane.number == number) {
            // A connection that was taken over may report its last ones late.
            Some(lane) => lane.last_frame = lane.last_frame.max(Some(frame)),
            // A lane that the configuration of the edge no longer has is drained under its number.
            None if has_room => self.lanes.push(EdgeLane {
                number,
                name: format!("lane {number}"),
                priority: 0,
                link_compression: false,
                last_frame: Some(frame),
            }),
            None => {}
        }
    }

    /// Notes that a copy was not let in. True when that is new, and not the same copy once more.
    pub(crate) fn fence(&mut self, event: FencingEvent) -> bool {
        let same = self.fenced.iter_mut().find(|known| {
            known.remote.ip() == event.remote.ip()
                && (known.producer_id, known.incarnation) == (event.producer_id, event.incarnation)
        });
        if let Some(known) = same {
            known.last_ms = event.last_ms;
            known.times += 1;
            known.remote = event.remote;
            return false;
        }
        if self.fenced.len() >= limits::MAX_FENCING_EVENTS {
            self.fenced.remove(0);
        }
        self.fenced.push(event);
        true
    }
}

pub(crate) fn encode(value: &impl Serialize) -> Result<Bytes, RegistryError> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(RegistryError::Encode)
}
