//! Loading a virtual host when the process starts.

use super::*;

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
            entry = entry.delete(QUEUES, vhost.key(&definition.name));
        }
        // A queue whose deletion did not come to its end is known to the kernel alone.
        let ours = format!("amqp/{}/", vhost.namespace);
        let names: Vec<_> = kept.iter().map(|d| vhost.kernel_name(d)).collect();
        for name in vhost.context.kernel.queues() {
            if name.0.starts_with(&ours) && !names.contains(&name) {
                let nobody = Arc::new(());
                vhost.context.kernel.queue(&name, nobody).delete().await?;
            }
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

    pub(super) fn load<T>(
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
}
