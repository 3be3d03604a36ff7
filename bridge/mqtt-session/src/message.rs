use bytes::Bytes;
use mqtt_codec::{QoS, TopicName};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

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

/// A time at which something is over, by a clock that may not know the time yet: then it is put right together with the clock, wherever the
/// message waits.
#[derive(Clone, Debug)]
pub struct Expiry {
    at: i64,
    /// What is added once the time is known.
    off: Option<Arc<AtomicI64>>,
}

impl Expiry {
    /// By a clock that does not know the time. `off` becomes what it was off by, in milliseconds.
    pub fn blind(at: i64, off: Arc<AtomicI64>) -> Expiry {
        Expiry { at, off: Some(off) }
    }

    /// Milliseconds since the epoch, as far as is known.
    pub fn at(&self) -> i64 {
        let off = self.off.as_ref();
        let off = off.map_or(0, |off| off.load(Ordering::Relaxed));
        self.at.saturating_add(off)
    }

    /// So many milliseconds later.
    #[must_use]
    pub fn later(self, ms: i64) -> Expiry {
        Expiry {
            at: self.at.saturating_add(ms),
            ..self
        }
    }
}

impl From<i64> for Expiry {
    fn from(at: i64) -> Expiry {
        Expiry { at, off: None }
    }
}

impl PartialEq for Expiry {
    fn eq(&self, other: &Expiry) -> bool {
        self.at() == other.at()
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
    /// When the message must not be delivered any more.
    pub expires_at: Option<Expiry>,
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
