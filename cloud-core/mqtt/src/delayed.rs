//! Messages that are published later: a table by the time they are due. Each is appended to its stream and taken from the table in one
//! write, so it is published once, whenever the process dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::iter;
use kernel::ports::Clock;
use kernel::{Command, Entry, Kernel};
use mqtt_broker::backend::{ClientId, Message, Publish, PublishError};
use record::Namespace;
use tokio::sync::Notify;

use crate::limits;
use crate::tables::{VERSION, namespace_prefix};

/// Key: namespace NUL, due time in milliseconds (8 bytes, big endian), a number (8). Value: [`VERSION`], length of the publisher's client id
/// (4), client id, the message as `Message::to_bytes`.
const TABLE: &str = "mqtt.delayed";

pub struct Delayed {
    kernel: Kernel,
    clock: Arc<dyn Clock>,
    namespace: Namespace,
    /// Tells messages that are due at the same time apart.
    number: AtomicU64,
    added: Notify,
}

struct Row {
    key: Bytes,
    due_ms: i64,
    publish: Option<Publish>,
}

fn encode(publish: &Publish) -> Bytes {
    let client = publish.publisher.as_str().as_bytes();
    let message = publish.message.to_bytes();
    let mut out = BytesMut::with_capacity(5 + client.len() + message.len());
    out.put_u8(VERSION);
    out.put_u32(u32::try_from(client.len()).unwrap_or(u32::MAX));
    out.put_slice(client);
    out.put_slice(&message);
    out.freeze()
}

fn decode(mut value: Bytes) -> Option<Publish> {
    if value.try_get_u8().ok()? != VERSION {
        return None;
    }
    let len = usize::try_from(value.try_get_u32().ok()?).ok()?;
    if len > value.len() {
        return None;
    }
    let client = value.split_to(len);
    Some(Publish {
        publisher: ClientId::new(std::str::from_utf8(&client).ok()?),
        message: Message::from_bytes(value)?,
    })
}

impl Delayed {
    pub fn new(kernel: Kernel, clock: Arc<dyn Clock>, namespace: Namespace) -> Delayed {
        // Above the numbers of every earlier start, unless its clock was ahead; then the due times differ as well.
        let start = u64::try_from(clock.now_ms()).unwrap_or(0) << 20;
        Delayed {
            kernel,
            clock,
            namespace,
            number: AtomicU64::new(start),
            added: Notify::new(),
        }
    }

    /// Resolves when durable, together with `packet`.
    pub async fn put(
        &self,
        publish: &Publish,
        due_ms: i64,
        packet: Option<Command>,
    ) -> Result<(), PublishError> {
        if self.kernel.table_len(TABLE) >= limits::DELAYED_MESSAGES {
            let most = limits::DELAYED_MESSAGES;
            let text = format!("{most} messages wait to be published later already");
            return Err(PublishError::QuotaExceeded(text));
        }
        let mut key = namespace_prefix(&self.namespace);
        key.put_u64(u64::try_from(due_ms).unwrap_or(0));
        key.put_u64(self.number.fetch_add(1, Ordering::Relaxed));
        let mut entry = Entry::new().put(TABLE, key, encode(publish));
        entry.commands.extend(packet);
        let written = self.kernel.write(entry).await;
        written.map_err(|error| match error {
            kernel::WriteError::Full | kernel::WriteError::TooLarge { .. } => {
                PublishError::QuotaExceeded(error.to_string())
            }
            error => PublishError::Unavailable(error.to_string()),
        })?;
        self.added.notify_one();
        Ok(())
    }

    fn first(&self) -> Vec<Row> {
        let prefix = namespace_prefix(&self.namespace);
        let rows = self
            .kernel
            .table_first(TABLE, &prefix, limits::DELAYED_AT_ONCE);
        let rows = rows.into_iter().filter_map(|(key, value)| {
            let mut rest = key.slice(prefix.len()..);
            let due_ms = i64::try_from(rest.try_get_u64().ok()?).unwrap_or(i64::MAX);
            let publish = decode(value);
            Some(Row {
                key,
                due_ms,
                publish,
            })
        });
        rows.collect()
    }

    /// Publishes what is due, with the command that takes it from the table.
    pub async fn run<F>(&self, publish: impl Fn(Publish, Command) -> F)
    where
        F: Future<Output = Result<(), PublishError>>,
    {
        loop {
            let now_ms = self.clock.now_ms();
            let mut rows = self.first();
            let next = rows.iter().map(|row| row.due_ms).find(|due| *due > now_ms);
            rows.retain(|row| row.due_ms <= now_ms);
            if rows.is_empty() {
                let left = next.map_or(i64::MAX, |due| due.saturating_sub(now_ms));
                let left = Duration::from_millis(left.unsigned_abs());
                tokio::select! {
                    () = tokio::time::sleep(left.min(limits::DELAYED_SLEEP)) => {}
                    () = self.added.notified() => {}
                }
                continue;
            }
            // In the order of their times, as far as they go to one stream.
            let publishing = iter(rows).map(|row| self.publish_row(row, &publish));
            let failed = publishing
                .buffered(limits::DELAYED_AT_ONCE)
                .fold(false, |failed, done| async move { failed | !done })
                .await;
            if failed {
                tokio::time::sleep(limits::DELAYED_RETRY).await;
            }
        }
    }

    /// `false`: it is still there, and tried again.
    async fn publish_row<F>(&self, row: Row, publish: &impl Fn(Publish, Command) -> F) -> bool
    where
        F: Future<Output = Result<(), PublishError>>,
    {
        let taken = Command::TableDelete {
            table: TABLE.into(),
            key: row.key.clone(),
        };
        let result = match row.publish {
            Some(message) => publish(message, taken.clone()).await,
            None => Err(PublishError::TopicNameInvalid(
                "it was written by a newer version, or is damaged".to_owned(),
            )),
        };
        match result {
            Ok(()) => true,
            Err(PublishError::Unavailable(error)) => {
                tracing::warn!(%error, "a delayed message could not be published; trying again");
                false
            }
            Err(error) => {
                tracing::error!(%error, "a delayed message can not be published and is dropped");
                self.kernel.write(Entry::new().with(taken)).await.is_ok()
            }
        }
    }
}
