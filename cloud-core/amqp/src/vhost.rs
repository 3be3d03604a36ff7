//! A virtual host: the exchanges, queues and bindings of one namespace, in memory and in the kernel's tables.
//!
//! Changes go one after another through one lock; publishing and delivering only read. A change that decides what a record is routed
//! to takes effect together with reading the ends of the logs, under the lock the selectors read through: what was looked at before
//! lies below those ends, so memory and a later replay agree.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use frontend::Context;
use kernel::{Entry, PartitionId, QueueName, QueueSource, Stream};
use parking_lot::RwLock;
use record::{Namespace, StreamAddress};

use crate::{
    error::{Exception, code},
    exchange::{AMQ_TOPIC, Exchange, Kind, PREDECLARED, stream_for_name},
    limits,
    message::QueueSelector,
    queue::{Definition, QueueState},
    routes::{Binding, Ends, Node, Routes},
    wire::{Reader, Table},
};

const EXCHANGES: &str = "amqp.exchanges";
const QUEUES: &str = "amqp.queues";
const BINDINGS: &str = "amqp.bindings";
/// First byte of every value in the tables.
const VERSION: u8 = 1;

pub struct VirtualHost {
    pub namespace: Namespace,
    pub context: Context,
    pub routes: Arc<RwLock<Routes>>,
    exchanges: RwLock<HashMap<Arc<str>, Arc<Exchange>>>,
    queues: RwLock<HashMap<Arc<str>, Arc<QueueState>>>,
    change: tokio::sync::Mutex<()>,
    next_id: AtomicU64,
}

#[derive(Debug, thiserror::Error)]
pub enum VhostError {
    #[error(
        "{table} holds a value of version {version}; this program reads up to {VERSION}: use the newer version that wrote it"
    )]
    Newer { table: &'static str, version: u8 },
    #[error("{table} holds a value that cannot be read: restore the data directory from a copy")]
    Corrupt { table: &'static str },
    #[error(transparent)]
    Write(#[from] kernel::WriteError),
    #[error(transparent)]
    Queue(#[from] kernel::QueueError),
    #[error("metrics: {0}")]
    Metric(prometheus::Error),
}

fn value(table: &Table) -> Bytes {
    let mut out = BytesMut::from(&[VERSION][..]);
    table.put(&mut out);
    out.freeze()
}

impl VirtualHost {
    /// Loads what is durable. Queues that must not outlive the process go, and so do bindings of exchanges that did not survive.
    pub async fn open(
        context: Context,
        namespace: Namespace,
    ) -> Result<Arc<VirtualHost>, VhostError> {
        let vhost = VirtualHost {
            namespace,
            context,
            routes: Arc::default(),
            exchanges: RwLock::default(),
            queues: RwLock::default(),
            change: tokio::sync::Mutex::new(()),
            next_id: AtomicU64::new(1),
        };
        let builtin = PREDECLARED.iter().map(|&(name, kind)| Exchange {
            name: name.into(),
            kind,
            durable: true,
            auto_delete: false,
            internal: name.starts_with("amq.rabbitmq."),
        });
        vhost
            .exchanges
            .write()
            .extend(builtin.map(|e| (e.name.clone(), Arc::new(e))));
        for exchange in vhost.load(EXCHANGES, Exchange::decode)? {
            vhost
                .exchanges
                .write()
                .insert(exchange.name.clone(), Arc::new(exchange));
        }
        let definitions = vhost.load(QUEUES, Definition::decode)?;
        let mut bindings = vhost.load(BINDINGS, Binding::decode)?;
        let newest = definitions
            .iter()
            .map(|d| d.incarnation)
            .chain(bindings.iter().map(|b| b.id))
            .max()
            .unwrap_or(0);
        vhost.next_id.store(newest + 1, Ordering::Relaxed);

        let mut entry = Entry::new();
        let (kept, gone): (Vec<_>, Vec<_>) = definitions
            .into_iter()
            .partition(|d| d.durable && !d.exclusive);
        for definition in gone {
            let queue = vhost.kernel_queue(&definition);
            queue.delete().await?;
            entry = entry.delete(QUEUES, vhost.key(&definition.name));
        }
        let ends = vhost.ends(&vhost.all_partitions());
        bindings.retain_mut(|binding| {
            let key = vhost.key(&binding.id.to_string());
            if let Node::Queue(name) = &binding.destination
                && !kept.iter().any(|d| d.name == *name)
            {
                entry.push(kernel::Command::TableDelete {
                    table: BINDINGS.into(),
                    key,
                });
                return false;
            }
            let lives = |node: &Node| match node {
                Node::Exchange(name) => name.is_empty() || vhost.exchange(name).is_some(),
                Node::Foreign(_) | Node::Queue(_) => true,
            };
            if binding.until.is_none() && !(lives(&binding.source) && lives(&binding.destination)) {
                binding.until = Some(ends.clone());
                entry.push(kernel::Command::TablePut {
                    table: BINDINGS.into(),
                    key,
                    value: value(&binding.encode()),
                });
            }
            true
        });
        for binding in bindings {
            vhost.routes.write().insert(Arc::new(binding));
        }
        for definition in kept {
            let queue = vhost.kernel_queue(&definition);
            let state = QueueState::new(definition, None, queue);
            vhost
                .queues
                .write()
                .insert(state.name().clone(), Arc::new(state));
        }
        let names: Vec<_> = vhost.queues.read().keys().cloned().collect();
        for name in names {
            entry = vhost.show_foreign_records(&name, entry);
        }
        entry = vhost.prune_bindings(entry);
        if !entry.commands.is_empty() {
            vhost.context.kernel.write(entry).await?;
        }
        let vhost = Arc::new(vhost);
        vhost.refresh_sources().await?;
        Ok(vhost)
    }

    fn load<T>(
        &self,
        table: &'static str,
        decode: impl Fn(&Table) -> Option<T>,
    ) -> Result<Vec<T>, VhostError> {
        let rows = self.context.kernel.table_scan(table, &self.key(""));
        rows.into_iter()
            .map(|(_, bytes)| {
                let mut r = Reader::new(bytes);
                match r.u8() {
                    Ok(VERSION) => r
                        .table()
                        .ok()
                        .as_ref()
                        .and_then(&decode)
                        .ok_or(VhostError::Corrupt { table }),
                    Ok(version) => Err(VhostError::Newer { table, version }),
                    Err(_) => Err(VhostError::Corrupt { table }),
                }
            })
            .collect()
    }

    /// Namespaces have no control characters, so the zero byte ends them unmistakably.
    fn key(&self, name: &str) -> Bytes {
        Bytes::from(format!("{}\0{name}", self.namespace))
    }

    fn kernel_queue(&self, definition: &Definition) -> Arc<kernel::Queue> {
        let name = format!(
            "amqp/{}/{}/{}",
            self.namespace, definition.name, definition.incarnation
        );
        let selector = QueueSelector {
            queue: Node::Queue(definition.name.clone()),
            routes: self.routes.clone(),
        };
        self.context
            .kernel
            .queue(&QueueName(name.into()), Arc::new(selector))
    }

    fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// What clients call it.
    pub fn name(&self) -> &str {
        if self.namespace == Namespace::default() {
            "/"
        } else {
            self.namespace.as_str()
        }
    }

    pub fn address(&self, name: &str) -> StreamAddress {
        StreamAddress::new(self.namespace.clone(), stream_for_name(name))
    }

    pub fn exchange(&self, name: &str) -> Option<Arc<Exchange>> {
        self.exchanges.read().get(name).cloned()
    }

    pub fn queue(&self, name: &str) -> Option<Arc<QueueState>> {
        self.queues.read().get(name).cloned()
    }

    fn partitions_of(stream: &Stream) -> impl Iterator<Item = PartitionId> + use<> {
        let id = stream.id;
        (0..stream.partitions).map(move |partition| PartitionId {
            stream: id,
            partition,
        })
    }

    fn all_partitions(&self) -> Vec<PartitionId> {
        self.context
            .kernel
            .streams(&self.namespace)
            .iter()
            .flat_map(|s| Self::partitions_of(s))
            .collect()
    }

    /// The partitions in which records for `node`'s readers can stand.
    fn partitions_read_by(&self, nodes: &[Node]) -> Vec<PartitionId> {
        if nodes.iter().any(|n| &**n.name() == AMQ_TOPIC) {
            return self.all_partitions();
        }
        let names: BTreeSet<_> = nodes
            .iter()
            .filter(|n| !n.name().is_empty())
            .map(|n| stream_for_name(n.name()))
            .collect();
        names
            .into_iter()
            .filter_map(|name| {
                self.context
                    .kernel
                    .stream(&StreamAddress::new(self.namespace.clone(), name))
            })
            .flat_map(|s| Self::partitions_of(&s))
            .collect()
    }

    fn ends(&self, partitions: &[PartitionId]) -> Ends {
        partitions
            .iter()
            .filter_map(|p| Some((*p, self.context.kernel.watermarks(*p)?.end)))
            .filter(|(_, end)| *end > 0)
            .collect()
    }

    /// Where `queue` has to look, from which offset: every source it is or was bound to, from the first offset a binding holds.
    fn wanted_sources(&self, queue: &Arc<str>) -> HashMap<PartitionId, i64> {
        let node = Node::Queue(queue.clone());
        let routes = self.routes.read();
        let mut wanted = HashMap::new();
        for binding in routes.bound_to(&node) {
            let mut sources = routes.upstream(&binding.source);
            // Messages of the default exchange for this queue stand in the stream of the queue's name.
            sources.push(if binding.source.name().is_empty() {
                node.clone()
            } else {
                binding.source.clone()
            });
            for partition in self.partitions_read_by(&sources) {
                let from = binding.from.get(&partition).copied().unwrap_or(0);
                wanted
                    .entry(partition)
                    .and_modify(|f: &mut i64| *f = (*f).min(from))
                    .or_insert(from);
            }
        }
        wanted
    }

    async fn refresh(&self, state: &QueueState) -> Result<(), kernel::QueueError> {
        let mut sources = state.queue.sources();
        // One that is gone from the wish stays: what it still has for the queue is the queue's.
        sources.retain(|s| {
            self.context
                .kernel
                .stream_by_id(s.partition.stream)
                .is_some()
        });
        let before = sources.len();
        for (partition, from) in self.wanted_sources(state.name()) {
            if !sources.iter().any(|s| s.partition == partition) {
                sources.push(QueueSource { partition, from });
            }
        }
        if sources.len() == before {
            return Ok(());
        }
        state.queue.set_sources(sources).await
    }

    /// Lets every queue read the streams that came into being since.
    pub async fn refresh_sources(&self) -> Result<(), kernel::QueueError> {
        let _change = self.change.lock().await;
        let states: Vec<_> = self.queues.read().values().cloned().collect();
        for state in states {
            match self.refresh(&state).await {
                Ok(()) | Err(kernel::QueueError::Deleted) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The stream of an exchange or queue, made if need be, with the queues that read it looking at it already.
    pub async fn stream_for_write(&self, name: &str) -> Result<Arc<Stream>, Exception> {
        let address = self.address(name);
        if let Some(stream) = self.context.kernel.stream(&address) {
            return Ok(stream);
        }
        let failed = |e: &dyn std::fmt::Display| Exception::channel(code::PRECONDITION_FAILED, e);
        let stream = self
            .context
            .stream_for_write(&address)
            .await
            .map_err(|e| failed(&e))?;
        self.refresh_sources().await.map_err(|e| failed(&e))?;
        Ok(stream)
    }

    async fn write(&self, entry: Entry) -> Result<(), Exception> {
        if entry.commands.is_empty() {
            return Ok(());
        }
        self.context
            .kernel
            .write(entry)
            .await
            .map(drop)
            .map_err(|e| Exception::internal("the change could not be stored", e))
    }

    /// Adds a binding with its effect from now on; returns what to store.
    fn open_binding(
        &self,
        source: Node,
        kind: Kind,
        destination: Node,
        routing_key: &str,
        arguments: Table,
    ) -> Arc<Binding> {
        let id = self.new_id();
        let mut routes = self.routes.write();
        let mut sources = routes.upstream(&source);
        sources.push(if source.name().is_empty() {
            destination.clone()
        } else {
            source.clone()
        });
        let from = self.ends(&self.partitions_read_by(&sources));
        let binding = Arc::new(Binding::new(
            id,
            source,
            kind,
            destination,
            routing_key,
            arguments,
            from,
        ));
        routes.insert(binding.clone());
        binding
    }

    /// Ends bindings now. They stay, with their end, as long as their destination, for what was routed before.
    fn close_bindings(
        &self,
        which: impl Fn(&Routes) -> Vec<Arc<Binding>>,
        mut entry: Entry,
    ) -> Entry {
        let mut routes = self.routes.write();
        let ends = self.ends(&self.all_partitions());
        for old in which(&routes) {
            if old.until.is_some() {
                continue;
            }
            let mut closed = Binding::clone(&old);
            closed.until = Some(ends.clone());
            routes.remove(&old);
            if self.is_stored(&closed) {
                entry = entry.put(
                    BINDINGS,
                    self.key(&closed.id.to_string()),
                    value(&closed.encode()),
                );
            }
            routes.insert(Arc::new(closed));
        }
        entry
    }

    /// Bindings of queues that do not survive a restart need not either. Those of exchanges may be part of how a message came to a
    /// queue that does.
    fn is_stored(&self, binding: &Binding) -> bool {
        match &binding.destination {
            Node::Queue(name) => self
                .queue(name)
                .is_some_and(|q| q.definition.durable && !q.definition.exclusive),
            Node::Exchange(_) | Node::Foreign(_) => true,
        }
    }

    /// While there is no exchange of a queue's name, the queue sees the records of other protocols in the stream of that name.
    fn show_foreign_records(&self, queue: &Arc<str>, entry: Entry) -> Entry {
        let (source, destination) = (Node::Foreign(queue.clone()), Node::Queue(queue.clone()));
        let shown = self
            .routes
            .read()
            .bound_to(&destination)
            .iter()
            .any(|b| b.source == source && b.until.is_none());
        if shown || self.queue(queue).is_none() || self.exchange(queue).is_some() {
            return entry;
        }
        let binding = self.open_binding(source, Kind::Fanout, destination, "", Table::default());
        self.store(entry, &binding)
    }

    /// Forgets removed bindings that no queue needs any more: all it was given through them is settled.
    fn prune_bindings(&self, mut entry: Entry) -> Entry {
        loop {
            // Queues are asked without the lock: they hold theirs while they ask the routes.
            let removed: Vec<_> = self.routes.read().removed().cloned().collect();
            let old: Vec<_> = removed
                .into_iter()
                .filter(|binding| !self.is_needed(binding))
                .collect();
            if old.is_empty() {
                return entry;
            }
            let mut routes = self.routes.write();
            for binding in old {
                routes.remove(&binding);
                entry = entry.delete(BINDINGS, self.key(&binding.id.to_string()));
            }
        }
    }

    fn is_needed(&self, removed: &Binding) -> bool {
        let Some(until) = &removed.until else {
            return true;
        };
        match &removed.destination {
            Node::Queue(name) => self.queue(name).is_some_and(|state| {
                let unsettled = state.queue.sources();
                unsettled.iter().any(|source| {
                    until
                        .get(&source.partition)
                        .is_some_and(|until| source.from < *until)
                })
            }),
            exchange => !self.routes.read().out_of(exchange).is_empty(),
        }
    }

    fn store(&self, entry: Entry, binding: &Binding) -> Entry {
        if self.is_stored(binding) {
            entry.put(
                BINDINGS,
                self.key(&binding.id.to_string()),
                value(&binding.encode()),
            )
        } else {
            entry
        }
    }

    /// `exchange.declare`, not passive. Declaring what exists, alike, changes nothing.
    pub async fn declare_exchange(&self, exchange: Exchange) -> Result<(), Exception> {
        let _change = self.change.lock().await;
        if let Some(there) = self.exchange(&exchange.name) {
            return Self::equivalent_exchange(&there, &exchange, self.name());
        }
        if self.exchanges.read().len() >= limits::EXCHANGES {
            return Err(Exception::channel(
                code::RESOURCE_ERROR,
                format_args!("this vhost has {} exchanges, the limit", limits::EXCHANGES),
            ));
        }
        // From now on the records of other protocols in the stream of this name are the exchange's, not the queue's.
        let foreign = Node::Foreign(exchange.name.clone());
        let mut entry =
            self.close_bindings(|routes| routes.out_of(&foreign).to_vec(), Entry::new());
        if exchange.durable {
            entry = entry.put(
                EXCHANGES,
                self.key(&exchange.name),
                value(&exchange.encode()),
            );
        }
        self.exchanges
            .write()
            .insert(exchange.name.clone(), Arc::new(exchange));
        self.write(entry).await
    }

    fn equivalent_exchange(
        there: &Exchange,
        asked: &Exchange,
        vhost: &str,
    ) -> Result<(), Exception> {
        let differs = |what: &str,
                       asked: &dyn std::fmt::Display,
                       there: &dyn std::fmt::Display,
                       name: &str| {
            Err(Exception::channel(
                code::PRECONDITION_FAILED,
                format_args!(
                    "inequivalent arg '{what}' for exchange '{name}' in vhost '{vhost}': received '{asked}' but current is '{there}'"
                ),
            ))
        };
        if there.kind != asked.kind {
            return differs("type", &asked.kind.name(), &there.kind.name(), &there.name);
        }
        for (what, asked, current) in [
            ("durable", asked.durable, there.durable),
            ("auto_delete", asked.auto_delete, there.auto_delete),
            ("internal", asked.internal, there.internal),
        ] {
            if asked != current {
                return differs(what, &asked, &current, &there.name);
            }
        }
        Ok(())
    }

    /// `exchange.delete`. What is not there is deleted already.
    pub async fn delete_exchange(&self, name: &str, if_unused: bool) -> Result<(), Exception> {
        let _change = self.change.lock().await;
        let Some(exchange) = self.exchange(name) else {
            return Ok(());
        };
        let node = Node::Exchange(exchange.name.clone());
        if if_unused
            && self
                .routes
                .read()
                .out_of(&node)
                .iter()
                .any(|b| b.until.is_none())
        {
            return Err(Exception::channel(
                code::PRECONDITION_FAILED,
                format_args!("exchange '{name}' in vhost '{}' in use", self.name()),
            ));
        }
        self.drop_exchange(&exchange).await
    }

    async fn drop_exchange(&self, exchange: &Exchange) -> Result<(), Exception> {
        let node = Node::Exchange(exchange.name.clone());
        let mut lost_sources = Vec::new();
        let mut entry = self.close_bindings(
            |routes| [routes.out_of(&node), routes.bound_to(&node)].concat(),
            Entry::new(),
        );
        for binding in self.routes.read().bound_to(&node) {
            lost_sources.push(binding.source.clone());
        }
        self.exchanges.write().remove(&exchange.name);
        if exchange.durable {
            entry = entry.delete(EXCHANGES, self.key(&exchange.name));
        }
        // A queue of that name sees the records of other protocols again.
        entry = self.show_foreign_records(&exchange.name, entry);
        entry = self.prune_bindings(entry);
        self.write(entry).await?;
        if let Some(state) = self.queue(&exchange.name) {
            self.refresh(&state)
                .await
                .map_err(|e| Exception::internal("queue", e))?;
        }
        self.drop_unused_exchanges(lost_sources).await
    }

    /// Auto-delete exchanges go with their last binding.
    async fn drop_unused_exchanges(&self, candidates: Vec<Node>) -> Result<(), Exception> {
        for node in candidates {
            let Some(exchange) = self
                .exchange(node.name())
                .filter(|e| e.auto_delete && node == Node::Exchange(e.name.clone()))
            else {
                continue;
            };
            if self
                .routes
                .read()
                .out_of(&node)
                .iter()
                .all(|b| b.until.is_some())
            {
                Box::pin(self.drop_exchange(&exchange)).await?;
            }
        }
        Ok(())
    }

    /// `queue.declare`, not passive. Returns the queue, new or as it was.
    pub async fn declare_queue(
        &self,
        mut definition: Definition,
        connection: u64,
    ) -> Result<Arc<QueueState>, Exception> {
        let _change = self.change.lock().await;
        if let Some(there) = self.queue(&definition.name) {
            there.check_owner(connection, self.name())?;
            self.equivalent_queue(&there.definition, &definition)?;
            return Ok(there);
        }
        if self.queues.read().len() >= limits::QUEUES {
            return Err(Exception::channel(
                code::RESOURCE_ERROR,
                format_args!("this vhost has {} queues, the limit", limits::QUEUES),
            ));
        }
        definition.incarnation = self.new_id();
        let name = definition.name.clone();
        let owner = definition.exclusive.then_some(connection);
        let mut entry = Entry::new().put(QUEUES, self.key(&name), value(&definition.encode()));
        let state = Arc::new(QueueState::new(
            definition.clone(),
            owner,
            self.kernel_queue(&definition),
        ));
        self.queues.write().insert(name.clone(), state.clone());
        let node = Node::Queue(name.clone());
        let own = self.open_binding(
            Node::Exchange("".into()),
            Kind::Direct,
            node.clone(),
            &name,
            Table::default(),
        );
        entry = self.store(entry, &own);
        entry = self.show_foreign_records(&name, entry);
        self.write(entry).await?;
        self.refresh(&state)
            .await
            .map_err(|e| Exception::internal("queue", e))?;
        Ok(state)
    }

    fn equivalent_queue(&self, there: &Definition, asked: &Definition) -> Result<(), Exception> {
        let differs = |what: &str| {
            Err(Exception::channel(
                code::PRECONDITION_FAILED,
                format_args!(
                    "inequivalent arg '{what}' for queue '{}' in vhost '{}'",
                    there.name,
                    self.name()
                ),
            ))
        };
        if there.durable != asked.durable {
            return differs("durable");
        }
        if there.auto_delete != asked.auto_delete {
            return differs("auto_delete");
        }
        if there.exclusive != asked.exclusive {
            return Err(Exception::channel(
                code::RESOURCE_LOCKED,
                format_args!(
                    "inequivalent arg 'exclusive' for queue '{}' in vhost '{}'",
                    there.name,
                    self.name()
                ),
            ));
        }
        if !there.arguments.equivalent(&asked.arguments) {
            return differs("arguments");
        }
        Ok(())
    }

    /// Deletes this very queue; returns how many messages were ready. A queue already gone is none.
    pub async fn delete_queue(&self, state: &QueueState) -> Result<u64, Exception> {
        let _change = self.change.lock().await;
        if self
            .queue(state.name())
            .is_none_or(|q| q.definition.incarnation != state.definition.incarnation)
        {
            return Ok(0);
        }
        state.queue.catch_up().await;
        let ready = state.queue.ready();
        let node = Node::Queue(state.name().clone());
        let mut entry = Entry::new().delete(QUEUES, self.key(state.name()));
        let mut sources = Vec::new();
        {
            let mut routes = self.routes.write();
            for binding in routes.bound_to(&node).to_vec() {
                routes.remove(&binding);
                if self.is_stored(&binding) {
                    entry = entry.delete(BINDINGS, self.key(&binding.id.to_string()));
                }
                sources.push(binding.source.clone());
            }
        }
        self.queues.write().remove(state.name());
        state.deleted.cancel();
        self.write(entry).await?;
        state
            .queue
            .delete()
            .await
            .map_err(|e| Exception::internal("queue", e))?;
        // A queue we named is nobody else's, and neither is the stream its messages came through.
        if state.name().starts_with("amq.gen-") && self.exchange(state.name()).is_none() {
            match self
                .context
                .kernel
                .delete_stream(&self.address(state.name()))
                .await
            {
                Ok(()) | Err(kernel::DeleteStreamError::Unknown(_)) => {}
                Err(error) => return Err(Exception::internal("stream", error)),
            }
        }
        self.drop_unused_exchanges(sources).await?;
        Ok(ready)
    }

    /// Binds a queue or an exchange to an exchange. Returns when the binding is live and durable.
    pub async fn bind(
        &self,
        source: &str,
        destination: Node,
        routing_key: &str,
        arguments: Table,
    ) -> Result<(), Exception> {
        let _change = self.change.lock().await;
        let exchange = self
            .exchange(source)
            .ok_or_else(|| Exception::not_found("exchange", source, self.name()))?;
        let node = Node::Exchange(exchange.name.clone());
        let there = |routes: &Routes| {
            routes
                .bound_to(&destination)
                .iter()
                .any(|b| b.is_same(&node, &destination, routing_key, &arguments))
        };
        if there(&self.routes.read()) {
            return Ok(());
        }
        if self.routes.read().len() >= limits::BINDINGS {
            return Err(Exception::channel(
                code::RESOURCE_ERROR,
                format_args!("this vhost has {} bindings, the limit", limits::BINDINGS),
            ));
        }
        let binding = self.open_binding(
            node,
            exchange.kind,
            destination.clone(),
            routing_key,
            arguments,
        );
        self.write(self.store(Entry::new(), &binding)).await?;
        let affected: Vec<_> = match &destination {
            Node::Queue(name) => self.queue(name).into_iter().collect(),
            _ => self.queues.read().values().cloned().collect(),
        };
        for state in affected {
            self.refresh(&state)
                .await
                .map_err(|e| Exception::internal("queue", e))?;
        }
        Ok(())
    }

    /// Removes a binding; one that is not there is removed already (as RabbitMQ has it).
    pub async fn unbind(
        &self,
        source: &str,
        destination: Node,
        routing_key: &str,
        arguments: &Table,
    ) -> Result<(), Exception> {
        let _change = self.change.lock().await;
        let node = Node::Exchange(source.into());
        let same = |routes: &Routes| {
            routes
                .bound_to(&destination)
                .iter()
                .filter(|b| b.is_same(&node, &destination, routing_key, arguments))
                .cloned()
                .collect()
        };
        let entry = self.prune_bindings(self.close_bindings(same, Entry::new()));
        self.write(entry).await?;
        self.drop_unused_exchanges(vec![node]).await
    }

    /// What a connection leaves behind when it ends.
    pub async fn delete_exclusive_queues(&self, connection: u64) {
        let owned: Vec<_> = self
            .queues
            .read()
            .values()
            .filter(|q| q.owner == Some(connection))
            .cloned()
            .collect();
        for state in owned {
            if let Err(error) = self.delete_queue(&state).await {
                tracing::warn!(queue = %state.name(), %error, "an exclusive queue could not be deleted; it goes at the next start");
            }
        }
    }
}
