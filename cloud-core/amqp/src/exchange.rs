//! Exchanges: what they are and which there are from the start.

use std::sync::Arc;

use record::{StreamName, stream_for_topic};

use crate::wire::{Table, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Direct,
    Fanout,
    Topic,
    Headers,
}

impl Kind {
    pub fn parse(name: &str) -> Option<Kind> {
        match name {
            "direct" => Some(Kind::Direct),
            "fanout" => Some(Kind::Fanout),
            "topic" => Some(Kind::Topic),
            "headers" => Some(Kind::Headers),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Direct => "direct",
            Kind::Fanout => "fanout",
            Kind::Topic => "topic",
            Kind::Headers => "headers",
        }
    }
}

/// The exchange that shows records of other protocols by their topic.
pub const AMQ_TOPIC: &str = "amq.topic";

/// Those every namespace has. The default exchange (the empty name) is not listed: nothing can be bound to it.
pub const PREDECLARED: [(&str, Kind); 6] = [
    ("amq.direct", Kind::Direct),
    ("amq.fanout", Kind::Fanout),
    (AMQ_TOPIC, Kind::Topic),
    ("amq.headers", Kind::Headers),
    ("amq.match", Kind::Headers),
    ("amq.rabbitmq.trace", Kind::Topic),
];

#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    pub name: Arc<str>,
    pub kind: Kind,
    pub durable: bool,
    pub auto_delete: bool,
    pub internal: bool,
}

impl Exchange {
    pub fn encode(&self) -> Table {
        Table::default()
            .with("name", Value::text(&self.name))
            .with("type", Value::text(self.kind.name()))
            .with("auto-delete", Value::Bool(self.auto_delete))
            .with("internal", Value::Bool(self.internal))
    }

    /// Only durable ones are kept, so durability is not written.
    pub fn decode(table: &Table) -> Option<Exchange> {
        Some(Exchange {
            name: table.get("name")?.as_text()?.into(),
            kind: Kind::parse(table.get("type")?.as_text()?)?,
            durable: true,
            auto_delete: table.get("auto-delete")? == &Value::Bool(true),
            internal: table.get("internal")? == &Value::Bool(true),
        })
    }
}

/// The stream of an exchange or a queue: its name, with what Kafka forbids escaped as for topics.
pub fn stream_for_name(name: &str) -> StreamName {
    StreamName::new(name).unwrap_or_else(|_| stream_for_topic(&name.replace('/', "_x2F")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_streams() {
        for (name, stream) in [
            ("orders", "orders"),
            ("amq.topic", "amq.topic"),
            ("a/b", "a_x2Fb"),
            ("a b", "a_x20b"),
            ("/", "_x2F"),
        ] {
            assert_eq!(stream_for_name(name).as_str(), stream);
        }
        let e = Exchange {
            name: "e".into(),
            kind: Kind::Headers,
            durable: true,
            auto_delete: false,
            internal: true,
        };
        assert_eq!(Exchange::decode(&e.encode()), Some(e));
    }
}
