use bytes::Bytes;
use mqtt_codec::{QoS, TopicName};
use std::fmt;
use std::sync::Arc;

/// The client identifier. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(Arc<str>);

impl ClientId {
    pub fn new(text: &str) -> ClientId {
        ClientId(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The application message: what a PUBLISH says, without what belongs to one connection
/// (packet id, DUP, topic alias, subscription identifiers).
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub topic: TopicName,
    pub payload: Bytes,
    /// As published. What a subscriber gets is the lower of this and what it was granted.
    pub qos: QoS,
    /// As published.
    pub retain: bool,
    /// When the message must not be delivered any more: milliseconds since the epoch.
    pub expires_at: Option<i64>,
    /// The tag of the session that published it, present only when that session has a No Local
    /// subscription that matches (nobody else needs to know).
    pub origin: Option<u64>,
    /// Of QoS 0, and only where somebody was given it, or could have been, before it was stored: by this its copy in the log is known again.
    pub number: Option<u64>,
    pub properties: MessageProperties,
}

/// The MQTT 5 properties that travel with a message unaltered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MessageProperties {
    /// Payload Format Indicator: `Some(true)` = UTF-8, `Some(false)` = said to be bytes, `None` = not said.
    pub payload_format_utf8: Option<bool>,
    pub content_type: Option<String>,
    pub response_topic: Option<TopicName>,
    pub correlation_data: Option<Bytes>,
    /// In order, duplicates kept.
    pub user_properties: Vec<(String, String)>,
}
