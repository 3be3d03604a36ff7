//! Finding the retained messages for a new subscription.

use frontend::retained;
use kernel::Kernel;
use mqtt_broker::backend::Message;
use mqtt_broker::convert;
use mqtt_codec::{TopicFilter, TopicName};
use record::{Namespace, stream_for_topic};

/// All retained messages that match and have not expired at `now_ms`.
pub fn matching(
    kernel: &Kernel,
    namespace: &Namespace,
    filter: &TopicFilter,
    now_ms: i64,
) -> Vec<Message> {
    let rows = if filter.has_wildcard() {
        kernel.table_scan(
            retained::TABLE,
            &retained::key(namespace, literal_prefix(filter.as_str())),
        )
    } else {
        let key = retained::key(namespace, filter.as_str());
        kernel
            .table_get(retained::TABLE, &key)
            .map(|value| (key, value))
            .into_iter()
            .collect()
    };
    let messages = rows.into_iter().filter_map(|(key, value)| {
        let topic = TopicName::new(retained::topic(namespace, &key)?).ok()?;
        if !filter.matches(&topic) {
            return None;
        }
        let Some(record) = retained::record(value) else {
            tracing::error!(%topic, "a retained message cannot be read: written by a newer version, or damaged");
            return None;
        };
        let message = convert::message(&stream_for_topic(topic.as_str()), &record)?;
        Some(Message { topic, retain: true, ..message })
    });
    messages
        .filter(|message| !message.is_expired(now_ms))
        .collect()
}

/// What every matching topic begins with. `sport/#` also matches `sport` itself, so the slash before a wildcard is left out.
fn literal_prefix(filter: &str) -> &str {
    let literal = filter.split(['+', '#']).next().unwrap_or_default();
    literal.strip_suffix('/').unwrap_or(literal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        for (filter, expected) in [
            ("#", ""),
            ("+/a", ""),
            ("a/#", "a"),
            ("a/b/+/c", "a/b"),
            ("/+", ""),
            ("a//#", "a/"),
        ] {
            assert_eq!(literal_prefix(filter), expected, "{filter}");
        }
    }
}
