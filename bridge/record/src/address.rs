//! Names of streams and namespaces, and which MQTT topic belongs to which stream.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

use crate::limits;

/// Why a name is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("the name is empty")]
    Empty,
    #[error("the name is {len} bytes long, the limit is {limit}")]
    TooLong { len: usize, limit: usize },
    #[error("the name must not be \".\" or \"..\"")]
    Dots,
    #[error("character {0:?} is not allowed in the name")]
    Character(char),
}

/// A stream's name, by Kafka's rule for topics: 1 to 249 of `[a-zA-Z0-9._-]`, not `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName(Arc<str>);

impl StreamName {
    pub fn new(name: &str) -> Result<StreamName, AddressError> {
        if name.is_empty() {
            return Err(AddressError::Empty);
        }
        if name.len() > limits::MAX_STREAM_NAME {
            return Err(AddressError::TooLong {
                len: name.len(),
                limit: limits::MAX_STREAM_NAME,
            });
        }
        if name == "." || name == ".." {
            return Err(AddressError::Dots);
        }
        match name.chars().find(|&c| !is_stream_char(c)) {
            Some(c) => Err(AddressError::Character(c)),
            None => Ok(StreamName(name.into())),
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The tenant. Part of every address in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// 1 to 255 bytes without control characters.
    pub fn new(name: &str) -> Result<Namespace, AddressError> {
        if name.is_empty() {
            return Err(AddressError::Empty);
        }
        if name.len() > limits::MAX_NAMESPACE {
            return Err(AddressError::TooLong {
                len: name.len(),
                limit: limits::MAX_NAMESPACE,
            });
        }
        match name.chars().find(|c| c.is_control()) {
            Some(c) => Err(AddressError::Character(c)),
            None => Ok(Namespace(name.into())),
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `default`, where nothing else is said.
impl Default for Namespace {
    fn default() -> Self {
        Namespace("default".into())
    }
}

macro_rules! text {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl std::str::FromStr for $name {
            type Err = AddressError;
            fn from_str(name: &str) -> Result<Self, AddressError> {
                Self::new(name)
            }
        }
    )*};
}
text!(StreamName, Namespace);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamAddress {
    pub namespace: Namespace,
    pub name: StreamName,
}

impl StreamAddress {
    #[must_use]
    pub fn new(namespace: Namespace, name: StreamName) -> StreamAddress {
        StreamAddress { namespace, name }
    }
}

impl fmt::Display for StreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

fn is_stream_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// The stream an MQTT topic belongs to: its first level. Bytes that a stream name cannot have become `_xHH`, an empty
/// level `_empty`, and of a level that gets too long the start and a hash of the whole remain.
#[must_use]
pub fn stream_for_topic(topic: &str) -> StreamName {
    let level = topic.split('/').next().unwrap_or_default();
    if level.is_empty() {
        return StreamName("_empty".into());
    }
    if let Ok(name) = StreamName::new(level) {
        return name;
    }
    // "." and ".." are not allowed although their characters are.
    let dots = level == "." || level == "..";
    let mut name = String::with_capacity(level.len() + 16);
    for &byte in level.as_bytes() {
        if !dots && is_stream_char(char::from(byte)) {
            name.push(char::from(byte));
        } else {
            name.push_str("_x");
            for nibble in [byte >> 4, byte & 0x0f] {
                name.extend(
                    char::from_digit(u32::from(nibble), 16).map(|digit| digit.to_ascii_uppercase()),
                );
            }
        }
    }
    if name.len() > limits::MAX_STREAM_NAME {
        let suffix = format!("_h{:016x}", fnv1a(level.as_bytes()));
        // All ASCII by now.
        name.truncate(limits::MAX_STREAM_NAME - suffix.len());
        name.push_str(&suffix);
    }
    StreamName(name.into())
}

/// The MQTT topic under which subscribers see a record of `stream` with this key.
///
/// A key that is a topic of this stream is that topic, so that a Kafka producer can reach MQTT subscribers; a record
/// without a key, or with an empty one, appears under the stream's name, any other under `stream/key`.
#[must_use]
pub fn topic_for_record<'k>(stream: &'k StreamName, key: Option<&'k [u8]>) -> Cow<'k, str> {
    let Some(key) = key.filter(|key| !key.is_empty()) else {
        return Cow::Borrowed(stream.as_str());
    };
    if let Ok(topic) = std::str::from_utf8(key)
        && is_topic(topic)
        && is_of(topic, stream)
    {
        return Cow::Borrowed(topic);
    }
    let mut topic = format!("{stream}/");
    let key: Cow<'_, str> = String::from_utf8_lossy(key);
    for c in key.chars() {
        let c = if matches!(c, '\0' | '+' | '#') {
            '_'
        } else {
            c
        };
        if topic.len() + c.len_utf8() > limits::MAX_TOPIC {
            break;
        }
        topic.push(c);
    }
    Cow::Owned(topic)
}

/// Is this the stream of the topic?
fn is_of(topic: &str, stream: &StreamName) -> bool {
    let level = topic.split('/').next();
    // A first level that can be a name is the name.
    level == Some(stream.as_str()) || stream_for_topic(topic) == *stream
}

/// What a PUBLISH may carry as its topic name (MQTT 5, 4.7.1 and 4.7.3).
fn is_topic(text: &str) -> bool {
    !text.is_empty() && text.len() <= limits::MAX_TOPIC && !text.contains(['\0', '+', '#'])
}

/// FNV-1a, 64 bits: stable for ever, which the standard library's hashers do not promise.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_names_follow_kafkas_rule() {
        for good in ["a", "A-9._x", "...", &"x".repeat(249)] {
            assert_eq!(StreamName::new(good).unwrap().as_str(), good);
        }
        assert_eq!(StreamName::new(""), Err(AddressError::Empty));
        assert_eq!(StreamName::new("."), Err(AddressError::Dots));
        assert_eq!(StreamName::new(".."), Err(AddressError::Dots));
        assert_eq!(StreamName::new("a/b"), Err(AddressError::Character('/')));
        assert_eq!(StreamName::new("ä"), Err(AddressError::Character('ä')));
        assert_eq!(
            StreamName::new(&"x".repeat(250)),
            Err(AddressError::TooLong {
                len: 250,
                limit: 249
            })
        );
    }

    #[test]
    fn the_first_level_is_the_stream() {
        for (topic, stream) in [
            ("sensors/line1/temp", "sensors"),
            ("sensors", "sensors"),
            ("/a/b", "_empty"),
            ("", "_empty"),
            ("$SYS/x", "_x24SYS"),
            ("a b/c", "a_x20b"),
            ("ü/c", "_xC3_xBC"),
            ("./c", "_x2E"),
            ("..", "_x2E_x2E"),
            ("a.b", "a.b"),
        ] {
            assert_eq!(stream_for_topic(topic).as_str(), stream, "{topic}");
        }
    }

    #[test]
    fn long_levels_stay_apart() {
        let (a, b) = ("x".repeat(300), format!("{}y", "x".repeat(299)));
        assert_eq!(stream_for_topic(&a).as_str().len(), 249);
        assert_ne!(stream_for_topic(&a), stream_for_topic(&b));
        assert_eq!(
            topic_for_record(&stream_for_topic(&a), Some(a.as_bytes())),
            a
        );
    }

    #[test]
    fn topics_of_records() {
        for (stream, key, topic) in [
            (
                "sensors",
                Some(&b"sensors/line1/temp"[..]),
                "sensors/line1/temp",
            ),
            ("sensors", None, "sensors"),
            ("sensors", Some(b""), "sensors"),
            ("sensors", Some(b"other/key"), "sensors/other/key"),
            ("sensors", Some(b"sensors/+/x#\0"), "sensors/sensors/_/x__"),
            ("sensors", Some(b"\xff7"), "sensors/\u{fffd}7"),
            ("_x24SYS", Some(b"$SYS/x"), "$SYS/x"),
            ("_empty", Some(b"/a"), "/a"),
        ] {
            assert_eq!(
                topic_for_record(&StreamName::new(stream).unwrap(), key),
                topic,
                "{stream} {key:?}"
            );
        }
    }

    proptest::proptest! {
        /// Publishing to a topic and reading the record gives the topic back, whatever it is.
        #[test]
        fn a_topic_survives(topic in "[^\0+#]{1,300}") {
            let stream = stream_for_topic(&topic);
            proptest::prop_assert!(StreamName::new(stream.as_str()).is_ok());
            let back = topic_for_record(&stream, Some(topic.as_bytes()));
            proptest::prop_assert_eq!(back, topic.as_str());
        }

        /// Whatever the key, the topic is one, and it belongs to the same stream.
        #[test]
        fn any_key_gives_a_topic_of_the_stream(stream in "[a-zA-Z0-9_-]{1,20}", key: Vec<u8>) {
            let stream = StreamName::new(&stream).unwrap();
            let topic = topic_for_record(&stream, Some(&key));
            proptest::prop_assert!(is_topic(&topic));
            proptest::prop_assert_eq!(stream_for_topic(&topic), stream);
        }
    }
}
