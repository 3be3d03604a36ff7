//! Everything that entries change. Only the writer thread changes it, entry by entry; everybody reads.

mod apply;
pub(crate) mod cold;
mod command;
pub(crate) mod partition;
pub(crate) mod producer;
mod settled;
mod table;
mod tail;
pub(crate) mod transaction;
pub(crate) mod volatile;
pub(crate) mod waiters;
pub(crate) mod wal_use;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, RwLock};
use record::{Namespace, StreamAddress, StreamName};
use roaring::RoaringTreemap;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, watch};

use crate::entry::{Command, CursorName, CursorPosition};
use crate::queue::QueueName;
use crate::stream::{PartitionId, Stream, StreamId};
use crate::stream_config::Durability;
use cold::ColdState;
use partition::Partition;
use tail::Tail;
use wal_use::{Live, WalUse};

pub(crate) use apply::FrameAt;
pub(crate) use table::Table;

/// The streams, by every name they have.
#[derive(Debug)]
pub(crate) struct Directory {
    pub by_id: BTreeMap<StreamId, Arc<Stream>>,
    pub by_name: BTreeMap<Namespace, BTreeMap<StreamName, StreamId>>,
    /// Ids are given out here, so their hash need not withstand anybody.
    pub partitions: FxHashMap<PartitionId, Arc<Partition>>,
    pub next_stream: u64,
    pub next_producer_id: i64,
    /// Streams that ask for less than the default.
    pub relaxed: BTreeMap<StreamId, Durability>,
}

impl Directory {
    pub fn find(&self, address: &StreamAddress) -> Option<&Arc<Stream>> {
        self.by_id
            .get(self.by_name.get(&address.namespace)?.get(&address.name)?)
    }
}

/// The durable state of one source of a queue.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SourceState {
    /// Below it everything is settled or is not for the queue.
    pub low_water: i64,
    /// At or above it nothing had been handed out when this was written.
    pub delivered_to: i64,
    /// Settled offsets at or above `low_water`.
    pub settled: RoaringTreemap,
}

/// Maps that share what has not changed since they were copied: a checkpoint takes a copy on the writer's thread for the price of a pointer,
/// and encodes it beside it.
pub(crate) type Shared<K, V> = rpds::RedBlackTreeMapSync<K, V>;
pub(crate) type Positions = Shared<PartitionId, CursorPosition>;
pub(crate) type QueueSources = Shared<PartitionId, SourceState>;

/// Counters of what was applied.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    pub batches: AtomicU64,
    pub records: AtomicU64,
    pub bytes: AtomicU64,
    pub duplicates: AtomicU64,
    pub refused: AtomicU64,
}

/// The state.
#[derive(Debug)]
pub(crate) struct State {
    pub directory: RwLock<Directory>,
    pub tables: RwLock<Shared<Arc<str>, Table>>,
    pub cursors: RwLock<Shared<CursorName, Positions>>,
    pub queues: RwLock<Shared<QueueName, QueueSources>>,
    /// Taken after the lock of a partition, if both are.
    pub wal_use: Mutex<WalUse>,
    /// Taken after the lock of a partition, if both are.
    pub cold: Mutex<ColdState>,
    /// Unsealed bytes at which `seal_due` is notified.
    pub seal_at: AtomicU64,
    pub seal_due: Notify,
    pub tail: Mutex<Tail>,
    pub applied: Applied,
    pub streams_changed: watch::Sender<u64>,
}

impl State {
    pub fn new(tail_bytes: usize) -> State {
        State {
            directory: RwLock::new(Directory {
                by_id: BTreeMap::new(),
                by_name: BTreeMap::new(),
                partitions: FxHashMap::default(),
                next_stream: 1,
                next_producer_id: 1,
                relaxed: BTreeMap::new(),
            }),
            tables: RwLock::default(),
            cursors: RwLock::default(),
            queues: RwLock::default(),
            wal_use: Mutex::default(),
            cold: Mutex::default(),
            seal_at: AtomicU64::new(u64::MAX),
            seal_due: Notify::new(),
            tail: Mutex::new(Tail::new(tail_bytes)),
            applied: Applied::default(),
            streams_changed: watch::Sender::new(0),
        }
    }

    pub fn partition(&self, id: PartitionId) -> Option<Arc<Partition>> {
        self.directory.read().partitions.get(&id).cloned()
    }

    /// All of them, in no order, for whoever looks at one after the other without keeping the directory from those who change it.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        let directory = self.directory.read();
        directory.partitions.values().cloned().collect()
    }

    /// Takes the batches of a partition below an offset out of memory; they are read from where they are stored.
    pub fn forget_tail(&self, id: PartitionId, below: i64) {
        if let Some(partition) = self.partition(id) {
            let (batches, bytes) = partition.log.lock().drop_tail(below);
            self.tail.lock().removed(batches, bytes);
        }
    }

    pub fn stream(&self, id: StreamId) -> Option<Arc<Stream>> {
        self.directory.read().by_id.get(&id).cloned()
    }

    /// Counts for each WAL file, of which `firsts` are the first indexes, the batches that are in it.
    pub fn count_live(&self, firsts: &[u64]) {
        let mut wal_use = self.wal_use.lock();
        let empty = |first: &u64| (*first, Live::default());
        wal_use.files = firsts.iter().map(empty).collect();
        wal_use.bytes = 0;
        for partition in self.directory.read().partitions.values() {
            partition
                .log
                .lock()
                .batches
                .iter()
                .for_each(|batch| wal_use.add(batch.index, u64::from(batch.batch_len)));
        }
    }

    /// Whether any stream asks for less than the default.
    pub fn is_relaxed(&self) -> bool {
        !self.directory.read().relaxed.is_empty()
    }

    /// How durable an entry of these commands must be before it is applied: as durable as the most careful of its streams wants it; all
    /// but appends must be on the disk.
    pub fn durability(&self, commands: &[Command]) -> Durability {
        let directory = self.directory.read();
        let of = |command: &Command| match command {
            // Who writes in transactions asks for more.
            Command::Append {
                partition, batch, ..
            } if !batch.is_transactional() => directory.relaxed.get(&partition.stream).copied(),
            _ => None,
        };
        let classes = commands.iter().map(|c| of(c).unwrap_or_default());
        classes.max().unwrap_or_default()
    }

    /// Puts a stream where it is found, or in the place of what it was.
    pub fn place_stream(directory: &mut Directory, stream: Stream) {
        let is_volatile = stream.durability() == Durability::Memory;
        for id in stream.partition_ids() {
            let partition = directory
                .partitions
                .entry(id)
                .or_insert_with(|| Partition::new(id, partition::PartitionLog::default()));
            partition.log.lock().set_volatile(is_volatile);
        }
        let names = directory
            .by_name
            .entry(stream.address.namespace.clone())
            .or_default();
        names.insert(stream.address.name.clone(), stream.id);
        match stream.durability() {
            Durability::QuorumFsync => directory.relaxed.remove(&stream.id),
            relaxed => directory.relaxed.insert(stream.id, relaxed),
        };
        directory.by_id.insert(stream.id, Arc::new(stream));
    }
}

/// Offsets in bitmaps; there are no negative ones.
pub(crate) fn offset_u64(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}
