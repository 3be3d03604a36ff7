//! Requests and replies between the core's admin listener and its callers (the `towline` command line, the console). An edge's admin listener
//! answers what is below `/v1/mqtt` in the same way.
//!
//! HTTP/1.1 and JSON. Every path below `/v1` needs `Authorization: Bearer <secret>`; the secret is in the file
//! `admin.credentials` that the core writes into its data directory ([`Credentials`]). Open to everyone are `/healthz`,
//! `/readyz` and `/metrics`. Every refusal has the body [`ApiError`]. Fields may be added within a version; a reader
//! ignores what it does not know, and a missing one takes its default.
//!
//! | verb and path | request | reply |
//! |---|---|---|
//! | `GET /v1/status` | | [`Status`] |
//! | `GET /v1/edges[?selector=site=a,env!=test]` | | [`Edges`] |
//! | `GET /v1/edges/{name}` | | [`Edge`] |
//! | `GET /v1/edges/{name}/gaps` | | [`Gaps`] |
//! | `GET /v1/edges/{name}/gaps/all[?after=PLACE]` | | [`GapsPage`] |
//! | `GET /v1/edges/{name}/queue` | | [`Queue`]: asks the edge, which takes about a second |
//! | `GET /v1/edges/{name}/queue/peek[?lane=NAME&count=N]` | | [`Peeked`]; 503 when the edge is not connected |
//! | `GET /v1/fleet[?selector=...&live=N]` | | [`Fleet`]; asks the first N connected edges |
//! | `POST /v1/tokens` | [`CreateToken`] | [`Token`] (201) |
//! | `GET /v1/streams` | | [`Streams`] |
//! | `POST /v1/streams` | [`CreateStream`] | [`Stream`] (201) |
//! | `GET /v1/streams/{name}` | | [`Stream`] |
//! | `DELETE /v1/streams/{name}` | | nothing (204) |
//! | `GET /v1/partitions[?stream=NAME]` | | [`Partitions`] |
//! | `GET /v1/nodes` | | [`Nodes`] |
//! | `GET /v1/mqtt/clients` | | [`MqttClients`] |
//! | `GET /v1/mqtt/clients/{id}` | | [`MqttClient`] |
//! | `DELETE /v1/mqtt/clients/{id}` | | nothing (204): its connection is ended |
//! | `GET /v1/mqtt/clients/{id}/subscriptions` | | [`MqttSubscriptions`] |
//! | `DELETE /v1/mqtt/clients/{id}/subscriptions?filter=F` | | nothing (204) |
//! | `GET /v1/mqtt/subscriptions` | | [`MqttSubscriptions`], of all clients |
//! | `GET /v1/mqtt/sessions` | | [`MqttSessions`] |
//! | `DELETE /v1/mqtt/sessions/{id}` | | nothing (204): it is ended, its connection too |
//! | `GET /v1/mqtt/retained[?filter=F&limit=N]` | | [`MqttRetainedMessages`] |
//! | `GET /v1/mqtt/slow` | | [`MqttSlowSubscribers`] |
//! | `GET /v1/mqtt/bans` | | [`MqttBans`] |
//! | `POST /v1/mqtt/bans` | [`MqttBan`] | nothing (204): who is connected and banned is disconnected |
//! | `DELETE /v1/mqtt/bans?who=W` | | nothing (204) |
//! | `GET /v1/storage` | | [`Storage`] |
//! | `POST /v1/storage/verify` | [`StartVerification`] | [`Verification`] (202); one that runs is left alone (409) |
//! | `GET /v1/storage/verify` | | [`Verification`] |
//! | `DELETE /v1/storage/verify` | | [`Verification`], cancelled |
//! | `POST /v1/storage/seal` | | [`Sealed`] |
//! | `GET /v1/users` | | [`Users`] |
//! | `POST /v1/users` | [`CreateUser`] | [`User`] (201) |
//! | `PATCH /v1/users/{name}` | [`AlterUser`] | [`User`] |
//! | `DELETE /v1/users/{name}` | | nothing (204) |
//! | `GET /v1/acl` | | [`AclRules`], in the order in which they are looked at |
//! | `POST /v1/acl` | [`CreateAclRule`] | [`AclRule`] (201) |
//! | `DELETE /v1/acl/{id}` | | nothing (204) |
//! | `POST /v1/acl/check` | [`CheckAcl`] | [`AclVerdict`] |
//!
//! Times are milliseconds since 1970 (UTC), sizes are bytes, durations say their unit in their name.

mod acl;
mod credentials;
mod edge;
mod error;
mod mqtt;
mod node;
mod queue;
mod selector;
mod status;
mod storage;
mod stream;
mod token;
mod user;

pub use acl::{AclRule, AclRules, AclVerdict, CheckAcl, CreateAclRule};
pub use credentials::Credentials;
pub use edge::{Edge, EdgeState, Edges};
pub use error::{ApiError, codes};
pub use mqtt::{
    MQTT_RETAINED_SHOWN, MqttBan, MqttBans, MqttClient, MqttClients, MqttRetained,
    MqttRetainedMessages, MqttSession, MqttSessions, MqttSlowSubscriber, MqttSlowSubscribers,
    MqttSubscription, MqttSubscriptions,
};
pub use node::{Node, Nodes};
pub use queue::{
    EdgeLane, FencingEvent, Fleet, FleetEdge, Gap, GapTotals, Gaps, GapsPage, Peek, Peeked,
    PeekedMessage, Queue, QueueLane, QueueLink, QueueStatus, SetAside, Wear,
};
pub use selector::{Selector, SelectorError};
pub use status::{EdgeCounts, Status};
pub use storage::{
    CacheStorage, CheckpointStorage, ColdStorage, Damage, DamagedRecords, Sealed, SealingStorage,
    StartVerification, Storage, TailStorage, Verification, VerificationState, WalStorage,
};
pub use stream::{AlterStream, CreateStream, Partition, Partitions, Stream, Streams};
pub use token::{CreateToken, Token};
pub use user::{AlterUser, CreateUser, User, Users};

/// Paths, so that both sides write them once.
pub mod paths {
    pub const STATUS: &str = "/v1/status";
    pub const EDGES: &str = "/v1/edges";
    pub const FLEET: &str = "/v1/fleet";
    pub const TOKENS: &str = "/v1/tokens";
    pub const STREAMS: &str = "/v1/streams";
    pub const PARTITIONS: &str = "/v1/partitions";
    pub const NODES: &str = "/v1/nodes";
    pub const MQTT_CLIENTS: &str = "/v1/mqtt/clients";
    pub const MQTT_SUBSCRIPTIONS: &str = "/v1/mqtt/subscriptions";
    pub const MQTT_SESSIONS: &str = "/v1/mqtt/sessions";
    pub const MQTT_RETAINED: &str = "/v1/mqtt/retained";
    pub const MQTT_SLOW: &str = "/v1/mqtt/slow";
    pub const MQTT_BANS: &str = "/v1/mqtt/bans";
    pub const STORAGE: &str = "/v1/storage";
    pub const STORAGE_VERIFY: &str = "/v1/storage/verify";
    pub const STORAGE_SEAL: &str = "/v1/storage/seal";
    pub const USERS: &str = "/v1/users";
    pub const ACL: &str = "/v1/acl";
    pub const ACL_CHECK: &str = "/v1/acl/check";
    pub const HEALTHZ: &str = "/healthz";
    pub const READYZ: &str = "/readyz";
    pub const METRICS: &str = "/metrics";
}
