//! Topic names and topic filters (MQTT 5 section 4.7).

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Longest topic name or filter the wire can carry, in bytes of UTF-8.
const MAX_TOPIC_LEN: usize = 65_535;

/// Why a string is not a topic name or a topic filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("a topic must have at least one character [MQTT-4.7.3-1]")]
    Empty,
    #[error("a topic must not contain the null character [MQTT-4.7.3-2]")]
    Null,
    #[error("a topic must not be longer than 65535 bytes [MQTT-4.7.3-3]")]
    TooLong,
    #[error("a topic name must not contain wildcards [MQTT-4.7.1-1]")]
    WildcardInName,
    #[error("# must be the last character and the only one of its level [MQTT-4.7.1-1]")]
    MisplacedMulti,
    #[error("+ must be the only character of its level [MQTT-4.7.1-2]")]
    MisplacedSingle,
}

fn check_common(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        Err(TopicError::Empty)
    } else if text.len() > MAX_TOPIC_LEN {
        Err(TopicError::TooLong)
    } else if text.contains('\0') {
        Err(TopicError::Null)
    } else {
        Ok(())
    }
}

/// A valid topic name: not empty, no wildcards, no null character. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    pub fn new(text: &str) -> Result<TopicName, TopicError> {
        check_common(text)?;
        if text.contains(['+', '#']) {
            return Err(TopicError::WildcardInName);
        }
        Ok(TopicName(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A valid topic filter. Cheap to clone. `$share/...` is also a valid filter here; see [`TopicFilter::is_shared`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter(Arc<str>);

impl TopicFilter {
    pub fn new(text: &str) -> Result<TopicFilter, TopicError> {
        check_common(text)?;
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            if level.contains('#') && (level.len() > 1 || levels.peek().is_some()) {
                return Err(TopicError::MisplacedMulti);
            }
            if level.contains('+') && level.len() > 1 {
                return Err(TopicError::MisplacedSingle);
            }
        }
        Ok(TopicFilter(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels, in order: `a/+/#` gives `a`, `+`, `#`.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    pub fn has_wildcard(&self) -> bool {
        self.0.contains(['+', '#'])
    }

    /// Is this a shared subscription (MQTT 5 section 4.8.2)?
    pub fn is_shared(&self) -> bool {
        self.0.starts_with("$share/")
    }

    /// Name and topic filter of a shared subscription `$share/{ShareName}/{filter}`. `None`: it is none, or none that is allowed:
    /// a name has a character and no wildcard, and a filter follows it [MQTT-4.8.2-1, 4.8.2-2].
    pub fn share(&self) -> Option<(&str, TopicFilter)> {
        let (name, filter) = self.0.strip_prefix("$share/")?.split_once('/')?;
        if name.is_empty() || name.contains(['+', '#']) || filter.starts_with("$share/") {
            return None;
        }
        Some((name, TopicFilter::new(filter).ok()?))
    }

    pub fn matches(&self, topic: &TopicName) -> bool {
        filter_matches(&self.0, topic.as_str())
    }
}

/// So that a map by filter can be asked with a topic: a filter without wildcards matches exactly that.
impl Borrow<str> for TopicFilter {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Does a topic filter match a topic name? Both must be valid. Wildcards at the first level
/// never match a topic that begins with `$` [MQTT-4.7.2-1].
pub fn filter_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut topic_levels = topic.split('/');
    for level in filter.split('/') {
        if level == "#" {
            return true; // also matches the parent level: by now `sport` of `sport/#` is consumed
        }
        match topic_levels.next() {
            Some(name) if level == "+" || level == name => {}
            _ => return false,
        }
    }
    topic_levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_section_4_7_says() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/ranking",
                true,
            ),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
                true,
            ),
            ("sport/#", "sport", true),
            ("#", "a/b", true),
            ("#", "/", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/monitor", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("a/+/c/#", "a/b/c", true),
            ("a/b", "a/b/c", false),
            ("a/b/c", "a/b", false),
            ("ACCOUNTS", "Accounts", false),
            ("a//+", "a//b", true),
            ("a/+/b", "a//b", true),
        ] {
            assert_eq!(
                filter_matches(filter, topic),
                expected,
                "{filter} on {topic}"
            );
        }
    }

    #[test]
    fn shared_subscriptions_as_section_4_8_2_says() {
        for (filter, expected) in [
            ("$share/g/a/+", Some(("g", "a/+"))),
            ("$share/g//a", Some(("g", "/a"))),
            ("$share/g/#", Some(("g", "#"))),
            ("$share/g/", None),
            ("$share/g", None),
            ("$share//a", None),
            ("$share/+/a", None),
            ("$share/#", None),
            ("$share/g/$share/h/a", None),
            ("share/g/a", None),
        ] {
            let filter = TopicFilter::new(filter).unwrap();
            let share = filter.share();
            let share = share.as_ref().map(|(name, inner)| (*name, inner.as_str()));
            assert_eq!(share, expected, "{filter}");
        }
    }

    #[test]
    fn names_and_filters_are_checked() {
        for bad in ["", "a\0b", "a/+", "a/#", "#"] {
            assert!(TopicName::new(bad).is_err(), "{bad:?}");
        }
        for bad in [
            "", "a\0", "a/b#", "#/a", "a+", "+a/b", "a/#/b", "##", "a/++",
        ] {
            assert!(TopicFilter::new(bad).is_err(), "{bad:?}");
        }
        for good in ["/", "#", "+", "+/tennis/#", "/+/", "a b/c", "$share/g/a"] {
            assert!(TopicFilter::new(good).is_ok(), "{good:?}");
        }
        assert!(TopicName::new(&"x".repeat(65_536)).is_err());
        assert!(TopicName::new(&"x".repeat(65_535)).is_ok());
    }
}
