//! `$delayed/{seconds}/{topic}`: the message is taken now and published later.

use mqtt_codec::TopicName;

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
    /// `$delayed/` with something else behind it.
    Invalid,
}

pub(crate) fn delayed(topic: &TopicName) -> Delayed {
    let Some(rest) = topic.as_str().strip_prefix("$delayed/") else {
        return Delayed::No;
    };
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

#[cfg(test)]
mod tests {
    use super::*;

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
