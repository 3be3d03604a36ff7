//! What commands change that append nothing: tables, cursors, queues, streams.

use std::sync::Arc;

use bytes::Bytes;

use super::apply::FrameAt;
use super::partition::Partition;
use super::{Positions, Shared, SourceState, State, settled};
use crate::entry::{Command, Outcome};
use crate::stream::{PartitionId, Stream, StreamId};

impl State {
    pub(super) fn apply_other(&self, at: FrameAt, command: Command) -> Outcome {
        match command {
            Command::Append { .. } | Command::EndTransaction { .. } => Outcome::NotApplied,
            Command::TablePut { table, key, value } => {
                // What is kept for long must not hold on to the frame or the network buffer it came in.
                let (key, value) = (own(&key), own(&value));
                change(&mut self.tables.write(), table, |t| {
                    t.insert(key, value);
                });
                Outcome::Done
            }
            Command::TableDelete { table, key } => self.table_delete(&table, &key, None),
            Command::TableDeleteIf { table, key, value } => {
                self.table_delete(&table, &key, Some(&value))
            }
            Command::CursorCommit { group, positions } => {
                let mut cursors = self.cursors.write();
                change(&mut cursors, group, |group| {
                    for mut position in positions {
                        position.committed_at = at.stamp;
                        position.metadata = own(&position.metadata);
                        group.insert_mut(position.partition, position);
                    }
                });
                Outcome::Done
            }
            Command::CursorDelete { group, partitions } => {
                let mut cursors = self.cursors.write();
                let Some(positions) = cursors.get_mut(&group) else {
                    return Outcome::NoEffect;
                };
                match partitions {
                    None => *positions = Positions::new_sync(),
                    Some(partitions) => partitions.iter().for_each(|p| {
                        positions.remove_mut(p);
                    }),
                }
                if positions.is_empty() {
                    cursors.remove_mut(&group);
                }
                Outcome::Done
            }
            Command::CreateStream {
                address,
                uuid,
                partitions,
                config,
            } => {
                let mut directory = self.directory.write();
                if directory.find(&address).is_some() {
                    return Outcome::NoEffect;
                }
                let id = StreamId(directory.next_stream);
                directory.next_stream += 1;
                State::place_stream(
                    &mut directory,
                    Stream {
                        id,
                        uuid,
                        address,
                        partitions,
                        config,
                        created_at: at.stamp,
                    },
                );
                drop(directory);
                self.streams_moved();
                Outcome::StreamCreated(id)
            }
            Command::DeleteStream { stream } => self.delete_stream(stream),
            Command::AddPartitions { stream, partitions } => self.alter(stream, |s| {
                let grows = partitions > s.partitions;
                s.partitions = s.partitions.max(partitions);
                grows
            }),
            Command::AlterStream { stream, config } => self.alter(stream, |s| {
                s.config = config;
                true
            }),
            Command::Trim {
                partition,
                log_start,
            } => match self.partition(partition) {
                Some(partition) => {
                    self.trim(&partition, log_start);
                    Outcome::Done
                }
                None => Outcome::NoEffect,
            },
            Command::Reserve { partition, end } => match self.partition(partition) {
                Some(partition) => {
                    let mut log = partition.log.lock();
                    log.reserved = log.reserved.max(end);
                    Outcome::Done
                }
                None => Outcome::NoEffect,
            },
            Command::AdvanceSequence {
                partition,
                producer_id,
                epoch,
                next,
            } => match self.partition(partition) {
                Some(partition) => {
                    let mut log = partition.log.lock();
                    log.advance_sequence(producer_id, epoch, next, at.stamp)
                }
                None => Outcome::NoEffect,
            },
            Command::AllocateProducerIds { count } => {
                let mut directory = self.directory.write();
                let first = directory.next_producer_id;
                directory.next_producer_id = first.saturating_add(i64::from(count));
                Outcome::ProducerIds(first)
            }
            Command::ExpireProducers { idle_since } => {
                for partition in self.directory.read().partitions.values() {
                    let mut log = partition.log.lock();
                    log.producers.retain(|_, p| !p.is_idle_since(idle_since));
                    log.volatile_producers
                        .retain(|_, p| !p.is_idle_since(idle_since));
                }
                Outcome::Done
            }
            Command::QueueSources { queue, sources } => {
                let mut queues = self.queues.write();
                let before = queues.get(&queue).cloned().unwrap_or_default();
                let now = sources.into_iter().map(|(partition, from)| {
                    let new = || SourceState {
                        low_water: from,
                        delivered_to: from,
                        ..SourceState::default()
                    };
                    let known = before.get(&partition).cloned();
                    (partition, known.unwrap_or_else(new))
                });
                let now = now.collect();
                queues.insert_mut(queue, now);
                Outcome::Done
            }
            Command::QueueSettle { queue, settled } => match self.queues.write().get_mut(&queue) {
                Some(sources) => {
                    for settled in settled {
                        if let Some(source) = sources.get_mut(&settled.partition) {
                            settled::settle(source, settled);
                        }
                    }
                    Outcome::Done
                }
                None => Outcome::NoEffect,
            },
            Command::QueueDelete { queue } => {
                if self.queues.write().remove_mut(&queue) {
                    Outcome::Done
                } else {
                    Outcome::NoEffect
                }
            }
            Command::ColdClaim { log, epoch, nonce } => self.cold_claim(log, epoch, nonce),
            Command::SegmentSealed { segment } => self.segment_sealed(&segment),
            Command::RangesReplaced { removed, added } => self.ranges_replaced(&removed, &added),
        }
    }

    /// With `only`: if this is the value.
    fn table_delete(&self, table: &Arc<str>, key: &Bytes, only: Option<&Bytes>) -> Outcome {
        let mut tables = self.tables.write();
        let Some(values) = tables.get_mut(table) else {
            return Outcome::NoEffect;
        };
        if only.is_some_and(|only| values.rows().get(key) != Some(only)) || !values.remove(key) {
            return Outcome::NoEffect;
        }
        if values.rows().is_empty() {
            tables.remove_mut(table);
        }
        Outcome::Done
    }

    fn alter(&self, id: StreamId, change: impl FnOnce(&mut Stream) -> bool) -> Outcome {
        let mut directory = self.directory.write();
        let Some(stream) = directory.by_id.get(&id) else {
            return Outcome::NoEffect;
        };
        let mut stream = Stream::clone(stream);
        if !change(&mut stream) {
            return Outcome::NoEffect;
        }
        State::place_stream(&mut directory, stream);
        drop(directory);
        self.streams_moved();
        Outcome::Done
    }

    pub(crate) fn delete_stream(&self, id: StreamId) -> Outcome {
        let mut directory = self.directory.write();
        let Some(stream) = directory.by_id.remove(&id) else {
            return Outcome::NoEffect;
        };
        if let Some(names) = directory.by_name.get_mut(&stream.address.namespace) {
            names.remove(&stream.address.name);
        }
        directory.by_name.retain(|_, names| !names.is_empty());
        directory.relaxed.remove(&id);
        let partitions: Vec<_> = stream
            .partition_ids()
            .filter_map(|p| directory.partitions.remove(&p))
            .collect();
        drop(directory);
        let mut cursors = self.cursors.write();
        for group in drop_stream(&mut cursors, id) {
            cursors.remove_mut(&group);
        }
        drop(cursors);
        drop_stream(&mut self.queues.write(), id);
        for partition in partitions {
            let end = partition.log.lock().end;
            self.trim(&partition, end);
            partition.log.lock().gone = true;
            partition.wake(i64::MAX, i64::MAX);
        }
        self.streams_moved();
        Outcome::Done
    }

    fn trim(&self, partition: &Partition, log_start: i64) {
        let mut log = partition.log.lock();
        let gone = log.trim(log_start);
        drop(log);
        let mut wal_use = self.wal_use.lock();
        gone.batches
            .iter()
            .for_each(|batch| wal_use.subtract(batch));
        drop(wal_use);
        if !gone.cold.is_empty() {
            let mut cold = self.cold.lock();
            gone.cold.iter().for_each(|range| cold.lose(range));
        }
        self.tail.lock().removed(gone.from_tail, gone.tail_bytes);
    }

    fn streams_moved(&self) {
        self.streams_changed
            .send_modify(|generation| *generation += 1);
    }
}

/// Changes the value of a key, which is made if it is missing.
fn change<K: Ord + Clone, V: Clone + Default>(
    map: &mut Shared<K, V>,
    key: K,
    change: impl FnOnce(&mut V),
) {
    if let Some(value) = map.get_mut(&key) {
        return change(value);
    }
    let mut value = V::default();
    change(&mut value);
    map.insert_mut(key, value);
}

/// Takes the partitions of a stream out of each value; returns the keys whose values are empty now.
fn drop_stream<K: Ord + Clone, V: Clone>(
    map: &mut Shared<K, Shared<PartitionId, V>>,
    stream: StreamId,
) -> Vec<K> {
    let of_stream = stream.partition(0)..=stream.partition(u32::MAX);
    let named: Vec<(K, Vec<PartitionId>)> = map
        .iter()
        .map(|(key, values)| (key, values.range(of_stream.clone()).map(|(p, _)| *p)))
        .map(|(key, partitions)| (key.clone(), partitions.collect::<Vec<_>>()))
        .filter(|(_, partitions)| !partitions.is_empty())
        .collect();
    let mut empty = Vec::new();
    for (key, partitions) in named {
        if let Some(values) = map.get_mut(&key) {
            partitions.iter().for_each(|partition| {
                values.remove_mut(partition);
            });
            if values.is_empty() {
                empty.push(key);
            }
        }
    }
    empty
}

fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
