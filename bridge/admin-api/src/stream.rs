use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Body of `POST /v1/streams`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateStream {
    pub name: String,
    /// None: the core's default.
    #[serde(default)]
    pub partitions: Option<u32>,
    /// `retention.ms` and so on: Kafka's names. An unknown key is refused.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
}

/// Body of `PATCH /v1/streams/{name}`. What it does not name stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlterStream {
    /// `retention.ms` and so on; null: the default again. An unknown key is refused.
    pub config: BTreeMap<String, Option<String>>,
}

/// Reply to `GET /v1/streams`, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Streams {
    pub streams: Vec<Stream>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    pub namespace: String,
    pub name: String,
    /// The topic id Kafka clients see.
    pub id: String,
    pub partitions: u32,
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// What holds for every setting that is enforced: as in `config`, or the default.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    pub created_ms: i64,
    /// Records that can be read now, over all partitions.
    #[serde(default)]
    pub records: u64,
}

/// Reply to `GET /v1/partitions`, sorted by stream and number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Partitions {
    pub partitions: Vec<Partition>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Partition {
    pub namespace: String,
    pub stream: String,
    pub partition: u32,
    /// First offset that can be read.
    pub log_start: i64,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    /// The offset the next record gets.
    pub end: i64,
    /// Bytes of batches that are not sealed, and of those in the cold store.
    #[serde(default)]
    pub hot_bytes: u64,
    #[serde(default)]
    pub cold_bytes: u64,
    /// Id of the node that serves it.
    pub node: u32,
}
