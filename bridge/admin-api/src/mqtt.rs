use serde::{Deserialize, Serialize};

/// Reply to `GET /v1/mqtt/clients`: who is connected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MqttClients {
    pub clients: Vec<MqttClient>,
}

/// A connected MQTT client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MqttClient {
    pub client: String,
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub address: Option<String>,
    /// `3.1.1` or `5`.
    pub version: String,
    pub connected_ms: i64,
    /// Seconds that its session outlives the connection; none: it does not end.
    #[serde(default)]
    pub session_expiry_seconds: Option<u32>,
    /// Shared ones included.
    pub subscriptions: u32,
    /// QoS 1 and 2 messages that it has not acknowledged.
    pub in_flight: u32,
}

/// Reply to `GET /v1/mqtt/clients/{id}/subscriptions` and `GET /v1/mqtt/subscriptions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MqttSubscriptions {
    pub subscriptions: Vec<MqttSubscription>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MqttSubscription {
    pub client: String,
    /// As it holds: with `$share/...` or `$exclusive/...`, and rewritten where a rule rewrites it.
    pub filter: String,
    pub qos: u8,
    #[serde(default)]
    pub no_local: bool,
    #[serde(default)]
    pub retain_as_published: bool,
    #[serde(default)]
    pub identifier: Option<u32>,
}

/// Reply to `GET /v1/mqtt/sessions`: persistent sessions, as they are stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MqttSessions {
    pub sessions: Vec<MqttSession>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MqttSession {
    pub client: String,
    pub connected: bool,
    #[serde(default)]
    pub disconnected_ms: Option<i64>,
    /// None: it does not end.
    #[serde(default)]
    pub expiry_seconds: Option<u32>,
    pub subscriptions: u32,
    pub in_flight: u32,
    #[serde(default)]
    pub will_pending: bool,
}

/// Most messages in a reply to `GET /v1/mqtt/retained`, whatever is asked for.
pub const MQTT_RETAINED_SHOWN: usize = 10_000;

/// Reply to `GET /v1/mqtt/retained`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MqttRetainedMessages {
    pub messages: Vec<MqttRetained>,
    /// There are more than were asked for.
    #[serde(default)]
    pub more: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MqttRetained {
    pub topic: String,
    pub qos: u8,
    /// Size of the payload.
    pub bytes: u64,
    /// The first bytes of it; what is not UTF-8 is replaced.
    pub payload: String,
    #[serde(default)]
    pub expires_ms: Option<i64>,
}

/// Reply to `GET /v1/mqtt/slow`, the slowest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MqttSlowSubscribers {
    pub subscribers: Vec<MqttSlowSubscriber>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MqttSlowSubscriber {
    pub client: String,
    /// Longest time for which something waited for it.
    pub waited_ms: u64,
    pub last_ms: i64,
}

/// Reply to `GET /v1/mqtt/bans`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MqttBans {
    pub bans: Vec<MqttBan>,
}

/// Also the request `POST /v1/mqtt/bans`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MqttBan {
    /// `client:ID`, `user:NAME` or `address:IP`.
    pub who: String,
    /// When it ends by itself; none: when it is lifted, or the broker is restarted. In a request it is by the broker's clock, which may not know the
    /// time yet.
    #[serde(default)]
    pub until_ms: Option<i64>,
    /// In a request: how long it lasts from now on. Goes before `until_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    #[serde(default)]
    pub reason: String,
}
