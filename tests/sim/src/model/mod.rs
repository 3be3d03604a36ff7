//! What the kernel should be, in maps and lists: it takes the entries in their order and says what becomes of each.

pub mod compaction;
pub mod expected;
pub mod letters;
mod log;
pub mod producer;
pub mod queues;
pub mod time;
pub mod transactions;
pub mod view;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kernel::{
    AbortedTransaction, CLEANUP_POLICY, Command, CursorName, DELETE_RETENTION_MS, DURABILITY,
    Outcome, PartitionId, RETENTION_BYTES, RETENTION_MS, SequenceRule, StreamId,
};
use record::{Batch, ControlRecord, StreamAddress};

use expected::{Answered, Decided, Expected};
pub use log::{Class, Kept, Log};
use producer::{Judgement, Producer};

/// The stream that queues send dead letters to. Only they write to it, and the model does not know when.
pub const DEAD_LETTERS: &str = "dead";

/// Values by table and key.
pub type Tables = BTreeMap<String, BTreeMap<Bytes, Bytes>>;
/// Offset and metadata by group and partition.
pub type Cursors = BTreeMap<CursorName, BTreeMap<PartitionId, (i64, Bytes)>>;

/// A stream.
#[derive(Clone)]
pub struct Stream {
    pub address: StreamAddress,
    pub config: BTreeMap<String, String>,
    pub logs: Vec<Log>,
    /// The least that retention was ever told to keep: age in ms, bytes.
    pub least_ms: Option<i64>,
    pub least_bytes: Option<u64>,
    /// Compaction was allowed, some time.
    pub compacts: bool,
    /// The least that compaction was ever told to keep deletions for, in ms.
    pub least_deletions_ms: i64,
    /// See [`DEAD_LETTERS`].
    pub takes_dead_letters: bool,
}

impl Stream {
    pub fn class(&self) -> Class {
        match self.config.get(DURABILITY).map(String::as_str) {
            Some("memory") => Class::Memory,
            Some("quorum") => Class::PageCache,
            _ => Class::Synced,
        }
    }

    fn configure(&mut self, config: &BTreeMap<String, String>) {
        self.config.clone_from(config);
        let is_volatile = self.class() == Class::Memory;
        let logs = self.logs.iter_mut();
        logs.for_each(|log| log.set_volatile(is_volatile));
        let number = |key| config.get(key).and_then(|v| v.parse::<i64>().ok());
        self.compacts |= config
            .get(CLEANUP_POLICY)
            .is_some_and(|policy| policy.contains("compact"));
        let deletions_ms = number(DELETE_RETENTION_MS).unwrap_or(0);
        self.least_deletions_ms = self.least_deletions_ms.min(deletions_ms);
        if let Some(ms) = number(RETENTION_MS).filter(|ms| *ms >= 0) {
            self.least_ms = Some(self.least_ms.map_or(ms, |least| least.min(ms)));
        }
        if let Some(bytes) = number(RETENTION_BYTES).and_then(|bytes| u64::try_from(bytes).ok()) {
            self.least_bytes = Some(self.least_bytes.map_or(bytes, |least| least.min(bytes)));
        }
    }
}

/// Everything.
#[derive(Clone, Default)]
pub struct Model {
    pub streams: BTreeMap<StreamId, Stream>,
    pub tables: Tables,
    pub cursors: Cursors,
    /// Numbers that streams have had.
    pub used: BTreeSet<StreamId>,
    /// Producer ids that were given out.
    pub producer_ids: i64,
}

impl Model {
    pub fn log(&self, partition: PartitionId) -> Option<&Log> {
        let stream = self.streams.get(&partition.stream)?;
        stream.logs.get(partition.partition as usize)
    }

    pub fn log_mut(&mut self, partition: PartitionId) -> Option<&mut Log> {
        let stream = self.streams.get_mut(&partition.stream)?;
        stream.logs.get_mut(partition.partition as usize)
    }

    /// The stream of that name.
    pub fn named(&self, address: &StreamAddress) -> Option<StreamId> {
        let mut streams = self.streams.iter();
        streams
            .find(|(_, s)| s.address == *address)
            .map(|(id, _)| *id)
    }

    /// All partitions there are.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        self.streams.iter().flat_map(|(id, stream)| {
            (0..stream.logs.len()).map(|number| id.partition(u32::try_from(number).unwrap_or(0)))
        })
    }

    /// The weakest promise that covers an entry as a whole: what is not an append, and what is of a transaction, is always synced.
    pub fn class_of(&self, commands: &[Command]) -> Class {
        let classes = commands.iter().map(|command| match command {
            Command::Append {
                partition, batch, ..
            } if !batch.is_transactional() => self
                .streams
                .get(&partition.stream)
                .map_or(Class::Synced, Stream::class),
            _ => Class::Synced,
        });
        classes.max().unwrap_or(Class::Synced)
    }

    /// Applies an entry that was acknowledged with these outcomes.
    pub fn apply(
        &mut self,
        number: u64,
        class: Class,
        commands: &[Command],
        found: &[Outcome],
    ) -> Result<(), String> {
        let expected = self
            .expect(class, commands, &Answered(found))
            .map_err(|why| format!("entry {number}: {why}"))?;
        let same = expected.len() == found.len()
            && expected
                .iter()
                .zip(found)
                .all(|(expected, found)| expected.is(found));
        if same {
            Ok(())
        } else {
            Err(format!(
                "entry {number}: expected {expected:?}, found {found:?}"
            ))
        }
    }

    /// Applies an entry.
    pub fn expect(
        &mut self,
        class: Class,
        commands: &[Command],
        decided: &dyn Decided,
    ) -> Result<Vec<Expected>, String> {
        let judged = match self.judge(class == Class::Memory, commands) {
            Ok(judged) => judged,
            Err((refused, why)) => {
                let mut expected = vec![Expected::NotApplied; commands.len()];
                expected[refused] = why;
                return Ok(expected);
            }
        };
        let repeated = !judged.is_empty()
            && judged
                .iter()
                .all(|judged| matches!(judged, Judgement::Duplicate(..)));
        let mut judged = judged.into_iter();
        let mut expected = Vec::with_capacity(commands.len());
        for (position, command) in commands.iter().enumerate() {
            expected.push(match command {
                Command::Append {
                    partition,
                    batch,
                    rule,
                } => {
                    let log = self.log(*partition);
                    let from = log.map_or(0, |log| log.end);
                    let placed = decided.placed(position, *partition, batch, from);
                    self.append(class, (*partition, batch, *rule), judged.next(), placed)?
                }
                _ if repeated => Expected::NoEffect,
                Command::EndTransaction { partitions, marker } => {
                    let mut ended = Vec::new();
                    for partition in partitions {
                        let Some(log) = self.log(*partition) else {
                            continue;
                        };
                        let placed = decided.placed(position, *partition, marker, log.end);
                        let base_offset = self.end_transaction(*partition, marker, placed)?;
                        ended.push((*partition, base_offset));
                    }
                    Expected::Ended(ended)
                }
                other => self.other(other, decided.created(position))?,
            });
        }
        Ok(expected)
    }

    fn judge(
        &self,
        volatile: bool,
        commands: &[Command],
    ) -> Result<Vec<Judgement>, (usize, Expected)> {
        let mut staged: BTreeMap<(PartitionId, i64), Producer> = BTreeMap::new();
        let mut judged = Vec::new();
        for (position, command) in commands.iter().enumerate() {
            let refused = |judgement| match judgement {
                Judgement::OutOfOrder => Err((position, Expected::OutOfOrder)),
                Judgement::Fenced => Err((position, Expected::Fenced)),
                Judgement::Transaction => Err((position, Expected::Transaction)),
                Judgement::Append | Judgement::Duplicate(..) => Ok(judgement),
            };
            match command {
                Command::Append {
                    partition,
                    batch,
                    rule,
                } => {
                    let log = self.log(*partition).ok_or((position, Expected::Unknown))?;
                    if !log.checks(volatile, batch, *rule) {
                        judged.push(Judgement::Append);
                        continue;
                    }
                    let id = batch.producer_id();
                    let durable = if volatile {
                        &log.volatile_producers
                    } else {
                        &log.producers
                    };
                    let known = staged.get(&(*partition, id)).or_else(|| durable.get(&id));
                    let judgement = refused(producer::judge(known, batch, *rule))?;
                    if judgement == Judgement::Append {
                        let now = producer::remember(known.cloned(), batch, *rule, -1);
                        staged.insert((*partition, id), now);
                    }
                    judged.push(judgement);
                }
                Command::EndTransaction { partitions, marker } => {
                    let id = marker.producer_id();
                    let coordinator = coordinator(marker);
                    for partition in partitions {
                        let Some(log) = self.log(*partition) else {
                            continue;
                        };
                        let known = staged
                            .get(&(*partition, id))
                            .or_else(|| log.producers.get(&id));
                        refused(producer::judge_end(known, marker, coordinator))?;
                        let epoch = marker.producer_epoch();
                        let (now, _) = producer::end(known.cloned(), epoch, coordinator);
                        staged.insert((*partition, id), now);
                    }
                }
                Command::AdvanceSequence {
                    partition,
                    producer_id,
                    epoch,
                    next,
                } => {
                    let log = self.log(*partition).filter(|log| !log.is_volatile);
                    let Some(log) = log else { continue };
                    let key = (*partition, *producer_id);
                    let known = staged.get(&key);
                    let known = known.or_else(|| log.producers.get(producer_id));
                    if let Some(now) = producer::advance(known, *epoch, *next) {
                        staged.insert(key, now);
                    }
                }
                _ => {}
            }
        }
        Ok(judged)
    }

    fn append(
        &mut self,
        class: Class,
        (partition, batch, rule): (PartitionId, &Batch, SequenceRule),
        judged: Option<Judgement>,
        placed: Option<i64>,
    ) -> Result<Expected, String> {
        if let Some(Judgement::Duplicate(base_offset, last_offset)) = judged {
            return Ok(Expected::Appended {
                base_offset,
                last_offset,
                duplicate: true,
            });
        }
        // Its stream may have been deleted by a command before.
        let Some(log) = self.log_mut(partition) else {
            return Ok(Expected::NotApplied);
        };
        let volatile = class == Class::Memory;
        let base_offset = log.next_offset(volatile, placed)?;
        if producer::is_checked(batch, rule) {
            // What is logged between batches that are only in memory is not judged, but those after it follow it.
            let volatile = volatile || !log.checks(volatile, batch, rule);
            let producers = log.producers(volatile);
            let known = producers.remove(&batch.producer_id());
            let now = producer::remember(known, batch, rule, base_offset);
            producers.insert(batch.producer_id(), now);
        }
        let last_offset = log.put(batch, base_offset, class, partition);
        Ok(Expected::Appended {
            base_offset,
            last_offset,
            duplicate: false,
        })
    }

    /// Returns where the control batch is.
    fn end_transaction(
        &mut self,
        partition: PartitionId,
        marker: &Batch,
        placed: Option<i64>,
    ) -> Result<i64, String> {
        let Some(log) = self.log_mut(partition) else {
            return Ok(-1);
        };
        let base_offset = log.next_offset(false, placed)?;
        let id = marker.producer_id();
        let known = log.producers.remove(&id);
        let (now, open) = producer::end(known, marker.producer_epoch(), coordinator(marker));
        log.producers.insert(id, now);
        let aborts = matches!(
            ControlRecord::from_batch(marker),
            Some(ControlRecord::Abort { .. })
        );
        if let Some(first_offset) = open.filter(|_| aborts) {
            log.aborted.push(AbortedTransaction {
                producer_id: id,
                first_offset,
                last_offset: base_offset,
            });
        }
        log.put(marker, base_offset, Class::Synced, partition);
        Ok(base_offset)
    }

    fn other(&mut self, command: &Command, created: Option<StreamId>) -> Result<Expected, String> {
        let done = |done| {
            if done {
                Expected::Done
            } else {
                Expected::NoEffect
            }
        };
        Ok(match command {
            Command::TablePut { table, key, value } => {
                let table = self.tables.entry(table.to_string()).or_default();
                table.insert(key.clone(), value.clone());
                Expected::Done
            }
            Command::TableDelete { table, key } => {
                let table = self.tables.get_mut(&**table);
                done(table.is_some_and(|table| table.remove(key).is_some()))
            }
            Command::TableDeleteIf { table, key, value } => {
                let table = self.tables.get_mut(&**table);
                let table = table.filter(|table| table.get(key) == Some(value));
                done(table.is_some_and(|table| table.remove(key).is_some()))
            }
            Command::CursorCommit { group, positions } => {
                let group = self.cursors.entry(group.clone()).or_default();
                for position in positions {
                    let place = (position.offset, position.metadata.clone());
                    group.insert(position.partition, place);
                }
                Expected::Done
            }
            Command::CursorDelete { group, partitions } => {
                let Some(positions) = self.cursors.get_mut(group) else {
                    return Ok(Expected::NoEffect);
                };
                match partitions {
                    None => positions.clear(),
                    Some(gone) => positions.retain(|p, _| !gone.contains(p)),
                }
                if positions.is_empty() {
                    self.cursors.remove(group);
                }
                Expected::Done
            }
            Command::CreateStream {
                address,
                partitions,
                config,
                ..
            } => {
                if self.named(address).is_some() {
                    return Ok(Expected::NoEffect);
                }
                let Some(id) = created else {
                    return Ok(Expected::Created);
                };
                if !self.used.insert(id) {
                    return Err(format!("stream number {id} was given out before"));
                }
                let mut stream = Stream {
                    address: address.clone(),
                    config: BTreeMap::new(),
                    logs: vec![Log::default(); *partitions as usize],
                    takes_dead_letters: address.name.as_str() == DEAD_LETTERS,
                    least_ms: None,
                    least_bytes: None,
                    compacts: false,
                    least_deletions_ms: i64::MAX,
                };
                stream.configure(config);
                self.streams.insert(id, stream);
                Expected::Created
            }
            Command::DeleteStream { stream } => {
                let removed = self.streams.remove(stream).is_some();
                if removed {
                    for positions in self.cursors.values_mut() {
                        positions.retain(|p, _| p.stream != *stream);
                    }
                    self.cursors.retain(|_, positions| !positions.is_empty());
                }
                done(removed)
            }
            Command::AddPartitions { stream, partitions } => {
                let Some(stream) = self.streams.get_mut(stream) else {
                    return Ok(Expected::NoEffect);
                };
                let grows = *partitions as usize > stream.logs.len();
                if grows {
                    let mut log = Log::default();
                    log.set_volatile(stream.class() == Class::Memory);
                    stream.logs.resize(*partitions as usize, log);
                }
                done(grows)
            }
            Command::AlterStream { stream, config } => match self.streams.get_mut(stream) {
                Some(stream) => {
                    stream.configure(config);
                    Expected::Done
                }
                None => Expected::NoEffect,
            },
            Command::Trim {
                partition,
                log_start,
            } => match self.log_mut(*partition) {
                Some(log) => {
                    log.log_start = log.log_start.max((*log_start).min(log.end));
                    Expected::Done
                }
                None => Expected::NoEffect,
            },
            Command::AdvanceSequence {
                partition,
                producer_id,
                epoch,
                next,
            } => {
                let Some(log) = self.log_mut(*partition) else {
                    return Ok(Expected::NoEffect);
                };
                // In memory only those move that are there: after a restart nobody would know of the others.
                let made = !log.is_volatile;
                let producers = log.producers(!made);
                let known = producers.get(producer_id);
                let moves = made || known.is_some();
                let now = producer::advance(known, *epoch, *next).filter(|_| moves);
                let moved = now.is_some();
                producers.extend(now.map(|now| (*producer_id, now)));
                done(moved)
            }
            Command::AllocateProducerIds { count } => {
                let first = self.producer_ids + 1;
                self.producer_ids += i64::from(*count);
                Expected::Ids(first)
            }
            Command::ExpireProducers { idle_since } => {
                // The simulator expires all or nothing.
                let all = *idle_since == i64::MAX;
                let logs = self.streams.values_mut().flat_map(|s| &mut s.logs);
                for log in logs.filter(|_| all) {
                    log.producers
                        .retain(|_, producer| producer.strict || producer.open.is_some());
                    log.volatile_producers
                        .retain(|_, producer| producer.strict || producer.open.is_some());
                }
                Expected::Done
            }
            other => return Err(format!("the model does not know {other:?}")),
        })
    }
}

/// The epoch in a control batch.
fn coordinator(marker: &Batch) -> i32 {
    match ControlRecord::from_batch(marker) {
        Some(
            ControlRecord::Commit { coordinator_epoch }
            | ControlRecord::Abort { coordinator_epoch },
        ) => coordinator_epoch,
        None => -1,
    }
}
