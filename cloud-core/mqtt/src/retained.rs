//! Finding the retained messages for a new subscription.

use bytes::Bytes;
use frontend::retained;
use kernel::Kernel;
use mqtt_broker::backend::Message;
use mqtt_broker::convert;
use mqtt_codec::{TopicFilter, TopicName};
use record::{Namespace, stream_for_topic};

use crate::walk;

/// All retained messages that match and have not expired at `now_ms`.
pub async fn matching(
    kernel: &Kernel,
    namespace: &Namespace,
    filter: &TopicFilter,
    now_ms: i64,
) -> Vec<Message> {
    let text = filter.as_str();
    if !filter.has_wildcard() {
        let key = retained::key(namespace, text);
        let value = kernel.table_get(retained::TABLE, &key);
        let message = value.and_then(|value| message(namespace, filter, (key, value), now_ms));
        return message.into_iter().collect();
    }
    let key = retained::key(namespace, literal_prefix(text));
    let rows = kernel.table_rows(retained::TABLE, key);
    walk::kept(rows, |row| message(namespace, filter, row, now_ms)).await
}

fn message(
    namespace: &Namespace,
    filter: &TopicFilter,
    (key, value): (Bytes, Bytes),
    now_ms: i64,
) -> Option<Message> {
    let topic = TopicName::new(retained::topic(namespace, &key)?).ok()?;
    if !filter.matches(&topic) {
        return None;
    }
    let Some(record) = retained::record(value) else {
        tracing::error!(%topic, "a retained message cannot be read: written by a newer version, or damaged");
        return None;
    };
    let message = convert::message(&stream_for_topic(topic.as_str()), &record)?;
    let message = Message {
        topic,
        retain: true,
        ..message
    };
    (!message.is_expired(now_ms)).then_some(message)
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
