//! Declaring and deleting exchanges.

use super::*;

impl VirtualHost {
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

    pub(super) fn equivalent_exchange(
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

    pub(super) async fn drop_exchange(&self, exchange: &Exchange) -> Result<(), Exception> {
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
    pub(super) async fn drop_unused_exchanges(
        &self,
        candidates: Vec<Node>,
    ) -> Result<(), Exception> {
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
}
