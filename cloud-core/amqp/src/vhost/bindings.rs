//! Bindings come and go; which of them are kept after their end, and for how long.

use super::*;

impl VirtualHost {
    /// Adds a binding with its effect from now on; returns what to store.
    pub(super) fn open_binding(
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
    pub(super) fn close_bindings(
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
    pub(super) fn is_stored(&self, binding: &Binding) -> bool {
        match &binding.destination {
            Node::Queue(name) => self
                .queue(name)
                .is_some_and(|q| q.definition.durable && !q.definition.exclusive),
            Node::Exchange(_) | Node::Foreign(_) => true,
        }
    }

    /// While there is no exchange of a queue's name, the queue sees the records of other protocols in the stream of that name.
    pub(super) fn show_foreign_records(&self, queue: &Arc<str>, entry: Entry) -> Entry {
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
    pub(super) fn prune_bindings(&self, mut entry: Entry) -> Entry {
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

    pub(super) fn is_needed(&self, removed: &Binding) -> bool {
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

    pub(super) fn store(&self, entry: Entry, binding: &Binding) -> Entry {
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
}
