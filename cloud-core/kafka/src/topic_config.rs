//! The configuration of a topic: keys that are enforced, and keys whose only value is the one that holds anyway.
//! Every other key is refused: nothing is stored and ignored.

use std::collections::BTreeMap;

use kernel::{STREAM_SETTINGS, SettingValues, Stream, StreamSetting};

/// A key that the kernel does not know: it can be set to the one value that holds anyway.
struct Fixed {
    name: &'static str,
    value: &'static str,
    kind: i8,
    about: &'static str,
}

// The type codes of DescribeConfigs.
const STRING: i8 = 2;
const INT: i8 = 3;
const LONG: i8 = 5;
const DOUBLE: i8 = 6;
const LIST: i8 = 7;

const FIXED: &[Fixed] = &[
    Fixed {
        name: "compression.type",
        value: "producer",
        kind: STRING,
        about: "Batches are stored as the producer compressed them.",
    },
    Fixed {
        name: "message.timestamp.type",
        value: "CreateTime",
        kind: STRING,
        about: "Records keep the time their producer gave them.",
    },
    Fixed {
        name: "min.insync.replicas",
        value: "1",
        kind: INT,
        about: "Copies that must be durable before an acknowledgement.",
    },
];

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("configuration {0} is not supported")]
    UnknownKey(String),
    #[error("configuration {key}={value} is not supported: it must be {allowed}")]
    BadValue {
        key: &'static str,
        value: String,
        allowed: String,
    },
    #[error("configuration {0} needs a value")]
    NoValue(String),
    #[error("configuration {0} is given twice")]
    Twice(String),
    #[error("configuration {0} is not a list: it can be set and deleted only")]
    NotAList(String),
}

/// Checks one setting.
pub fn check(name: &str, value: &str) -> Result<(), ConfigError> {
    let (key, checked) = match find(name)? {
        Key::Kernel(setting) => (setting.name, setting.check(value)),
        Key::Fixed(fixed) if fixed.value == value => (fixed.name, Ok(())),
        Key::Fixed(fixed) => (fixed.name, Err(fixed.value.to_owned())),
    };
    checked.map_err(|allowed| ConfigError::BadValue {
        key,
        value: value.to_owned(),
        allowed,
    })
}

/// Checks that a key exists.
pub fn check_key(name: &str) -> Result<(), ConfigError> {
    find(name).map(|_| ())
}

enum Key {
    /// The kernel enforces it.
    Kernel(&'static StreamSetting),
    Fixed(&'static Fixed),
}

fn find(name: &str) -> Result<Key, ConfigError> {
    let fixed = || FIXED.iter().find(|key| key.name == name);
    StreamSetting::find(name)
        .map(Key::Kernel)
        .or_else(|| fixed().map(Key::Fixed))
        .ok_or_else(|| ConfigError::UnknownKey(name.to_owned()))
}

/// The settings of a request as one map, each checked.
pub fn collect<'a>(
    settings: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut config = BTreeMap::new();
    for (name, value) in settings {
        find(name)?;
        let value = value.ok_or_else(|| ConfigError::NoValue(name.to_owned()))?;
        check(name, value)?;
        if config.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(ConfigError::Twice(name.to_owned()));
        }
    }
    Ok(config)
}

/// A key and what it is for one topic.
pub struct Effective {
    pub name: &'static str,
    pub value: String,
    pub default: &'static str,
    /// Set on the topic, as opposed to what holds without being set.
    pub set: bool,
    pub kind: i8,
    pub documentation: &'static str,
}

/// All keys with the values that hold for a topic with this configuration.
pub fn effective(config: &BTreeMap<String, String>) -> Vec<Effective> {
    let of = |name: &'static str, default: &'static str, kind, documentation| Effective {
        name,
        value: config.get(name).map_or(default, String::as_str).to_owned(),
        default,
        set: config.contains_key(name),
        kind,
        documentation,
    };
    let kernel = STREAM_SETTINGS.iter().map(|setting| {
        let kind = match setting.values {
            SettingValues::Number(_) => LONG,
            SettingValues::OneOf(_) => STRING,
            SettingValues::AnyOf(_) => LIST,
            SettingValues::Ratio => DOUBLE,
        };
        of(setting.name, setting.default, kind, setting.about)
    });
    let fixed = FIXED
        .iter()
        .map(|key| of(key.name, key.value, key.kind, key.about));
    kernel.chain(fixed).collect()
}

/// The values that hold for a topic.
pub fn of_stream(stream: &Stream) -> Vec<Effective> {
    effective(&stream.config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_enforced_is_accepted_and_all_else_is_refused() {
        for (name, value, good) in [
            ("retention.ms", "60000", true),
            ("retention.ms", "-1", true),
            ("retention.ms", "-2", false),
            ("retention.ms", "a day", false),
            ("retention.bytes", "1048576", true),
            ("cleanup.policy", "delete", true),
            ("cleanup.policy", "compact", true),
            ("cleanup.policy", "compact,delete", true),
            ("cleanup.policy", "compact,shred", false),
            ("cleanup.policy", "", false),
            ("delete.retention.ms", "0", true),
            ("delete.retention.ms", "-1", false),
            ("min.cleanable.dirty.ratio", "0.1", true),
            ("min.cleanable.dirty.ratio", "2", false),
            ("min.cleanable.dirty.ratio", "NaN", false),
            ("min.insync.replicas", "2", false),
            ("segment.bytes", "1048576", false),
            ("no.such.key", "1", false),
        ] {
            assert_eq!(check(name, value).is_ok(), good, "{name}={value}");
        }
    }
}
