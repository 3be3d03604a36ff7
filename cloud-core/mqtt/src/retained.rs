//! Finding the retained messages for a new subscription, and those that have expired.

use bytes::Bytes;
use frontend::retained;
use kernel::{Command, Entry, Kernel, Outcome, WriteError};
use mqtt_broker::backend::Message;
use mqtt_broker::convert;
use mqtt_codec::{TopicFilter, TopicName};
use record::{Namespace, stream_for_topic};

use crate::{limits, walk};

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

/// Deletes those that have expired at `now_ms`, some at a time, and gives how many. What is put in the place of one meanwhile stays: the log decides.
pub async fn delete_expired(
    kernel: &Kernel,
    namespace: &Namespace,
    now_ms: i64,
) -> Result<usize, WriteError> {
    let rows = kernel.table_rows(retained::TABLE, retained::prefix(namespace));
    let (mut deleted, mut some, mut bytes) = (0, Entry::new(), 0);
    for (number, (key, value)) in (1usize..).zip(rows) {
        if number.is_multiple_of(limits::ROWS_AT_ONCE) {
            tokio::task::yield_now().await;
        }
        let at = retained::expires_at(value.clone());
        if at.is_none_or(|at| at > now_ms) {
            continue;
        }
        let row = key.len() + value.len();
        if some.commands.len() == limits::EXPIRED_AT_ONCE
            || (bytes > 0 && bytes + row > limits::EXPIRED_BYTES)
        {
            deleted += delete(kernel, std::mem::take(&mut some)).await?;
            bytes = 0;
        }
        bytes += row;
        some.push(Command::TableDeleteIf {
            table: retained::TABLE.into(),
            key,
            value,
        });
    }
    Ok(deleted + delete(kernel, some).await?)
}

async fn delete(kernel: &Kernel, entry: Entry) -> Result<usize, WriteError> {
    if entry.commands.is_empty() {
        return Ok(0);
    }
    let outcomes = kernel.write(entry).await?;
    let done = outcomes.iter().filter(|outcome| **outcome == Outcome::Done);
    Ok(done.count())
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
