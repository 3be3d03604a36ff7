//! Bindings, and which queues a record reaches through them.
//!
//! A binding says from which offset of each partition on it holds, and, once removed, until which. So the answer for a record
//! depends on the record and its offset alone, and reading the log again after a restart routes everything as it was routed first.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use kernel::{PartitionId, StreamId};
use record::StreamName;

use crate::{
    exchange::{AMQ_TOPIC, Kind, stream_for_name},
    matching,
    wire::{Table, Value},
};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Node {
    Exchange(Arc<str>),
    Queue(Arc<str>),
    /// Records of other protocols in the stream named like the queue.
    Foreign(Arc<str>),
}

impl Node {
    pub fn name(&self) -> &Arc<str> {
        match self {
            Node::Exchange(name) | Node::Queue(name) | Node::Foreign(name) => name,
        }
    }
}

/// First offset past the end of each partition at some moment; partitions that are not named were empty or did not exist.
pub type Ends = HashMap<PartitionId, i64>;

#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    pub id: u64,
    pub source: Node,
    pub kind: Kind,
    pub destination: Node,
    pub routing_key: String,
    pub arguments: Table,
    pub from: Ends,
    pub until: Option<Ends>,
    /// The stream of the source's name.
    pub stream: StreamName,
}

impl Binding {
    pub fn new(
        id: u64,
        source: Node,
        kind: Kind,
        destination: Node,
        routing_key: &str,
        arguments: Table,
        from: Ends,
    ) -> Binding {
        let stream = stream_for_name(source.name());
        Binding {
            id,
            source,
            kind,
            destination,
            routing_key: routing_key.to_owned(),
            arguments,
            from,
            until: None,
            stream,
        }
    }

    fn holds_at(&self, at: Option<(PartitionId, i64)>) -> bool {
        let Some((partition, offset)) = at else {
            return self.until.is_none();
        };
        offset >= self.from.get(&partition).copied().unwrap_or(0)
            && self
                .until
                .as_ref()
                .is_none_or(|until| offset < until.get(&partition).copied().unwrap_or(0))
    }

    fn matches(&self, key: &str, headers: &Table) -> bool {
        match self.kind {
            Kind::Direct => self.routing_key == key,
            Kind::Fanout => true,
            Kind::Topic => matching::topic(&self.routing_key, key),
            Kind::Headers => matching::headers(&self.arguments, headers),
        }
    }

    pub fn is_same(
        &self,
        source: &Node,
        destination: &Node,
        routing_key: &str,
        arguments: &Table,
    ) -> bool {
        self.until.is_none()
            && self.source == *source
            && self.destination == *destination
            && self.routing_key == routing_key
            && self.arguments.equivalent(arguments)
    }

    pub fn encode(&self) -> Table {
        let node = |node: &Node| {
            let (kind, name) = match node {
                Node::Exchange(name) => ("exchange", name),
                Node::Queue(name) => ("queue", name),
                Node::Foreign(name) => ("foreign", name),
            };
            Value::Array(vec![Value::text(kind), Value::text(name)])
        };
        let ends = |ends: &Ends| {
            Value::Array(
                ends.iter()
                    .flat_map(|(p, o)| {
                        [
                            Value::Timestamp(p.stream.0),
                            Value::Int(b'i', p.partition.into()),
                            Value::Int(b'l', *o),
                        ]
                    })
                    .collect(),
            )
        };
        let table = Table::default()
            .with("id", Value::Timestamp(self.id))
            .with("source", node(&self.source))
            .with("type", Value::text(self.kind.name()))
            .with("destination", node(&self.destination))
            .with("key", Value::text(&self.routing_key))
            .with("arguments", Value::Table(self.arguments.clone()))
            .with("from", ends(&self.from));
        match &self.until {
            Some(until) => table.with("until", ends(until)),
            None => table,
        }
    }

    pub fn decode(table: &Table) -> Option<Binding> {
        let node = |name: &str| {
            let Value::Array(items) = table.get(name)? else {
                return None;
            };
            let [kind, name] = items.as_slice() else {
                return None;
            };
            let name = name.as_text()?.into();
            match kind.as_text()? {
                "exchange" => Some(Node::Exchange(name)),
                "queue" => Some(Node::Queue(name)),
                "foreign" => Some(Node::Foreign(name)),
                _ => None,
            }
        };
        let ends = |value: &Value| {
            let Value::Array(items) = value else {
                return None;
            };
            items
                .chunks(3)
                .map(|part| match part {
                    [
                        Value::Timestamp(stream),
                        Value::Int(_, partition),
                        Value::Int(_, offset),
                    ] => {
                        let partition = u32::try_from(*partition).ok()?;
                        Some((
                            PartitionId {
                                stream: StreamId(*stream),
                                partition,
                            },
                            *offset,
                        ))
                    }
                    _ => None,
                })
                .collect::<Option<Ends>>()
        };
        let Value::Timestamp(id) = table.get("id")? else {
            return None;
        };
        let Value::Table(arguments) = table.get("arguments")? else {
            return None;
        };
        let mut binding = Binding::new(
            *id,
            node("source")?,
            Kind::parse(table.get("type")?.as_text()?)?,
            node("destination")?,
            table.get("key")?.as_text()?,
            arguments.clone(),
            ends(table.get("from")?)?,
        );
        binding.until = match table.get("until") {
            Some(until) => Some(ends(until)?),
            None => None,
        };
        Some(binding)
    }
}

/// One way a record can enter: where, and under which key it is matched.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    pub at: Entrance,
    pub key: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Entrance {
    /// Published by AMQP to this exchange.
    Exchange(Arc<str>),
    /// Of another protocol: seen by the exchange named like its stream.
    Stream(StreamName),
    /// Of another protocol, with a topic: seen by `amq.topic`.
    Topic,
    /// Of another protocol: seen by the queue named like its stream.
    Own(StreamName),
}

impl Entrance {
    fn is(&self, binding: &Binding) -> bool {
        match (self, &binding.source) {
            (Entrance::Exchange(name), Node::Exchange(source)) => name == source,
            (Entrance::Stream(stream), Node::Exchange(source)) => {
                !source.is_empty() && &**source != AMQ_TOPIC && *stream == binding.stream
            }
            (Entrance::Topic, Node::Exchange(source)) => &**source == AMQ_TOPIC,
            (Entrance::Own(stream), Node::Foreign(_)) => *stream == binding.stream,
            _ => false,
        }
    }
}

#[derive(Debug, Default)]
pub struct Routes {
    bound_to: HashMap<Node, Vec<Arc<Binding>>>,
    out_of: HashMap<Node, Vec<Arc<Binding>>>,
    count: usize,
}

impl Routes {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn insert(&mut self, binding: Arc<Binding>) {
        self.count += 1;
        self.bound_to
            .entry(binding.destination.clone())
            .or_default()
            .push(binding.clone());
        self.out_of
            .entry(binding.source.clone())
            .or_default()
            .push(binding);
    }

    pub fn remove(&mut self, binding: &Binding) {
        for (map, node) in [
            (&mut self.bound_to, &binding.destination),
            (&mut self.out_of, &binding.source),
        ] {
            if let Some(list) = map.get_mut(node) {
                list.retain(|b| b.id != binding.id);
                if list.is_empty() {
                    map.remove(node);
                }
            }
        }
        self.count = self.count.saturating_sub(1);
    }

    pub fn bound_to(&self, node: &Node) -> &[Arc<Binding>] {
        self.bound_to.get(node).map_or(&[], Vec::as_slice)
    }

    pub fn out_of(&self, node: &Node) -> &[Arc<Binding>] {
        self.out_of.get(node).map_or(&[], Vec::as_slice)
    }

    /// Bindings that hold no more.
    pub fn removed(&self) -> impl Iterator<Item = &Arc<Binding>> {
        self.bound_to
            .values()
            .flatten()
            .filter(|b| b.until.is_some())
    }

    /// Whether a record that enters at `origin` reaches `node`. `at` is where it stands in the log; `None` = about to be written.
    pub fn reaches(
        &self,
        node: &Node,
        origin: &Origin,
        headers: &Table,
        at: Option<(PartitionId, i64)>,
    ) -> bool {
        self.walk_back(node, origin, headers, at, &mut HashSet::new())
    }

    // From the queue backwards: only bindings that lead to it are looked at, however many others the exchange has.
    fn walk_back<'a>(
        &'a self,
        node: &'a Node,
        origin: &Origin,
        headers: &Table,
        at: Option<(PartitionId, i64)>,
        seen: &mut HashSet<&'a Node>,
    ) -> bool {
        self.bound_to(node).iter().any(|binding| {
            if !binding.holds_at(at) {
                return false;
            }
            if let Node::Foreign(_) = binding.source {
                return origin.at.is(binding);
            }
            binding.matches(&origin.key, headers)
                && (origin.at.is(binding)
                    || (seen.insert(&binding.source)
                        && self.walk_back(&binding.source, origin, headers, at, seen)))
        })
    }

    /// Whether a message published now to `exchange` reaches any queue.
    pub fn reaches_any(&self, exchange: &Arc<str>, key: &str, headers: &Table) -> bool {
        let mut open = vec![Node::Exchange(exchange.clone())];
        let mut seen = HashSet::new();
        while let Some(node) = open.pop() {
            for binding in self.out_of(&node) {
                if binding.holds_at(None) && binding.matches(key, headers) {
                    match &binding.destination {
                        Node::Queue(_) => return true,
                        other if seen.insert(other.clone()) => open.push(other.clone()),
                        _ => {}
                    }
                }
            }
        }
        false
    }

    /// Every source that leads, directly or through exchanges, to `node`.
    pub fn upstream(&self, node: &Node) -> Vec<Node> {
        let mut found = Vec::new();
        let mut open = vec![node.clone()];
        while let Some(node) = open.pop() {
            for binding in self.bound_to(&node) {
                if !found.contains(&binding.source) {
                    found.push(binding.source.clone());
                    open.push(binding.source.clone());
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(n: u32) -> PartitionId {
        PartitionId {
            stream: StreamId(1),
            partition: n,
        }
    }

    fn x(name: &str) -> Node {
        Node::Exchange(name.into())
    }

    fn q(name: &str) -> Node {
        Node::Queue(name.into())
    }

    fn from(exchange: &str, key: &str) -> Origin {
        Origin {
            at: Entrance::Exchange(exchange.into()),
            key: key.into(),
        }
    }

    #[test]
    fn a_binding_holds_between_its_offsets() {
        let mut b = Binding::new(
            1,
            x("e"),
            Kind::Direct,
            q("q"),
            "k",
            Table::default(),
            Ends::from([(p(0), 5)]),
        );
        b.until = Some(Ends::from([(p(0), 8), (p(1), 2)]));
        let mut routes = Routes::default();
        routes.insert(Arc::new(b.clone()));
        for (at, expected) in [
            ((p(0), 4), false),
            ((p(0), 5), true),
            ((p(0), 7), true),
            ((p(0), 8), false),
            ((p(1), 0), true),
            ((p(1), 2), false),
            ((p(2), 0), false),
        ] {
            assert_eq!(
                routes.reaches(&q("q"), &from("e", "k"), &Table::default(), Some(at)),
                expected,
                "{at:?}"
            );
        }
        assert_eq!(Binding::decode(&b.encode()), Some(b));
    }

    #[test]
    fn exchanges_bound_to_exchanges_even_in_a_circle() {
        let mut routes = Routes::default();
        let none = Table::default;
        for (id, s, kind, d, key) in [
            (1, x("a"), Kind::Topic, x("b"), "m.#"),
            (2, x("b"), Kind::Fanout, x("a"), ""),
            (3, x("b"), Kind::Direct, q("q"), "m.1"),
        ] {
            routes.insert(Arc::new(Binding::new(
                id,
                s,
                kind,
                d,
                key,
                none(),
                Ends::new(),
            )));
        }
        assert!(routes.reaches(&q("q"), &from("a", "m.1"), &none(), None));
        assert!(!routes.reaches(&q("q"), &from("a", "n.1"), &none(), None));
        assert!(routes.reaches_any(&"a".into(), "m.1", &none()));
        assert!(!routes.reaches_any(&"a".into(), "m.2", &none()));
    }

    #[test]
    fn foreign_records_enter_by_their_stream() {
        let mut routes = Routes::default();
        routes.insert(Arc::new(Binding::new(
            1,
            Node::Foreign("q".into()),
            Kind::Fanout,
            q("q"),
            "",
            Table::default(),
            Ends::new(),
        )));
        routes.insert(Arc::new(Binding::new(
            2,
            x(AMQ_TOPIC),
            Kind::Topic,
            q("t"),
            "s.*.temp",
            Table::default(),
            Ends::new(),
        )));
        let own = Origin {
            at: Entrance::Own(stream_for_name("q")),
            key: "any".into(),
        };
        assert!(routes.reaches(&q("q"), &own, &Table::default(), None));
        assert!(
            !routes.reaches(&q("q"), &from("q", "any"), &Table::default(), None),
            "exchange q and queue q never mix"
        );
        let topic = Origin {
            at: Entrance::Topic,
            key: "s.1.temp".into(),
        };
        assert!(routes.reaches(&q("t"), &topic, &Table::default(), None));
    }
}
