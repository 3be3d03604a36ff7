use serde::{Deserialize, Serialize};

/// The content of `admin.credentials`, in TOML; the FILE of `towline --credentials FILE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Base of the admin listener, such as `http://127.0.0.1:8484`.
    pub url: String,
    /// For `Authorization: Bearer`. Whoever has it administers the core or the edge.
    pub secret: String,
}
