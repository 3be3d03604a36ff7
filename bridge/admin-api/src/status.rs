use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Reply to `GET /v1/status`: the few numbers of a live display. Counters start at 0 with the process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub cluster_id: String,
    pub uptime_seconds: u64,
    /// `mqtt`, `kafka`, `amqp`, `sync`, `admin` → address.
    pub listeners: BTreeMap<String, String>,
    /// Open connections a protocol.
    pub connections: BTreeMap<String, u64>,
    pub streams: u64,
    pub partitions: u64,
    /// Sum over all partitions of (end − start): records that can be read now.
    pub records: u64,
    /// Sum over all partitions of their end: every record ever appended to the streams that exist.
    pub records_appended: u64,
    pub edges: EdgeCounts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeCounts {
    pub connected: u64,
    pub enrolled: u64,
}
