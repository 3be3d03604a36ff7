//! Messages that are published later: a table by the time they are due. Each is appended to its stream and taken from the table in one
//! write.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, BufMut, Bytes};
use kernel::{Command, Entry, Kernel};
use mqtt_broker::backend::{Publish, PublishError};
use mqtt_broker::later::{self, Due, DueNow, Kind};
use mqtt_broker::limits;
use record::Namespace;
use tokio::sync::Notify;

use crate::limits::DELAYED_BYTES;
use crate::publish::write_refusal;
use crate::tables::namespace_prefix;

/// Key: namespace NUL, due time in milliseconds (8 bytes, big endian), a number (8). Value: `later::encode`.
const TABLE: &str = "mqtt.delayed";

pub struct Delayed {
    kernel: Kernel,
    namespace: Namespace,
    /// Tells messages that are due at the same time apart.
    number: AtomicU64,
    /// Bytes on their way into the table: many at a time would all be let in otherwise.
    coming: AtomicU64,
    most_bytes: u64,
    pub added: Notify,
}

/// Bytes that are not on their way any more when it is dropped.
struct Coming<'a> {
    all: &'a AtomicU64,
    bytes: u64,
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Delayed {
    pub fn new(kernel: Kernel, now_ms: i64, namespace: Namespace) -> Delayed {
        // Above the numbers of every earlier start, unless its clock was ahead; then the due times differ as well.
        let start = u64::try_from(now_ms).unwrap_or(0) << 20;
        Delayed {
            kernel,
            namespace,
            number: AtomicU64::new(start),
            coming: AtomicU64::new(0),
            most_bytes: DELAYED_BYTES,
            added: Notify::new(),
        }
    }

    /// May so many bytes more wait? They are counted with those that do until the answer is dropped.
    fn room(&self, bytes: usize) -> Result<Coming<'_>, PublishError> {
        let bytes = bytes as u64;
        let before = self.coming.fetch_add(bytes, Ordering::Relaxed);
        let coming = Coming {
            all: &self.coming,
            bytes,
        };
        let most = self.most_bytes;
        if self.kernel.table_bytes(TABLE) + before + bytes <= most {
            return Ok(coming);
        }
        let text = format!("what waits to be published later would be more than {most} bytes");
        Err(PublishError::QuotaExceeded(text))
    }

    /// Resolves when durable, together with `with_it`.
    pub async fn put(
        &self,
        publish: &Publish,
        kind: Kind,
        due_ms: i64,
        with_it: impl IntoIterator<Item = Command>,
    ) -> Result<(), PublishError> {
        later::check_count(self.kernel.table_len(TABLE))?;
        let mut key = namespace_prefix(&self.namespace);
        key.put_u64(u64::try_from(due_ms).unwrap_or(0));
        key.put_u64(self.number.fetch_add(1, Ordering::Relaxed));
        let value = later::encode(publish, kind);
        let _coming = self.room(key.len() + value.len())?;
        let mut entry = Entry::new().put(TABLE, key, value);
        entry.commands.extend(with_it);
        let written = self.kernel.write(entry).await;
        written.map_err(write_refusal)?;
        self.added.notify_one();
        Ok(())
    }

    /// The keys are those of the table.
    pub fn due(&self, now_ms: i64) -> DueNow<Bytes> {
        let prefix = namespace_prefix(&self.namespace);
        let rows = self
            .kernel
            .table_first(TABLE, &prefix, limits::DELAYED_AT_ONCE);
        let mut due = DueNow {
            messages: Vec::new(),
            next_ms: None,
        };
        for (key, value) in rows {
            let Ok(at) = key.slice(prefix.len()..).try_get_u64() else {
                continue;
            };
            let at = i64::try_from(at).unwrap_or(i64::MAX);
            if at > now_ms {
                due.next_ms = Some(at);
                break;
            }
            let publish = later::decode(value, now_ms.saturating_sub(at));
            due.messages.push(Due { key, publish });
        }
        due
    }

    /// Takes a message from the table.
    pub fn take(key: &Bytes) -> Command {
        Command::TableDelete {
            table: TABLE.into(),
            key: key.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::ports::MemoryColdStore;
    use kernel::{KernelConfig, Ports};
    use mqtt_broker::backend::{ClientId, Message, MessageProperties};
    use mqtt_codec::{QoS, TopicName};
    use std::path::Path;
    use std::sync::Arc;

    fn open(dir: &Path) -> Delayed {
        let ports = Ports::system(dir, Arc::new(MemoryColdStore::default())).unwrap();
        let kernel = Kernel::open(ports, KernelConfig::default()).unwrap();
        let mut delayed = Delayed::new(kernel, 1, Namespace::default());
        delayed.most_bytes = 10_000;
        delayed
    }

    fn publish(topic: &str, payload: usize, property: usize) -> Publish {
        Publish {
            publisher: ClientId::new("p"),
            message: Message {
                topic: TopicName::new(topic).unwrap(),
                payload: vec![0; payload].into(),
                qos: QoS::AtLeastOnce,
                retain: false,
                expires_at: None,
                origin: None,
                number: None,
                properties: MessageProperties {
                    content_type: Some("x".repeat(property)),
                    ..MessageProperties::default()
                },
            },
        }
    }

    async fn put(delayed: &Delayed, publish: Publish) -> bool {
        match delayed.put(&publish, Kind::Later, 5, []).await {
            Ok(()) => true,
            Err(PublishError::QuotaExceeded(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn what_waits_has_a_bound_in_bytes_whatever_they_are_of_and_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let delayed = open(dir.path());
        let (long, short) = ("t".repeat(4_000), "t");
        // Many at a time, too.
        let puts = (0..10).map(|_| put(&delayed, publish(short, 3_000, 0)));
        let taken = futures_util::future::join_all(puts).await;
        assert_eq!(taken.iter().filter(|taken| **taken).count(), 3);
        for one in [publish(&long, 1, 0), publish(short, 1, 4_000)] {
            assert!(!put(&delayed, one).await);
        }
        drop(delayed);
        let delayed = open(dir.path());
        assert!(!put(&delayed, publish(short, 3_000, 0)).await);
        // What is published makes room.
        let due = delayed.due(7).messages;
        let taken = Entry::new().with(Delayed::take(&due[0].key));
        delayed.kernel.write(taken).await.unwrap();
        assert!(put(&delayed, publish(short, 3_000, 0)).await);
    }
}
