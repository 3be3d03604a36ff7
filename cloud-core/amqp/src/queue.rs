//! Queues: what was declared, and who uses them.

use std::sync::Arc;

use kernel::Queue;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Exception, code},
    wire::{Table, Value},
};

/// What a declaration said.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    pub name: Arc<str>,
    /// Distinguishes a queue from an earlier one of the same name, whose state in the kernel may still be going.
    pub incarnation: u64,
    pub durable: bool,
    pub exclusive: bool,
    pub auto_delete: bool,
    pub arguments: Table,
}

impl Definition {
    pub fn encode(&self) -> Table {
        Table::default()
            .with("name", Value::text(&self.name))
            .with("incarnation", Value::Timestamp(self.incarnation))
            .with("durable", Value::Bool(self.durable))
            .with("exclusive", Value::Bool(self.exclusive))
            .with("auto-delete", Value::Bool(self.auto_delete))
            .with("arguments", Value::Table(self.arguments.clone()))
    }

    pub fn decode(table: &Table) -> Option<Definition> {
        let flag = |name: &str| table.get(name).map(|v| *v == Value::Bool(true));
        let Value::Timestamp(incarnation) = table.get("incarnation")? else {
            return None;
        };
        let Value::Table(arguments) = table.get("arguments")? else {
            return None;
        };
        Some(Definition {
            name: table.get("name")?.as_text()?.into(),
            incarnation: *incarnation,
            durable: flag("durable")?,
            exclusive: flag("exclusive")?,
            auto_delete: flag("auto-delete")?,
            arguments: arguments.clone(),
        })
    }
}

/// Refuses arguments that would not be honoured.
pub fn check_arguments(arguments: &Table) -> Result<(), Exception> {
    for (name, value) in &arguments.0 {
        let known = match name.as_ref() {
            b"x-queue-type" => value.as_text() == Some("classic"),
            // Where messages are kept differs in neither mode here: in the log.
            b"x-queue-mode" => matches!(value.as_text(), Some("default" | "lazy")),
            _ => false,
        };
        if !known {
            return Err(Exception::channel(
                code::PRECONDITION_FAILED,
                format_args!(
                    "argument '{}' is not supported: declare the queue without it",
                    String::from_utf8_lossy(name)
                ),
            ));
        }
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Users {
    consumers: u32,
    exclusive: bool,
    had_any: bool,
}

/// A declared queue.
pub struct QueueState {
    pub definition: Definition,
    /// The connection that declared it exclusive.
    pub owner: Option<u64>,
    pub queue: Arc<Queue>,
    /// Cancelled when the queue is deleted: its consumers learn it from this.
    pub deleted: CancellationToken,
    users: Mutex<Users>,
}

impl QueueState {
    pub fn new(definition: Definition, owner: Option<u64>, queue: Arc<Queue>) -> QueueState {
        QueueState {
            definition,
            owner,
            queue,
            deleted: CancellationToken::new(),
            users: Mutex::default(),
        }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.definition.name
    }

    pub fn consumers(&self) -> u32 {
        self.users.lock().consumers
    }

    pub fn add_consumer(&self, exclusive: bool) -> Result<(), Exception> {
        let mut users = self.users.lock();
        if users.exclusive || (exclusive && users.consumers > 0) {
            return Err(Exception::channel(
                code::ACCESS_REFUSED,
                format_args!("queue '{}' in exclusive use", self.name()),
            ));
        }
        users.consumers += 1;
        users.exclusive = exclusive;
        users.had_any = true;
        Ok(())
    }

    /// True if the queue is to be deleted now: it is auto-delete and this was its last consumer.
    pub fn remove_consumer(&self) -> bool {
        let mut users = self.users.lock();
        users.consumers = users.consumers.saturating_sub(1);
        if users.consumers == 0 {
            users.exclusive = false;
        }
        self.definition.auto_delete && users.had_any && users.consumers == 0
    }

    /// Exclusive queues are for the connection that declared them.
    pub fn check_owner(&self, connection: u64, vhost: &str) -> Result<(), Exception> {
        if self.owner.is_some_and(|owner| owner != connection) {
            return Err(Exception::channel(
                code::RESOURCE_LOCKED,
                format_args!(
                    "cannot obtain exclusive access to locked queue '{}' in vhost '{vhost}'",
                    self.name()
                ),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_honoured_or_refused() {
        assert!(
            check_arguments(&Table::default().with("x-queue-type", Value::text("classic"))).is_ok()
        );
        for refused in [
            "x-message-ttl",
            "x-dead-letter-exchange",
            "x-max-length",
            "x-max-priority",
            "anything",
        ] {
            assert_eq!(
                check_arguments(&Table::default().with(refused, Value::Int(b'I', 1)))
                    .unwrap_err()
                    .code,
                code::PRECONDITION_FAILED
            );
        }
        assert!(
            check_arguments(&Table::default().with("x-queue-type", Value::text("quorum"))).is_err()
        );
    }

    #[test]
    fn a_definition_is_read_as_written() {
        let d = Definition {
            name: "q".into(),
            incarnation: 9,
            durable: true,
            exclusive: false,
            auto_delete: true,
            arguments: Table::default().with("x-queue-type", Value::text("classic")),
        };
        assert_eq!(Definition::decode(&d.encode()), Some(d));
    }
}
