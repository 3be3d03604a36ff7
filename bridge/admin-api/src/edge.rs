use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{EdgeLane, FencingEvent};

/// Reply to `GET /v1/edges`, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Edges {
    pub edges: Vec<Edge>,
}

/// An enrolled edge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    pub name: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    pub state: EdgeState,
    /// Remote address of the link, while there is one.
    #[serde(default)]
    pub remote: Option<String>,
    /// Start of the present link.
    #[serde(default)]
    pub connected_since_ms: Option<i64>,
    /// Last time anything was heard of it; none: never since it was enrolled.
    #[serde(default)]
    pub last_seen_ms: Option<i64>,
    #[serde(default)]
    pub enrolled_ms: Option<i64>,
    /// Serial number of its certificate, hexadecimal.
    #[serde(default)]
    pub certificate_serial: String,
    #[serde(default)]
    pub certificate_expires_ms: Option<i64>,
    /// Producer id under which its batches are in the log.
    #[serde(default)]
    pub producer_id: Option<i64>,
    /// Number of its newest start: the epoch of what it writes now.
    #[serde(default)]
    pub incarnation: Option<i16>,
    #[serde(default)]
    pub lanes: Vec<EdgeLane>,
    /// Copies of it that were not let in since it was enrolled, oldest first.
    #[serde(default)]
    pub fenced: Vec<FencingEvent>,
    /// Whether it knew what time it is when it connected last.
    #[serde(default)]
    pub time_known: bool,
    /// Version of the program it runs, as it says itself.
    #[serde(default)]
    pub version: Option<String>,
}

/// Whether there is a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EdgeState {
    Connected,
    Disconnected,
}
