//! The configuration of a topic: keys that are enforced, and keys whose only value is the one that holds anyway.
//! Every other key is refused: nothing is stored and ignored.

use std::collections::BTreeMap;

use kernel::Stream;

/// What a key may be set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    /// A number from -1 on; the kernel enforces it.
    Number,
    /// Only this.
    Only(&'static str),
}

/// One key.
struct Key {
    name: &'static str,
    default: &'static str,
    values: Values,
    kind: i8,
    documentation: &'static str,
}

// The type codes of DescribeConfigs.
const STRING: i8 = 2;
const INT: i8 = 3;
const LONG: i8 = 5;
const LIST: i8 = 7;

const KEYS: &[Key] = &[
    Key {
        name: "retention.ms",
        default: "-1",
        values: Values::Number,
        kind: LONG,
        documentation: "Age in milliseconds after which records are deleted; -1: never.",
    },
    Key {
        name: "retention.bytes",
        default: "-1",
        values: Values::Number,
        kind: LONG,
        documentation: "Bytes kept of each partition; -1: no bound.",
    },
    Key {
        name: "cleanup.policy",
        default: "delete",
        values: Values::Only("delete"),
        kind: LIST,
        documentation: "What happens to old records. Compaction is not supported yet.",
    },
    Key {
        name: "compression.type",
        default: "producer",
        values: Values::Only("producer"),
        kind: STRING,
        documentation: "Batches are stored as the producer compressed them.",
    },
    Key {
        name: "message.timestamp.type",
        default: "CreateTime",
        values: Values::Only("CreateTime"),
        kind: STRING,
        documentation: "Records keep the time their producer gave them.",
    },
    Key {
        name: "min.insync.replicas",
        default: "1",
        values: Values::Only("1"),
        kind: INT,
        documentation: "Copies that must be durable before an acknowledgement.",
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
    let key = find(name)?;
    let (good, allowed) = match key.values {
        Values::Number => (
            value.parse::<i64>().is_ok_and(|number| number >= -1),
            "a whole number, at least -1".to_owned(),
        ),
        Values::Only(only) => (value == only, only.to_owned()),
    };
    if good {
        Ok(())
    } else {
        Err(ConfigError::BadValue {
            key: key.name,
            value: value.to_owned(),
            allowed,
        })
    }
}

/// Checks that a key exists.
pub fn check_key(name: &str) -> Result<(), ConfigError> {
    find(name).map(|_| ())
}

fn find(name: &str) -> Result<&'static Key, ConfigError> {
    KEYS.iter()
        .find(|key| key.name == name)
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
    let effective = |key: &Key| Effective {
        name: key.name,
        value: config
            .get(key.name)
            .map_or(key.default, String::as_str)
            .to_owned(),
        default: key.default,
        set: config.contains_key(key.name),
        kind: key.kind,
        documentation: key.documentation,
    };
    KEYS.iter().map(effective).collect()
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
            ("cleanup.policy", "compact", false),
            ("min.insync.replicas", "2", false),
            ("segment.bytes", "1048576", false),
            ("no.such.key", "1", false),
        ] {
            assert_eq!(check(name, value).is_ok(), good, "{name}={value}");
        }
    }
}
