use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Body of `POST /v1/tokens`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// How long it can be used to enrol; none: one hour.
    #[serde(default)]
    pub ttl_seconds: Option<u64>,
    /// Given to every edge that enrols with it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Reply to `POST /v1/tokens`. The core keeps only a hash: this is the one time the token is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub id: String,
    /// What `towline-edge --token` takes.
    pub token: String,
    pub expires_ms: i64,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A secret: never in a log.
        f.debug_struct("Token")
            .field("id", &self.id)
            .field("expires_ms", &self.expires_ms)
            .finish_non_exhaustive()
    }
}
