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
    /// Which client published it, see `origin.rs`. Present only where it can matter for No Local: the client has such a subscription that matches, or
    /// may have one when the message comes to it later (a will, a retained message). In older records a number that fits no client.
    pub origin: Option<u64>,
    /// Of QoS 0, and only where somebody was given it, or could have been, before it was stored: by this its copy in the log is known again.
    pub number: Option<u64>,
    pub properties: MessageProperties,
}

impl Message {
    /// Bytes that it takes in memory, besides what every message takes.
    pub fn size(&self) -> usize {
        self.topic.as_str().len() + self.payload.len() + self.properties.size()
    }

    /// Without the buffers that topic, payload and properties came in: for whoever keeps it long.
    #[must_use]
    pub fn detached(&self) -> Message {
        let mut copy = self.clone();
        copy.payload = Bytes::copy_from_slice(&copy.payload);
        let data = &mut copy.properties.correlation_data;
        *data = data.take().map(|data| Bytes::copy_from_slice(&data));
        copy
    }
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

impl MessageProperties {
    fn size(&self) -> usize {
        let text = |text: &String| size_of::<String>() + text.len();
        let pairs = self.user_properties.iter();
        pairs
            .map(|(name, value)| text(name) + text(value))
            .sum::<usize>()
            + self.content_type.as_ref().map_or(0, String::len)
            + self.response_topic.as_ref().map_or(0, |t| t.as_str().len())
            + self.correlation_data.as_ref().map_or(0, Bytes::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        let buffer = Bytes::from(vec![7; 1_000]);
        Message {
            topic: TopicName::new("t/1").unwrap(),
            payload: buffer.slice(..10),
            qos: QoS::AtMostOnce,
            retain: false,
            expires_at: None,
            origin: None,
            number: None,
            properties: MessageProperties {
                correlation_data: Some(buffer.slice(10..30)),
                ..MessageProperties::default()
            },
        }
    }

    #[test]
    fn whatever_a_client_can_make_long_is_counted() {
        let mut message = message();
        assert_eq!(message.size(), 3 + 10 + 20);
        let properties = &mut message.properties;
        properties.content_type = Some("x".repeat(100));
        properties.response_topic = Some(TopicName::new("a/b/c").unwrap());
        assert_eq!(message.size(), 33 + 100 + 5);
        let pair = ("n".to_owned(), "v".repeat(1_000));
        message.properties.user_properties = vec![pair; 3];
        let pairs = message.size() - 138;
        assert!((3 * 1_001..3 * 1_100).contains(&pairs), "{pairs}");
    }

    #[test]
    fn what_is_detached_keeps_nothing_of_what_it_came_with() {
        let message = message();
        let copy = message.detached();
        assert_eq!(copy, message);
        for (copy, original) in [
            (&copy.payload, &message.payload),
            (
                copy.properties.correlation_data.as_ref().unwrap(),
                message.properties.correlation_data.as_ref().unwrap(),
            ),
        ] {
            assert_ne!(copy.as_ptr(), original.as_ptr());
        }
    }
}
