//! Declaring and deleting queues.

use super::*;

impl VirtualHost {
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

    pub(super) fn equivalent_queue(
        &self,
        there: &Definition,
        asked: &Definition,
    ) -> Result<(), Exception> {
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
