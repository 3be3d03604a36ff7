//! Messages that are published later: a table by the time they are due. Each is appended to its stream and taken from the table in one
//! write.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, BufMut, Bytes};
use kernel::{Command, Entry, Kernel};
use mqtt_broker::backend::{Publish, PublishError};
use mqtt_broker::later::{self, Due, DueNow};
use mqtt_broker::limits;
use record::Namespace;
use tokio::sync::Notify;

use crate::publish::write_refusal;
use crate::tables::namespace_prefix;

/// Key: namespace NUL, due time in milliseconds (8 bytes, big endian), a number (8). Value: `later::encode`.
const TABLE: &str = "mqtt.delayed";

pub struct Delayed {
    kernel: Kernel,
    namespace: Namespace,
    /// Tells messages that are due at the same time apart.
    number: AtomicU64,
    pub added: Notify,
}

impl Delayed {
    pub fn new(kernel: Kernel, now_ms: i64, namespace: Namespace) -> Delayed {
        // Above the numbers of every earlier start, unless its clock was ahead; then the due times differ as well.
        let start = u64::try_from(now_ms).unwrap_or(0) << 20;
        Delayed {
            kernel,
            namespace,
            number: AtomicU64::new(start),
            added: Notify::new(),
        }
    }

    /// Resolves when durable, together with `with_it`.
    pub async fn put(
        &self,
        publish: &Publish,
        due_ms: i64,
        with_it: impl IntoIterator<Item = Command>,
    ) -> Result<(), PublishError> {
        later::check_count(self.kernel.table_len(TABLE))?;
        let mut key = namespace_prefix(&self.namespace);
        key.put_u64(u64::try_from(due_ms).unwrap_or(0));
        key.put_u64(self.number.fetch_add(1, Ordering::Relaxed));
        let mut entry = Entry::new().put(TABLE, key, later::encode(publish));
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
            let publish = later::decode(value);
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
