use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Reply to `GET /v1/nodes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Nodes {
    pub nodes: Vec<Node>,
}

/// One core process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    pub id: u32,
    pub cluster_id: String,
    /// `meta`, `store`, `serve`
    pub roles: Vec<String>,
    pub version: String,
    pub started_ms: i64,
    pub uptime_seconds: u64,
    /// `mqtt`, `kafka`, `amqp`, `sync`, `admin` → address; a listener that is off is absent.
    pub listeners: BTreeMap<String, String>,
    pub data_dir: String,
    /// What the write-ahead log occupies.
    #[serde(default)]
    pub wal_bytes: u64,
}
