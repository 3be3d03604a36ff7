//! What was promised: entries in the order in which they were handed over, the model of those acknowledged, and which of them a
//! restart may take.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kernel::{CLEANUP_POLICY, Command, DURABILITY, Outcome, PartitionId, StreamId, WriteError};
use record::{Batch, StreamAddress};

use crate::model::expected::Found;
use crate::model::view::{Allowances, View};
use crate::model::{Class, Cursors, Kept, Model, Tables, compaction};

/// How an entry ended.
pub type Answer = Result<Vec<Outcome>, WriteError>;

/// An entry that was handed over.
struct Submitted {
    number: u64,
    commands: Vec<Command>,
    /// The weakest promise that may cover it: that of its streams, as they are or as somebody is changing them.
    class: Class,
    answer: Option<Answer>,
}

/// An acknowledged entry that a power cut may take.
struct Soft {
    number: u64,
    commands: Vec<Command>,
    outcomes: Vec<Outcome>,
    class: Class,
}

/// What a checkpoint may have found, besides records.
struct Past {
    /// Newest entry.
    number: u64,
    tables: Tables,
    cursors: Cursors,
}

/// See the module.
#[derive(Default)]
pub struct Truth {
    next: u64,
    submitted: VecDeque<Submitted>,
    /// Handed over, and not known whether it is there.
    unknown: Vec<Submitted>,
    /// What survives everything.
    hard: Model,
    soft: Vec<Soft>,
    /// What was acknowledged.
    pub now: Model,
    /// Batches that a reader got. What was read once does not change, and does not vanish.
    observed: BTreeMap<(PartitionId, i64), Batch>,
    /// Streams that have promised less than to sync, some time.
    weak: BTreeSet<StreamId>,
    weak_names: BTreeSet<StreamAddress>,
    /// Streams that may be compacted: somebody asked for it.
    compacting: BTreeSet<StreamId>,
    /// What tables and cursors have been, whenever they changed.
    past: Vec<Past>,
}

impl Truth {
    /// An entry is handed over; returns its number.
    pub fn submit(&mut self, commands: Vec<Command>) -> u64 {
        self.next += 1;
        for command in &commands {
            if let Command::AlterStream { stream, config } = command
                && config.contains_key(CLEANUP_POLICY)
            {
                self.compacting.insert(*stream);
            }
            match command {
                Command::AlterStream { stream, config } if config.contains_key(DURABILITY) => {
                    self.weak.insert(*stream);
                }
                Command::CreateStream {
                    address, config, ..
                } if config.contains_key(DURABILITY) => {
                    self.weak_names.insert(address.clone());
                }
                _ => {}
            }
        }
        let class = self.now.class_of(&commands);
        self.submitted.push_back(Submitted {
            number: self.next,
            commands,
            class,
            answer: None,
        });
        self.next
    }

    /// Number of the entry that is handed over next.
    pub fn next_number(&self) -> u64 {
        self.next + 1
    }

    /// An entry was answered.
    pub fn answer(&mut self, number: u64, answer: Answer) -> Result<(), String> {
        let mut waiting = self.submitted.iter_mut();
        if let Some(entry) = waiting.find(|entry| entry.number == number) {
            entry.answer = Some(answer);
        }
        while self
            .submitted
            .front()
            .is_some_and(|entry| entry.answer.is_some())
        {
            if let Some(entry) = self.submitted.pop_front() {
                self.take(entry)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, entry: Submitted) -> Result<(), String> {
        let number = entry.number;
        match entry.answer {
            Some(Ok(outcomes)) => {
                if let Some(before) = self.unknown.first() {
                    return Err(format!(
                        "entry {number} was acknowledged after entry {} had failed",
                        before.number
                    ));
                }
                let class = self.now.class_of(&entry.commands);
                // A change to or from `memory` is made when nothing else is on its way, but for the end of a stream.
                let class = match (class, entry.class) {
                    (Class::Memory, _) | (_, Class::Memory) => class,
                    (now, then) => now.min(then),
                };
                let then = (class != entry.class).then(|| self.now.clone());
                // A stream that ends beside it leaves the entry the class that it had, or gives it another: what was answered says which.
                let class = match self.now.apply(number, class, &entry.commands, &outcomes) {
                    Ok(()) => class,
                    Err(why) => {
                        self.now = then.ok_or(why)?;
                        self.now
                            .apply(number, entry.class, &entry.commands, &outcomes)?;
                        entry.class
                    }
                };
                note(&mut self.past, number, &self.now);
                let soft = Soft {
                    number,
                    commands: entry.commands,
                    outcomes,
                    class,
                };
                self.soft.push(soft);
                if class == Class::Synced {
                    for soft in self.soft.drain(..) {
                        let Soft {
                            number,
                            class,
                            commands,
                            outcomes,
                        } = soft;
                        self.hard.apply(number, class, &commands, &outcomes)?;
                    }
                }
            }
            Some(Err(
                WriteError::Full | WriteError::TooLarge { .. } | WriteError::Malformed(_),
            )) => {}
            Some(Err(WriteError::Failed(_) | WriteError::Closed)) | None => {
                self.unknown.push(entry);
            }
        }
        Ok(())
    }

    /// Entries that were not answered yet.
    pub fn waiting(&self) -> usize {
        self.submitted.len()
    }

    /// A reader got this.
    pub fn observe(&mut self, partition: PartitionId, batch: &Batch) -> Result<(), String> {
        let base = batch.base_offset();
        let Some(stream) = self.now.streams.get(&partition.stream) else {
            // It was deleted meanwhile.
            return Ok(());
        };
        if stream.compacts || self.compacting.contains(&partition.stream) {
            let kept = self.now.log(partition).and_then(|log| log.find(base));
            return kept.map_or(Ok(()), |kept| {
                compaction::left_out(batch, &kept.batch).map(|_| ())
            });
        }
        let known = self.observed.insert((partition, base), batch.clone());
        let known = known.or_else(|| {
            let kept = self.now.log(partition)?.find(base)?;
            Some(kept.batch.clone())
        });
        match known {
            Some(known) if known.bytes() != batch.bytes() => Err(format!(
                "a read of {partition} at {base} gave another batch than before"
            )),
            _ => Ok(()),
        }
    }

    /// The process ended. What was not answered may be there or not, and the kernel that was found says which: it must be some prefix of
    /// what was handed over, and everything that cannot be lost.
    pub fn recovered(&mut self, view: &View, power_cut: bool, damaged: bool) -> Result<(), String> {
        while let Some(entry) = self.submitted.pop_front() {
            self.take(entry)?;
        }
        let allow = Allowances {
            restarted: true,
            damaged,
        };
        let mut model = if power_cut {
            self.hard.clone()
        } else {
            self.now.clone()
        };
        let soft = std::mem::take(&mut self.soft);
        let unknown = std::mem::take(&mut self.unknown);
        let lossy: Vec<&Soft> = soft.iter().filter(|_| power_cut).collect();
        let mut mismatches = Vec::new();
        let mut chosen = None;
        for kept in 0..=lossy.len() + unknown.len() {
            if let Some(at) = kept.checked_sub(1) {
                match lossy.get(at) {
                    Some(soft) => {
                        model.apply(soft.number, soft.class, &soft.commands, &soft.outcomes)?;
                        note(&mut self.past, soft.number, &model);
                    }
                    None => {
                        let entry = &unknown[at - lossy.len()];
                        let commands = &entry.commands;
                        let created = commands.iter().map(|command| {
                            created(view, command).filter(|id| !model.used.contains(id))
                        });
                        let found = Found {
                            view,
                            created: created.collect(),
                        };
                        let class = model.class_of(commands);
                        model.expect(class, commands, &found)?;
                        note(&mut self.past, entry.number, &model);
                    }
                }
            }
            let mut candidate = model.clone();
            // Offsets in memory are not given out twice, whatever else is lost.
            for soft in lossy.iter().skip(kept).filter(|s| s.class == Class::Memory) {
                candidate.pass_by(&soft.commands, &soft.outcomes);
            }
            match view.check(&candidate, allow) {
                Ok(()) => {
                    chosen = Some(candidate);
                    break;
                }
                Err(why) => mismatches.push(format!("  with {kept} of them: {why}")),
            }
        }
        if let Some(chosen) = &mut chosen {
            for entry in unknown.iter().filter(|e| e.class == Class::Memory) {
                // Perhaps it was there, and is gone again.
                chosen.forget(&entry.commands);
            }
        }
        let Some(mut chosen) = chosen else {
            return Err(format!(
                "neither what must be there nor what may be ({} acknowledged entries that may be lost, {} unanswered: {:?})\n{}",
                lossy.len(),
                unknown.len(),
                unknown.iter().map(|entry| entry.number).collect::<Vec<_>>(),
                mismatches.join("\n")
            ));
        };
        chosen.learn(view, true);
        self.check_observed(view, &chosen)?;
        self.hard = chosen.clone();
        self.now = chosen;
        Ok(())
    }

    /// The first entry after which tables and cursors were as they are there; 0 = before all.
    pub fn was(&self, view: &View) -> Option<u64> {
        let empty = view.has_state(&Tables::new(), &Cursors::new());
        let mut past = self.past.iter();
        let was = past.find(|past| view.has_state(&past.tables, &past.cursors));
        empty.then_some(0).or(was.map(|past| past.number))
    }

    fn check_observed(&mut self, view: &View, found: &Model) -> Result<(), String> {
        let weak = &self.weak;
        let names = &self.weak_names;
        let mut broken = None;
        self.observed.retain(|(partition, base), batch| {
            let Some((stream, partitions)) = view.streams.get(&partition.stream) else {
                return false;
            };
            let start = partitions
                .get(partition.partition as usize)
                .map_or(i64::MAX, |p| p.watermarks.log_start);
            if batch.last_offset() < start {
                return false;
            }
            let kept = found.log(*partition).and_then(|log| log.find(*base));
            if kept.is_some_and(|kept| kept.batch.bytes() == batch.bytes()) {
                return true;
            }
            if !weak.contains(&partition.stream) && !names.contains(&stream.address) {
                broken = Some(format!(
                    "the batch of {partition} at {base} was read before the restart, and is not there after it"
                ));
            }
            false
        });
        broken.map_or(Ok(()), Err)
    }

    /// Of what was acknowledged only that is missing which is reported as damaged.
    pub fn is_there(&self, view: &View) -> Result<(), String> {
        let allow = Allowances {
            restarted: true,
            damaged: true,
        };
        view.check(&self.now, allow)
    }

    /// It is what it was before.
    pub fn is_all_there(&self, view: &View, damaged: bool) -> Result<(), String> {
        let allow = Allowances {
            restarted: true,
            damaged,
        };
        view.check(&self.now, allow)
    }

    /// The same of a process that went on: there may be more.
    pub fn is_there_at_least(&self, view: &View) -> Result<(), String> {
        for partition in self.now.partitions() {
            let Some(log) = self.now.log(partition) else {
                continue;
            };
            let stream = &self.now.streams[&partition.stream];
            let Some((_, found)) = view.streams.get(&partition.stream) else {
                return Err(format!("stream {} is not there", partition.stream));
            };
            let Some(found) = found.get(partition.partition as usize) else {
                return Err(format!("partition {partition} is not there"));
            };
            let start = found.watermarks.log_start;
            for kept in &log.batches {
                let is_lasting = kept.class != Class::Memory && !stream.compacts;
                let offset = kept.batch.base_offset();
                if is_lasting
                    && kept.batch.last_offset() >= start
                    && !found
                        .batches
                        .iter()
                        .any(|b| b.bytes() == kept.batch.bytes())
                    && !found.is_reported(&kept.batch)
                {
                    return Err(format!(
                        "partition {partition}: the batch at {offset} is missing"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Nothing is in flight: the kernel must be what the model says.
    pub fn at_rest(&mut self, view: &View, damaged: bool) -> Result<(), String> {
        self.is_all_there(view, damaged)?;
        self.now.learn(view, false);
        self.hard.learn(view, false);
        Ok(())
    }
}

fn note(past: &mut Vec<Past>, number: u64, model: &Model) {
    let same = |last: &Past| last.tables == model.tables && last.cursors == model.cursors;
    if !past.last().is_some_and(same) {
        past.push(Past {
            number,
            tables: model.tables.clone(),
            cursors: model.cursors.clone(),
        });
    }
}

/// The number of the stream that a command creates, as the kernel has it.
fn created(view: &View, command: &Command) -> Option<StreamId> {
    let Command::CreateStream { address, .. } = command else {
        return None;
    };
    let mut streams = view.streams.iter();
    let (id, _) = streams.find(|(_, (stream, _))| stream.address == *address)?;
    Some(*id)
}

impl Model {
    /// What was only in memory is lost, and its offsets stay used.
    fn pass_by(&mut self, commands: &[Command], outcomes: &[Outcome]) {
        for (command, outcome) in commands.iter().zip(outcomes) {
            if let (Command::Append { partition, .. }, Outcome::Appended(appended)) =
                (command, outcome)
                && let Some(log) = self.log_mut(*partition)
            {
                log.end = log.end.max(appended.last_offset + 1);
                log.jumps = true;
            }
        }
        self.forget(commands);
    }

    /// Wherever it was in memory: it counted for retention.
    fn forget(&mut self, commands: &[Command]) {
        for command in commands {
            let (partitions, batch) = match command {
                Command::Append {
                    partition, batch, ..
                } => (std::slice::from_ref(partition), batch),
                Command::EndTransaction { partitions, marker } => (partitions.as_slice(), marker),
                _ => continue,
            };
            for partition in partitions {
                if let Some(log) = self.log_mut(*partition) {
                    log.gone.push((i64::MAX, batch.len() as u64));
                }
            }
        }
    }

    /// Takes over what only the kernel decides: where logs begin, where those end that are only in memory.
    fn learn(&mut self, view: &View, restarted: bool) {
        for (id, (_, partitions)) in &view.streams {
            let Some(stream) = self.streams.get_mut(id) else {
                continue;
            };
            let compacts = stream.compacts;
            for (log, found) in stream.logs.iter_mut().zip(partitions) {
                let marks = found.watermarks;
                let lasting = log.lasting_start(marks.log_start, compacts);
                log.log_start = log.log_start.max(lasting);
                if restarted || stream.takes_dead_letters {
                    log.end = log.end.max(marks.end);
                }
                if restarted {
                    log.volatile_producers.clear();
                    // Bound to the process that is gone: what is still there may go, what is not there stays away.
                    let there: BTreeSet<i64> =
                        found.batches.iter().map(Batch::base_offset).collect();
                    let is_gone = |kept: &mut Kept| {
                        kept.class == Class::Memory && !there.contains(&kept.batch.base_offset())
                    };
                    let gone = log.batches.extract_if(.., is_gone);
                    let gone = gone.map(|kept| (kept.batch.last_offset(), kept.batch.len() as u64));
                    log.gone.extend(gone);
                }
            }
        }
    }
}
