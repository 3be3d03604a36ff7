//! What the kernel should be, in maps and lists: it takes the entries in their order and says what becomes of each.

pub mod compaction;
pub mod producer;
pub mod queues;
pub mod view;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kernel::{
    AppendError, CLEANUP_POLICY, Command, CursorName, DELETE_RETENTION_MS, Outcome, PartitionId,
    RETENTION_BYTES, RETENTION_MS, SequenceRule, StreamId,
};
use record::{Batch, StreamAddress};

use producer::{Judgement, Producer};

/// How much of an append survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Nothing of it after a restart.
    Memory,
    /// The death of the process.
    PageCache,
    /// The power.
    Synced,
}

/// A batch in a log.
#[derive(Clone)]
pub struct Kept {
    /// With its offset.
    pub batch: Batch,
    pub class: Class,
}

/// A partition.
#[derive(Clone, Default)]
pub struct Log {
    /// At least this much is trimmed.
    pub log_start: i64,
    pub end: i64,
    pub batches: Vec<Kept>,
    pub producers: BTreeMap<i64, Producer>,
}

impl Log {
    /// The batch with that offset.
    pub fn find(&self, offset: i64) -> Option<&Kept> {
        let at = self
            .batches
            .partition_point(|kept| kept.batch.last_offset() < offset);
        self.batches
            .get(at)
            .filter(|kept| kept.batch.base_offset() <= offset)
    }
}

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
}

impl Stream {
    pub fn class(&self) -> Class {
        match self.config.get("durability").map(String::as_str) {
            Some("memory") => Class::Memory,
            Some("quorum") => Class::PageCache,
            _ => Class::Synced,
        }
    }

    fn configure(&mut self, config: &BTreeMap<String, String>) {
        self.config.clone_from(config);
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
    pub tables: BTreeMap<String, BTreeMap<Bytes, Bytes>>,
    pub cursors: BTreeMap<CursorName, BTreeMap<PartitionId, (i64, Bytes)>>,
    /// Numbers that streams have had.
    pub used: BTreeSet<StreamId>,
}

/// What should become of a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    Appended {
        base_offset: i64,
        last_offset: i64,
        duplicate: bool,
    },
    Unknown,
    OutOfOrder,
    Fenced,
    NotApplied,
    Done,
    NoEffect,
    /// With a number that no stream has had.
    Created,
}

impl Expected {
    fn is(&self, found: &Outcome) -> bool {
        match (self, found) {
            (
                Expected::Appended {
                    base_offset,
                    last_offset,
                    duplicate,
                },
                Outcome::Appended(found),
            ) => {
                (found.base_offset, found.last_offset, found.duplicate)
                    == (*base_offset, *last_offset, *duplicate)
            }
            (Expected::Unknown, Outcome::Refused(AppendError::UnknownPartition(_)))
            | (Expected::OutOfOrder, Outcome::Refused(AppendError::OutOfOrderSequence { .. }))
            | (Expected::Fenced, Outcome::Refused(AppendError::FencedEpoch { .. }))
            | (Expected::NotApplied, Outcome::NotApplied)
            | (Expected::Done, Outcome::Done)
            | (Expected::NoEffect, Outcome::NoEffect)
            | (Expected::Created, Outcome::StreamCreated(_)) => true,
            _ => false,
        }
    }
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

    /// The weakest promise that covers an entry as a whole: what is not an append is always synced.
    pub fn class_of(&self, commands: &[Command]) -> Class {
        let classes = commands.iter().map(|command| match command {
            Command::Append { partition, .. } => self
                .streams
                .get(&partition.stream)
                .map_or(Class::Memory, Stream::class),
            _ => Class::Synced,
        });
        classes.max().unwrap_or(Class::Memory)
    }

    /// Applies an entry that was acknowledged with these outcomes.
    pub fn apply(
        &mut self,
        number: u64,
        commands: &[Command],
        found: &[Outcome],
    ) -> Result<(), String> {
        let expected = self.expect(commands, |command| {
            // A new stream has the number that the kernel says.
            match found.get(command) {
                Some(Outcome::StreamCreated(id)) => Some(*id),
                _ => None,
            }
        })?;
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

    /// Applies an entry; `created` says which number the stream gets that a command creates.
    pub fn expect(
        &mut self,
        commands: &[Command],
        created: impl Fn(usize) -> Option<StreamId>,
    ) -> Result<Vec<Expected>, String> {
        let judged = match self.judge(commands) {
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
                } => self.append(*partition, batch, *rule, judged.next()),
                _ if repeated => Expected::NoEffect,
                other => self.other(other, created(position))?,
            });
        }
        Ok(expected)
    }

    fn judge(&self, commands: &[Command]) -> Result<Vec<Judgement>, (usize, Expected)> {
        let mut staged: BTreeMap<(PartitionId, i64), Producer> = BTreeMap::new();
        let mut judged = Vec::new();
        for (position, command) in commands.iter().enumerate() {
            let Command::Append {
                partition,
                batch,
                rule,
            } = command
            else {
                continue;
            };
            let log = self.log(*partition).ok_or((position, Expected::Unknown))?;
            if *rule == SequenceRule::None || batch.producer_id() < 0 {
                judged.push(Judgement::Append);
                continue;
            }
            let key = (*partition, batch.producer_id());
            let known = staged
                .get(&key)
                .or_else(|| log.producers.get(&batch.producer_id()));
            let judgement = producer::judge(known, batch, *rule);
            match judgement {
                Judgement::OutOfOrder => return Err((position, Expected::OutOfOrder)),
                Judgement::Fenced => return Err((position, Expected::Fenced)),
                Judgement::Append => {
                    let producer = producer::remember(known.cloned(), batch, -1);
                    staged.insert(key, producer);
                }
                Judgement::Duplicate(..) => {}
            }
            judged.push(judgement);
        }
        Ok(judged)
    }

    fn append(
        &mut self,
        partition: PartitionId,
        batch: &Batch,
        rule: SequenceRule,
        judged: Option<Judgement>,
    ) -> Expected {
        if let Some(Judgement::Duplicate(base_offset, last_offset)) = judged {
            return Expected::Appended {
                base_offset,
                last_offset,
                duplicate: true,
            };
        }
        // Its stream may have been deleted by a command before.
        let Some(class) = self.streams.get(&partition.stream).map(Stream::class) else {
            return Expected::NotApplied;
        };
        let Some(log) = self.log_mut(partition) else {
            return Expected::NotApplied;
        };
        let base_offset = log.end;
        if rule != SequenceRule::None && batch.producer_id() >= 0 {
            let known = log.producers.remove(&batch.producer_id());
            log.producers.insert(
                batch.producer_id(),
                producer::remember(known, batch, base_offset),
            );
        }
        let batch = batch.patched(base_offset, partition.leader_epoch());
        let last_offset = batch.last_offset();
        log.end = last_offset + 1;
        log.batches.push(Kept { batch, class });
        Expected::Appended {
            base_offset,
            last_offset,
            duplicate: false,
        }
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
                    stream.logs.resize(*partitions as usize, Log::default());
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
            other => return Err(format!("the model does not know {other:?}")),
        })
    }
}
