//! `$delayed/{seconds}/{topic}`: the message is taken now and published later.

use mqtt_codec::TopicName;

const PREFIX: &str = "$delayed";

/// Longest delay, in seconds: as in EMQX, seven weeks.
const MAX_DELAY: u64 = 4_294_967;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Delayed {
    /// An ordinary topic.
    No,
    By {
        seconds: u64,
        topic: TopicName,
    },
    /// `$delayed` with nothing or something else behind it.
    Invalid,
}

pub(crate) fn delayed(topic: &TopicName) -> Delayed {
    let (first, rest) = topic
        .as_str()
        .split_once('/')
        .unwrap_or((topic.as_str(), ""));
    if first != PREFIX {
        return Delayed::No;
    }
    let parsed = rest.split_once('/').and_then(|(seconds, topic)| {
        let digits = seconds.bytes().all(|byte| byte.is_ascii_digit());
        let seconds: u64 = digits.then(|| seconds.parse().ok()).flatten()?;
        let topic = TopicName::new(topic).ok()?;
        let own = topic.as_str().starts_with('$');
        (seconds <= MAX_DELAY && !own).then_some((seconds, topic))
    });
    match parsed {
        Some((seconds, topic)) => Delayed::By { seconds, topic },
        None => Delayed::Invalid,
    }
}

/// `$delayed/{seconds}/`, and the topic behind it.
pub(crate) fn split_delayed(topic: &str) -> Option<(&str, &str)> {
    let (first, rest) = topic.split_once('/')?;
    let (seconds, _) = rest.split_once('/')?;
    let is_delayed = first == PREFIX;
    is_delayed.then(|| topic.split_at(PREFIX.len() + seconds.len() + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topic_is_found_behind_it() {
        for (topic, expected) in [
            ("$delayed/5/a/b", Some(("$delayed/5/", "a/b"))),
            ("$delayed//a", Some(("$delayed//", "a"))),
            ("$delayed/5", None),
            ("$delayed", None),
            ("delayed/5/a", None),
            ("$delayedx/5/a", None),
        ] {
            assert_eq!(split_delayed(topic), expected, "{topic}");
        }
    }

    #[test]
    fn the_delay_and_the_topic_are_read() {
        for (topic, expected) in [
            ("a/b", Some(None)),
            ("$delayed/5/a/b", Some(Some((5, "a/b")))),
            ("$delayed/0//", Some(Some((0, "/")))),
            ("$delayed/4294967/a", Some(Some((4_294_967, "a")))),
            ("$delayed/4294968/a", None),
            ("$delayed/-1/a", None),
            ("$delayed//a", None),
            ("$delayed/5", None),
            ("$delayed", None),
            ("$delayed/", None),
            ("$delayedx/5", Some(None)),
            ("$delayed/5/", None),
            ("$delayed/5/$delayed/5/a", None),
            ("$delayed/99999999999999999999/a", None),
        ] {
            let expected = match expected {
                None => Delayed::Invalid,
                Some(None) => Delayed::No,
                Some(Some((seconds, topic))) => Delayed::By {
                    seconds,
                    topic: TopicName::new(topic).unwrap(),
                },
            };
            assert_eq!(
                delayed(&TopicName::new(topic).unwrap()),
                expected,
                "{topic}"
            );
        }
    }
}
