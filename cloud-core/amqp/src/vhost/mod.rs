//! A virtual host: the exchanges, queues and bindings of one namespace, in memory and in the kernel's tables.
//!
//! Changes go one after another through one lock; publishing and delivering only read. A change that decides what a record is routed
//! to takes effect together with reading the ends of the logs, under the lock the selectors read through: what was looked at before
//! lies below those ends, so memory and a later replay agree.

mod bindings;
mod exchanges;
mod queues;
mod recover;

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
    /// Namespaces have no control characters, so the zero byte ends them unmistakably.
    fn key(&self, name: &str) -> Bytes {
        Bytes::from(format!("{}\0{name}", self.namespace))
    }

    fn kernel_name(&self, definition: &Definition) -> QueueName {
        let Definition {
            name, incarnation, ..
        } = definition;
        QueueName(format!("amqp/{}/{name}/{incarnation}", self.namespace).into())
    }

    fn kernel_queue(&self, definition: &Definition) -> Arc<kernel::Queue> {
        let selector = QueueSelector {
            queue: Node::Queue(definition.name.clone()),
            routes: self.routes.clone(),
        };
        self.context
            .kernel
            .queue(&self.kernel_name(definition), Arc::new(selector))
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
}
