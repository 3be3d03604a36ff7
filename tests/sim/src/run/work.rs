//! What is done to the kernel, at random: many things at a time.

use std::collections::BTreeMap;

use bytes::Bytes;
use kernel::ports::Clock;
use kernel::{
    Command, CursorName, CursorPosition, DURABILITY, Entry, PartitionId, ReadError, SequenceRule,
    StreamId,
};
use rand::RngExt;
use record::{BatchBuilder, ControlRecord};

use super::clients::{Client, filled};
use super::life::{Life, Stop};
use super::plan::{Kind, Work, pick};
use super::{Sim, class_work, cold_work, disaster, queue_work};
use crate::batches::address;
use crate::model::view::is_within;
use crate::model::{Model, Stream};

/// Streams there may be at a time.
const STREAMS: usize = 5;
/// Producers with sequences at a time.
const CLIENTS: usize = 6;

impl Sim {
    /// Begins something.
    pub fn begin(&mut self, life: &mut Life) -> Result<(), Stop> {
        let work = self.plan.work(&mut self.rng);
        self.trace.note(format_args!("begin {work:?}"));
        match work {
            Work::Write => {
                let commands = self.commands();
                self.write(life, commands);
                Ok(())
            }
            Work::Read => self.read(life),
            Work::Wait => self.wait(life),
            Work::Maintain => {
                if life.tasks.count("maintain") == 0 {
                    let kernel = life.kernel.clone();
                    life.tasks
                        .spawn("maintain", async move { kernel.maintain().await });
                }
                Ok(())
            }
            Work::Acquire => queue_work::acquire(self, life),
            Work::Settle => queue_work::settle(self, life),
            Work::Release => queue_work::release(self, life),
            Work::Sources => queue_work::set_sources(self, life),
            Work::Purge => queue_work::purge(self, life),
            Work::Rest => self.rest(life),
            Work::Expire => {
                if let Some(command) = self.expire_transaction(life) {
                    self.write(life, vec![command]);
                }
                Ok(())
            }
            Work::Switch => class_work::switch(self, life),
            Work::Seal | Work::SealAll | Work::Tend | Work::Rewrite => {
                cold_work::begin(self, life, work);
                Ok(())
            }
        }
    }

    /// Hands an entry over, now, and waits for its answer beside everything else.
    pub fn write(&mut self, life: &mut Life, commands: Vec<Command>) {
        let number = self.truth.borrow_mut().submit(commands.clone());
        let kinds: Vec<String> = commands.iter().map(short).collect();
        self.trace
            .note(format_args!("entry {number}: {}", kinds.join(", ")));
        let written = life.kernel.write(Entry { commands });
        let (truth, problems, trace) = (
            self.truth.clone(),
            life.problems.clone(),
            self.trace.clone(),
        );
        life.tasks.spawn("write", async move {
            let answer = written.await;
            match &answer {
                Ok(outcomes) => {
                    trace.note(format_args!("entry {number} is acknowledged"));
                    trace.detail(format_args!("{outcomes:?}"));
                }
                Err(error) => trace.note(format_args!("entry {number}: {error}")),
            }
            if let Err(why) = truth.borrow_mut().answer(number, answer) {
                problems.borrow_mut().push(why);
            }
        });
    }

    /// An entry of some commands.
    fn commands(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        for _ in 0..*pick(&mut self.rng, &[1, 1, 1, 2, 4]) {
            commands.extend(self.command());
        }
        // What cannot be seen from outside, the model has to know by a mark.
        let hidden = commands.iter().any(|command| {
            matches!(
                command,
                Command::AllocateProducerIds { .. }
                    | Command::ExpireProducers { .. }
                    | Command::AdvanceSequence { .. }
            )
        });
        if commands.is_empty() || hidden || self.rng.random_bool(self.plan.marks) {
            let number = self.truth.borrow().next_number();
            commands.push(Command::TablePut {
                table: "marks".into(),
                key: Bytes::from_static(b"last"),
                value: number.to_string().into(),
            });
        }
        commands
    }

    fn command(&mut self) -> Option<Command> {
        let kind = self.plan.kind(&mut self.rng);
        Some(match kind {
            Kind::Append => return self.append(),
            Kind::Transact => return self.transact(),
            Kind::Forgive => Command::ExpireProducers {
                idle_since: *pick(&mut self.rng, &[0, i64::MAX]),
            },
            Kind::Advance => {
                if self.clients.is_empty() {
                    return self.append();
                }
                let at = self.rng.random_range(0..self.clients.len());
                self.clients[at].skip(&mut self.rng)
            }
            Kind::Ids => Command::AllocateProducerIds {
                count: self.rng.random_range(1..5),
            },
            Kind::Put => {
                self.value += 1;
                Command::TablePut {
                    table: "t".into(),
                    key: self.key(),
                    value: self.value.to_string().into(),
                }
            }
            Kind::Delete => {
                let (table, key) = ("t".into(), self.key());
                // As it was read, which is not as it is where writes are on their way.
                let read = |now: &Model| now.tables.get("t")?.get(&key).cloned();
                match read(&self.truth.borrow().now).filter(|_| self.value % 2 == 1) {
                    Some(value) => Command::TableDeleteIf { table, key, value },
                    None => Command::TableDelete { table, key },
                }
            }
            Kind::Commit => Command::CursorCommit {
                group: self.group(),
                positions: vec![CursorPosition {
                    partition: self.partition()?,
                    offset: self.rng.random_range(0..100),
                    metadata: self.rng.random_range(0..1000).to_string().into(),
                    committed_at: 0,
                }],
            },
            Kind::Forget => Command::CursorDelete {
                group: self.group(),
                partitions: None,
            },
            Kind::Trim => {
                let partition = self.partition()?;
                let end = self.truth.borrow().now.log(partition)?.end;
                Command::Trim {
                    partition,
                    log_start: self.rng.random_range(0..=end),
                }
            }
            Kind::Create => {
                if self.truth.borrow().now.streams.len() >= STREAMS {
                    return self.append();
                }
                let name = format!("s{}", self.rng.random_range(0..STREAMS));
                Command::CreateStream {
                    address: address(&name),
                    uuid: Default::default(),
                    partitions: self.rng.random_range(1..4),
                    config: {
                        let compacts = self.rng.random_bool(self.plan.compacted_streams);
                        self.config(compacts)
                    },
                }
            }
            Kind::Drop => Command::DeleteStream {
                stream: self.stream()?,
            },
            Kind::Alter => {
                let stream = self.stream()?;
                let (compacts, old) = {
                    let truth = self.truth.borrow();
                    let stream = &truth.now.streams[&stream];
                    (stream.compacts, stream.config.clone())
                };
                let often = if compacts { 0.9 } else { 0.1 };
                let compacts = self.plan.compacted_streams > 0.0 && self.rng.random_bool(often);
                let mut config = self.config(compacts);
                class_work::keep(&old, &mut config);
                Command::AlterStream { stream, config }
            }
            Kind::Grow => Command::AddPartitions {
                stream: self.stream()?,
                partitions: self.rng.random_range(1..6),
            },
        })
    }

    fn append(&mut self) -> Option<Command> {
        let partition = self.partition()?;
        if self.rng.random_bool(0.4) {
            let batch = filled(
                BatchBuilder::new(),
                &self.plan,
                &mut self.rng,
                &mut self.value,
            );
            let rule = SequenceRule::None;
            return Some(Command::Append {
                partition,
                batch,
                rule,
            });
        }
        if self.clients.len() < CLIENTS {
            self.next_client += 1;
            let client = Client::new(self.next_client, partition, &mut self.rng);
            self.clients.push(client);
        }
        let at = self.rng.random_range(0..self.clients.len());
        let truth = self.truth.borrow();
        if truth.now.log(self.clients[at].partition).is_none() || self.rng.random_bool(0.01) {
            // Its stream is gone: one more batch for that, and somebody else takes its place.
            let mut client = self.clients.swap_remove(at);
            let (batch, rule) = client.send(&self.plan, &mut self.rng, &mut self.value);
            return Some(Command::Append {
                partition: client.partition,
                batch,
                rule,
            });
        }
        let client = &mut self.clients[at];
        if truth.waiting() == 0 {
            client.look_up(&truth.now);
        }
        let (batch, rule) = client.send(&self.plan, &mut self.rng, &mut self.value);
        Some(Command::Append {
            partition: client.partition,
            batch,
            rule,
        })
    }

    fn key(&mut self) -> Bytes {
        self.rng.random_range(0..6).to_string().into()
    }

    fn group(&mut self) -> CursorName {
        CursorName::from(*pick(&mut self.rng, &["g", "h"]))
    }

    pub fn stream(&mut self) -> Option<StreamId> {
        let truth = self.truth.borrow();
        let streams = truth.now.streams.iter();
        let ours = |(_, stream): &(&StreamId, &Stream)| !stream.takes_dead_letters;
        let streams: Vec<StreamId> = streams.filter(ours).map(|(id, _)| *id).collect();
        (!streams.is_empty()).then(|| *pick(&mut self.rng, &streams))
    }

    pub fn partition(&mut self) -> Option<PartitionId> {
        let truth = self.truth.borrow();
        let ours = |p: &PartitionId| !truth.now.streams[&p.stream].takes_dead_letters;
        let partitions: Vec<PartitionId> = truth.now.partitions().filter(ours).collect();
        (!partitions.is_empty()).then(|| *pick(&mut self.rng, &partitions))
    }

    fn config(&mut self, compacts: bool) -> BTreeMap<String, String> {
        let mut config = BTreeMap::new();
        if compacts {
            config.extend(cold_work::compaction(&mut self.rng));
        }
        if self.rng.random_bool(0.2) {
            let bytes = self.rng.random_range(200..20_000).to_string();
            config.insert("retention.bytes".to_owned(), bytes);
        }
        if self.rng.random_bool(0.1) {
            let ms = self.rng.random_range(1000..10_000_000).to_string();
            config.insert("retention.ms".to_owned(), ms);
        }
        if let Some(class) = class_work::draw(&self.plan, &mut self.rng) {
            config.insert(DURABILITY.to_owned(), class.to_owned());
        }
        config
    }

    fn read(&mut self, life: &mut Life) -> Result<(), Stop> {
        let Some(partition) = self.partition() else {
            return Ok(());
        };
        let Some(marks) = life.kernel.watermarks(partition) else {
            return Ok(());
        };
        let offset = self.rng.random_range(marks.log_start..=marks.end);
        let max_bytes = self.rng.random_range(0..10_000);
        let kernel = life.kernel.clone();
        let (truth, problems) = (self.truth.clone(), life.problems.clone());
        let (disk, faulty) = (self.disk.clone(), self.faulty);
        let damage = self.damage.clone();
        life.tasks.spawn("read", async move {
            let wrong = match kernel.read(partition, offset, max_bytes).await {
                Ok(read) => {
                    let mut wrong = None;
                    let mut last = -1;
                    for batch in &read.batches {
                        if batch.last_offset() < offset || batch.base_offset() <= last {
                            wrong =
                                Some(format!("a read of {partition} at {offset} is in disorder"));
                        }
                        last = batch.last_offset();
                        let seen = truth.borrow_mut().observe(partition, batch);
                        wrong = wrong.or(seen.err());
                    }
                    wrong
                }
                // Trimmed or deleted meanwhile.
                Err(ReadError::OutOfRange { log_start, .. }) if log_start > offset => None,
                Err(ReadError::UnknownPartition(_)) if kernel.watermarks(partition).is_none() => {
                    None
                }
                Err(ReadError::Closed) => None,
                // What is named is there, whatever becomes of the requests.
                Err(ReadError::Unavailable { reason, .. })
                    if !reason.contains("is not in the cold store") =>
                {
                    None
                }
                Err(ReadError::Corrupt { first, last, .. })
                    if is_within(&damage.borrow(), partition, first, last) =>
                {
                    None
                }
                Err(ReadError::Io { .. } | ReadError::Corrupt { .. })
                    if faulty || disk.is_off() =>
                {
                    None
                }
                Err(error) => Some(format!("a read of {partition} at {offset}: {error}")),
            };
            problems.borrow_mut().extend(wrong);
        });
        Ok(())
    }

    fn wait(&mut self, life: &mut Life) -> Result<(), Stop> {
        let Some(partition) = self.partition() else {
            return Ok(());
        };
        let Some(marks) = life.kernel.watermarks(partition) else {
            return Ok(());
        };
        let offset = marks.end + self.rng.random_range(0..3);
        let kernel = life.kernel.clone();
        let task = life.tasks.spawn("wait", async move {
            kernel.wait_past(&[(partition, offset)]).await;
        });
        life.waits.push((task, partition, offset));
        Ok(())
    }

    /// Lets everything come to rest, and compares.
    pub fn rest(&mut self, life: &mut Life) -> Result<(), Stop> {
        life.settle_down(self)?;
        if self.faulty || life.kernel.stats().failed.is_some() {
            return Ok(());
        }
        self.cold.calm(true);
        let now_ms = self.clock.monotonic_us() / 1000;
        let kernel = life.kernel.clone();
        life.complete(self, "maintain", async move { kernel.maintain().await })?;
        let view = self.look(life)?;
        let damaged = !self.damage.borrow().is_empty();
        self.truth.borrow_mut().at_rest(&view, damaged)?;
        queue_work::at_rest(self, &view, now_ms, damaged)?;
        let mut done = cold_work::at_rest(self, life);
        if matches!(done, Ok(true)) && self.rng.random_bool(0.3) {
            done = disaster::look_at_fork(self, life).map(|()| true);
        }
        self.cold.calm(false);
        done.map(drop)
    }
}

/// A command in a few words, without what differs between runs.
fn short(command: &Command) -> String {
    match command {
        Command::Append {
            partition,
            batch,
            rule,
        } => format!(
            "append {partition} {} records {} bytes, producer {} {} {} {rule:?}",
            batch.record_count(),
            batch.len(),
            batch.producer_id(),
            batch.producer_epoch(),
            batch.base_sequence()
        ),
        Command::CreateStream {
            address,
            partitions,
            config,
            ..
        } => format!("create {address} {partitions} {config:?}"),
        Command::EndTransaction { partitions, marker } => format!(
            "end of {} {} in {partitions:?}, {:?}",
            marker.producer_id(),
            marker.producer_epoch(),
            ControlRecord::from_batch(marker)
        ),
        other => {
            let text = format!("{other:?}");
            text.chars().take(160).collect()
        }
    }
}
