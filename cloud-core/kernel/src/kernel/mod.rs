//! The door: everything a front end calls.

mod cursors;
mod maintain;
mod reading;
mod streams;
mod tables;
mod transactions;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use record::{Batch, ControlRecord};
use tokio::sync::oneshot;

pub use reading::{Read, TierBytes, Watermarks};
pub use tables::TableRows;
pub use transactions::{AbortedTransaction, OpenTransaction};
pub use watch::Watch;

use crate::cold::ColdTier;
use crate::compaction::Rewriting;
use crate::config::KernelConfig;
use crate::entry::{Appended, Command, Entry, Outcome, SequenceRule};
use crate::error::{AppendError, OpenError, WriteError};
use crate::ports::Ports;
use crate::queue::{Queue, QueueName, Selector};
use crate::snapshot::SnapshotRequests;
use crate::state::State;
use crate::stream::PartitionId;
use crate::wal::files::WalFiles;
use crate::wal::intake::{Intake, Pending};
use crate::wal::spares::Spares;
use crate::wal::writer::{Progress, Work, Writer, Written};
use crate::{checkpoint, entry_codec, limits, pool, wal};
use maintain::Checkpoints;

/// Name of the lock file in the data directory.
pub(crate) const LOCK: &str = "lock";

/// The kernel. A clone is another handle to the same one; when the last is dropped the writer finishes what waits and ends.
#[derive(Clone)]
pub struct Kernel {
    pub(crate) core: Arc<Core>,
}

pub(crate) struct Core {
    pub ports: Ports,
    pub config: KernelConfig,
    pub state: Arc<State>,
    pub intake: Arc<Intake>,
    pub files: Arc<WalFiles>,
    pub written: Arc<Written>,
    pub snapshots: Arc<SnapshotRequests>,
    pub spares: Arc<Spares>,
    pub pool: Arc<pool::Pool>,
    pub cold: ColdTier,
    pub rewriting: Rewriting,
    pub checkpoints: tokio::sync::Mutex<Checkpoints>,
    pub checkpoints_written: AtomicU64,
    pub checkpoint_bytes: AtomicU64,
    /// Queues that somebody holds open.
    pub queues: Mutex<BTreeMap<QueueName, Weak<Queue>>>,
    /// Ends of the partitions at the recovery after a crash: what was below may have been delivered, nobody knows. Empty after
    /// an orderly shutdown.
    pub uncertain: HashMap<PartitionId, i64>,
    pub tail_hits: AtomicU64,
    pub tail_misses: AtomicU64,
    pub corrupt_reads: AtomicU64,
    /// Damaged ranges that the log tells of already, by their first offsets.
    pub damage_told: Mutex<BTreeSet<(PartitionId, i64)>>,
    pub recovery_us: u64,
    pub recovered_entries: u64,
    pub recovered_damaged: u64,
    next_waiter: AtomicU64,
    /// Numbers the acquisitions of all queues.
    pub acquisitions: AtomicU64,
    /// Set once something was handed out and the log says so: see [`Kernel::begin_deliveries`].
    pub deliveries: tokio::sync::OnceCell<()>,
    /// A shutdown has begun: queues hand out nothing more.
    pub stopping: AtomicBool,
    producer_ids: Mutex<std::ops::Range<i64>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    lock: Mutex<Option<Box<dyn Send + Sync>>>,
}

/// The writer of a kernel opened with [`Kernel::open_stepped`].
pub struct Stepper {
    writer: Writer,
}

impl Stepper {
    /// Writes, syncs and applies one group of what waits; false when nothing did.
    pub fn step(&mut self) -> bool {
        self.writer.step()
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.intake.close();
        if let Some(writer) = self.writer.lock().take() {
            // The data directory stays locked until the writer has let go of it. A writer that panicked has nothing to wait for.
            let _ = writer.join();
        }
    }
}

impl Kernel {
    /// Opens and recovers. Blocks: call it outside of async code, or on a blocking thread.
    pub fn open(ports: Ports, config: KernelConfig) -> Result<Kernel, OpenError> {
        let (kernel, stepper) = Kernel::open_stepped(ports, config)?;
        let writer = stepper.writer;
        let thread = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || writer.run());
        *kernel.core.writer.lock() = Some(thread.map_err(OpenError::Thread)?);
        Ok(kernel)
    }

    /// Like [`Kernel::open`], but nothing is written until the caller drives the writer: for simulators that want one thread. Set
    /// [`KernelConfig::reader_threads`] to 0 for reads on that thread, too.
    pub fn open_stepped(
        ports: Ports,
        config: KernelConfig,
    ) -> Result<(Kernel, Stepper), OpenError> {
        check(&config)?;
        let started = ports.clock.monotonic_us();
        let disk = ports.disk.clone();
        for directory in [wal::DIRECTORY, checkpoint::DIRECTORY] {
            disk.create_dir(directory)
                .map_err(wal::recover::io_error("create", directory))?;
        }
        let lock = disk
            .lock(LOCK)
            .map_err(wal::recover::io_error("lock", LOCK))?
            .ok_or(OpenError::Locked)?;
        // What a process that was killed created or renamed is seen here, and need not be on the disk yet: it must be before anything
        // relies on it.
        for directory in ["", wal::DIRECTORY, checkpoint::DIRECTORY] {
            disk.sync_dir(directory)
                .map_err(wal::recover::io_error("sync the directory", directory))?;
        }
        let loaded = checkpoint::load(&*disk, config.tail_bytes)?;
        let state = Arc::new(loaded.state);
        let files = Arc::new(WalFiles::new(disk.clone()));
        let spares = Arc::new(Spares::new(
            disk.clone(),
            config.wal_file_bytes,
            config.wal_bytes,
        ));
        let pool = Arc::new(pool::Pool::start(config.reader_threads).map_err(OpenError::Thread)?);
        let head = loaded.head;
        let recovered = wal::recover::recover(&*disk, &pool, &state, &files, &spares, head);
        let recovered =
            recovered.map_err(|error| checkpoint::Loaded::blame(loaded.damage, error))?;
        state.resume_volatile();
        let orderly = loaded.head.last && recovered.entries == 0;
        let uncertain = if orderly {
            HashMap::new()
        } else {
            ends(&state)
        };
        let intake = Arc::new(Intake::new(config.queue_bytes));
        let written = Arc::new(Written::default());
        written
            .applied
            .store(recovered.next_index - 1, Ordering::Release);
        let snapshots = Arc::new(SnapshotRequests::new());
        let writer = Writer {
            ports: ports.clone(),
            config: config.clone(),
            state: state.clone(),
            intake: intake.clone(),
            files: files.clone(),
            spares: spares.clone(),
            pool: pool.clone(),
            written: written.clone(),
            snapshots: snapshots.clone(),
            current: recovered.current,
            next_index: recovered.next_index,
            last_stamp: recovered.last_stamp,
            progress: Progress::synced(recovered.next_index - 1),
            work: Work::default(),
        };
        let recovery_us = ports.clock.monotonic_us().saturating_sub(started);
        state.seal_at.store(config.seal_at(), Ordering::Relaxed);
        let cold = ColdTier::new(&ports, &config, &written);
        let core = Core {
            ports,
            config,
            state,
            intake,
            files,
            written,
            snapshots,
            spares,
            pool,
            cold,
            rewriting: Rewriting::default(),
            checkpoints: tokio::sync::Mutex::new(Checkpoints::new(
                loaded.kept,
                started,
                recovered.bytes,
            )),
            checkpoints_written: AtomicU64::new(0),
            checkpoint_bytes: AtomicU64::new(0),
            queues: Mutex::default(),
            uncertain,
            tail_hits: AtomicU64::new(0),
            tail_misses: AtomicU64::new(0),
            corrupt_reads: AtomicU64::new(0),
            damage_told: Mutex::default(),
            recovery_us,
            recovered_entries: recovered.entries,
            recovered_damaged: recovered.damaged,
            deliveries: tokio::sync::OnceCell::new_with((!orderly).then_some(())),
            stopping: AtomicBool::new(false),
            next_waiter: AtomicU64::new(0),
            acquisitions: AtomicU64::new(0),
            producer_ids: Mutex::new(0..0),
            writer: Mutex::new(None),
            lock: Mutex::new(Some(lock)),
        };
        let kernel = Kernel {
            core: Arc::new(core),
        };
        kernel.abort_orphans();
        Ok((kernel, Stepper { writer }))
    }

    /// Writes what waits, makes a checkpoint and stops. Later writes get `Closed`.
    pub async fn shutdown(&self) {
        self.core.stopping.store(true, Ordering::Release);
        // A checkpoint that says the stop was orderly also says that all deliveries are written down.
        if self.persist_deliveries().await
            && let Err(error) = self.checkpoint(true).await
        {
            tracing::warn!(%error, "no checkpoint at shutdown; the next start replays the log instead");
        }
        self.core.intake.close();
        // A closed intake ends the writer, so this ends too.
        let writer = self.core.writer.lock().take();
        if let Some(writer) = writer {
            let joined = self.core.pool.run(move || writer.join().is_ok()).await;
            if joined == Some(false) {
                tracing::error!("the writer of the log had panicked");
            }
        }
        self.core.pool.close();
        self.core.lock.lock().take();
    }

    /// Writes an entry; resolves when it is durable and applied, with one outcome for each command.
    ///
    /// The entry takes its place in the order of calls now, when this function is called, not when the future is first polled;
    /// dropping the future does not take it back. A caller that awaits is held back by the disk; see [`KernelConfig::queue_bytes`].
    pub fn write(
        &self,
        entry: Entry,
    ) -> impl Future<Output = Result<Vec<Outcome>, WriteError>> + Send + use<> {
        let submitted = self.submit(entry, false);
        answer(submitted)
    }

    /// Like [`Kernel::write`], for entries that make room, or that maintenance cannot do without: they pass by those that are held back
    /// because the WAL is at its bound, and are taken when the disk is full, as long as the reserve lasts.
    pub(crate) fn write_urgent(
        &self,
        entry: Entry,
    ) -> impl Future<Output = Result<Vec<Outcome>, WriteError>> + Send + use<> {
        let submitted = self.submit(entry, true);
        answer(submitted)
    }

    fn submit(&self, entry: Entry, urgent: bool) -> Result<Answer, WriteError> {
        let commands = entry.commands;
        self.check_entry(&commands)?;
        let encoded = entry_codec::encode(&commands);
        at_most("the entry", encoded.len, limits::MAX_ENTRY_BYTES)?;
        let (done, receiver) = oneshot::channel();
        self.core.intake.push(Pending {
            urgent,
            commands,
            encoded,
            done,
        })?;
        Ok(receiver)
    }

    fn check_entry(&self, commands: &[Command]) -> Result<(), WriteError> {
        at_most(
            "the number of commands",
            commands.len(),
            limits::MAX_ENTRY_COMMANDS,
        )?;
        for command in commands {
            match command {
                Command::Append { batch, rule, .. } => {
                    at_most("a batch", batch.len(), self.core.config.max_batch_bytes)?;
                    if batch.record_count() == 0
                        || i64::from(batch.last_offset_delta()) + 1
                            != i64::from(batch.record_count())
                    {
                        return Err(WriteError::Malformed(
                            "the offsets of the batch do not agree with its record count",
                        ));
                    }
                    if batch.is_control() {
                        return Err(WriteError::Malformed(
                            "a control batch is written by ending a transaction only",
                        ));
                    }
                    if batch.is_transactional() && !crate::state::producer::is_checked(*rule, batch)
                    {
                        return Err(WriteError::Malformed(
                            "a transactional batch needs a producer whose sequence is checked",
                        ));
                    }
                }
                Command::EndTransaction { partitions, marker } => {
                    at_most(
                        "the number of partitions",
                        partitions.len(),
                        limits::MAX_ENTRY_COMMANDS,
                    )?;
                    if ControlRecord::from_batch(marker).is_none() || marker.producer_id() < 0 {
                        return Err(WriteError::Malformed(
                            "not the control batch of a transaction",
                        ));
                    }
                }
                Command::TablePut { table, key, value }
                | Command::TableDeleteIf { table, key, value } => {
                    name_fits(table)?;
                    at_most("a table key", key.len(), limits::MAX_TABLE_KEY_BYTES)?;
                    at_most("a table value", value.len(), limits::MAX_TABLE_VALUE_BYTES)?;
                }
                Command::CursorCommit { group, positions } => {
                    name_fits(&group.0)?;
                    for position in positions {
                        at_most(
                            "cursor metadata",
                            position.metadata.len(),
                            limits::MAX_CURSOR_METADATA_BYTES,
                        )?;
                    }
                }
                Command::QueueSources { queue, .. } => name_fits(&queue.0)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Appends one batch; takes its place in the order of calls like [`Kernel::write`].
    pub fn append(
        &self,
        partition: PartitionId,
        batch: Batch,
        rule: SequenceRule,
    ) -> impl Future<Output = Result<Appended, AppendError>> + Send + use<> {
        let commands = vec![Command::Append {
            partition,
            batch,
            rule,
        }];
        let written = self.write(Entry { commands });
        async move {
            match written.await?.pop() {
                Some(Outcome::Appended(appended)) => Ok(appended),
                Some(Outcome::Refused(error)) => Err(error),
                _ => Err(AppendError::Closed),
            }
        }
    }

    /// The settings it was opened with.
    pub fn config(&self) -> &KernelConfig {
        &self.core.config
    }

    /// Where the cold store is, for people.
    pub fn cold_location(&self) -> String {
        self.core.ports.cold.location()
    }

    /// Opens a queue with the state that survived; without state it is empty until [`Queue::set_sources`]. A queue that somebody holds
    /// open is returned, and uses the new selector for what it has not looked through yet. When the last holder drops it, what was in
    /// flight counts as released.
    pub fn queue(&self, name: &QueueName, selector: Arc<dyn Selector>) -> Arc<Queue> {
        let mut queues = self.core.queues.lock();
        if let Some(queue) = queues
            .get(name)
            .and_then(Weak::upgrade)
            .filter(|queue| !queue.is_deleted())
        {
            queue.set_selector(selector);
            return queue;
        }
        let reopened = queues.contains_key(name);
        let queue = Arc::new(Queue::open(self.clone(), name.clone(), selector, reopened));
        queues.insert(name.clone(), Arc::downgrade(&queue));
        queue
    }

    pub(crate) fn open_queues(&self) -> Vec<Arc<Queue>> {
        self.core
            .queues
            .lock()
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// A deleted queue leaves its name to others.
    pub(crate) fn forget_queue(&self, queue: &Queue) {
        let mut queues = self.core.queues.lock();
        if queues
            .get(queue.name())
            .is_some_and(|known| std::ptr::eq(known.as_ptr(), queue))
        {
            queues.remove(queue.name());
        }
    }

    /// Names of all queues that have durable state.
    pub fn queues(&self) -> Vec<QueueName> {
        self.core.state.queues.read().keys().cloned().collect()
    }

    /// Does it have durable state?
    pub fn has_queue(&self, name: &QueueName) -> bool {
        self.core.state.queues.read().contains_key(name)
    }

    /// Deletes the state of a queue that nobody holds open; use [`Queue::delete`] for one that is open. False when there was none.
    pub async fn queue_delete(&self, name: &QueueName) -> Result<bool, WriteError> {
        let outcomes = self
            .write(Entry::new().with(Command::QueueDelete {
                queue: name.clone(),
            }))
            .await?;
        Ok(outcomes.first() == Some(&Outcome::Done))
    }

    /// A producer id that nobody has had before.
    pub async fn allocate_producer_id(&self) -> Result<i64, WriteError> {
        if let Some(id) = self.core.producer_ids.lock().next() {
            return Ok(id);
        }
        let count = limits::PRODUCER_ID_BLOCK;
        let outcomes = self
            .write(Entry::new().with(Command::AllocateProducerIds { count }))
            .await?;
        let Some(Outcome::ProducerIds(first)) = outcomes.first() else {
            return Err(WriteError::Closed);
        };
        // Another caller may have brought a block meanwhile; what is left of that is forgotten, ids are plenty.
        *self.core.producer_ids.lock() = first + 1..first + i64::from(count);
        Ok(*first)
    }
}

type Answer = oneshot::Receiver<Result<Vec<Outcome>, WriteError>>;

async fn answer(submitted: Result<Answer, WriteError>) -> Result<Vec<Outcome>, WriteError> {
    submitted?.await.unwrap_or(Err(WriteError::Closed))
}

fn check(config: &KernelConfig) -> Result<(), OpenError> {
    let wrong = |name, reason: &str| {
        Err(OpenError::Config {
            name,
            reason: reason.to_owned(),
        })
    };
    // Positions in a file are 32 bits wide in the index, and a file may exceed its size by one group.
    if !(4096..=1 << 31).contains(&config.wal_file_bytes) {
        return wrong("wal_file_bytes", "must be 4 KiB to 2 GiB");
    }
    if config.wal_bytes / limits::WAL_MIN_FILES < config.wal_file_bytes {
        return wrong("wal_bytes", "must have room for at least four files");
    }
    if !(4096..=1 << 30).contains(&config.group_bytes) {
        return wrong("group_bytes", "must be 4 KiB to 1 GiB");
    }
    if config.max_batch_bytes > limits::MAX_BATCH_BYTES {
        return wrong("max_batch_bytes", "must be at most 32 MiB");
    }
    if config.segment_bytes == 0 || config.segment_bytes > 1 << 40 {
        return wrong("segment_bytes", "must be 1 byte to 1 TiB");
    }
    if config.default_partitions == 0 || config.default_partitions > limits::MAX_PARTITIONS {
        return wrong("default_partitions", "must be 1 to 100000");
    }
    Ok(())
}

fn ends(state: &State) -> HashMap<PartitionId, i64> {
    state
        .directory
        .read()
        .partitions
        .values()
        .map(|p| (p.id, p.log.lock().end))
        .collect()
}

fn at_most(what: &'static str, size: usize, limit: usize) -> Result<(), WriteError> {
    if size > limit {
        Err(WriteError::TooLarge { what, size, limit })
    } else {
        Ok(())
    }
}

fn name_fits(name: &str) -> Result<(), WriteError> {
    if name.is_empty() {
        return Err(WriteError::Malformed("a name is empty"));
    }
    at_most("a name", name.len(), limits::MAX_NAME_BYTES)
}
