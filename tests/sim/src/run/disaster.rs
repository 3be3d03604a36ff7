//! The disk died, or somebody starts a copy of the data directory: what becomes of it, on a fork of disk and cold store, so that the run goes on.
//! Everything was sealed just before, so everything must be there after a restoration.

use kernel::{
    AppendError, Appended, ColdTierError, DURABILITY, Entry, Kernel, OpenError, Outcome,
    PartitionId, RestoreError, Restored, SequenceRule,
};
use rand::RngExt;

use super::Sim;
use super::life::{Life, Stop};
use super::plan::pick;
use super::queue_work;
use crate::batches::batch;
use crate::cold::Harm;
use crate::disk::SimDisk;
use crate::model::view::{View, is_within};
use crate::model::{Class, Kept, Log, Stream, compaction};
use crate::spawner::SimSpawner;
use crate::stepped;

/// Restores what is in the cold store into an empty directory, goes on there, and then starts the old one again, or a copy of it.
pub fn look_at_fork(sim: &mut Sim, life: &mut Life) -> Result<(), Stop> {
    let kernel = life.kernel.clone();
    let tended = life.complete(sim, "tend", async move { kernel.tend_cold().await })?;
    if tended.is_err() || sim.cold.keys(".segment").is_empty() {
        return Ok(());
    }
    let damaged = !sim.damage.borrow().is_empty();
    let view = sim.read_all(life, damaged)?;
    let seed = sim.rng.random();
    let sound = (
        std::mem::take(&mut sim.spawner),
        sim.cold.clone(),
        sim.disk.clone(),
        sim.last_group.clone(),
    );
    sim.cold = sound.1.fork(seed);
    let old = sound.2.copy(sim.rng.random());
    let looked = if sim.rng.random_bool(0.6) {
        restored(sim, old, &view)
    } else {
        copied(sim, old)
    };
    (sim.spawner, sim.cold, sim.disk, sim.last_group) = sound;
    sim.trace.note(format_args!("back from the fork"));
    looked
}

/// Opens what is on a disk.
fn start(sim: &mut Sim, disk: &SimDisk) -> Result<Life, Stop> {
    sim.disk = disk.clone();
    sim.cold.serve(disk);
    sim.spawner = SimSpawner::default();
    let opened = Kernel::open_stepped(sim.ports(), sim.plan.config.clone());
    let (kernel, stepper) = opened.map_err(|error| format!("a fork does not open: {error}"))?;
    Ok(Life::new(kernel, stepper))
}

/// The process is killed.
fn kill(sim: &mut Sim, life: Life) -> SimDisk {
    drop(life);
    drop(sim.spawner.take());
    sim.disk.after_kill(sim.rng.random())
}

fn append(
    sim: &mut Sim,
    life: &mut Life,
    partition: PartitionId,
) -> Result<Result<Appended, AppendError>, Stop> {
    let kernel = life.kernel.clone();
    let write = kernel.append(partition, batch(&["on a fork"]), SequenceRule::None);
    life.complete(sim, "append", write)
}

fn seal(sim: &mut Sim, life: &mut Life) -> Result<Result<(), ColdTierError>, Stop> {
    let kernel = life.kernel.clone();
    life.complete(sim, "seal all", async move { kernel.seal_all().await })
}

fn some_partition(sim: &mut Sim) -> Option<PartitionId> {
    let partition = sim.partition()?;
    let truth = sim.truth.borrow();
    let class = truth.now.streams[&partition.stream].class();
    (class == Class::Synced).then_some(partition)
}

fn restored(sim: &mut Sim, old: SimDisk, before: &View) -> Result<(), Stop> {
    let harmed = harm(sim);
    let fresh = SimDisk::new(sim.rng.random(), sim.trace.clone());
    sim.disk = fresh.clone();
    sim.cold.serve(&fresh);
    let report = match restore(sim)? {
        Ok(report) => report,
        // A flipped version is believed.
        Err(RestoreError::Disk(OpenError::NewerVersion { .. })) if harmed.is_some() => {
            return Ok(());
        }
        Err(error) => return Err(Stop::Wrong(format!("nothing is restored: {error}"))),
    };
    let (streams, damaged) = (report.streams, report.damaged.len());
    sim.trace.note(format_args!(
        "restored {streams} streams, {damaged} damaged"
    ));
    let names_others = report.damaged.iter().any(|(key, _)| {
        Some(key) != harmed.as_ref()
            && (!key.ends_with(".segment") || sim.damage.borrow().is_empty())
    });
    if names_others {
        let why = format!("{:?} are damaged, harmed was {harmed:?}", report.damaged);
        return Err(Stop::Wrong(why));
    }
    let mut life = start(sim, &fresh)?;
    let view = compare(sim, &mut life, before, harmed.is_none())?;
    let was = sim.truth.borrow().was(&view);
    match was {
        // They come from a checkpoint, or are lost.
        Some(number) if report.checkpoint.is_some() || number == 0 => {
            let text = format_args!("tables and cursors are those of entry {number}");
            sim.trace.note(text);
            if harmed.is_none() && !view.is_damaged() {
                orphans_are_aborted(sim, &mut life)?;
                queue_work::restored(sim, &mut life, before, number)?;
            }
        }
        _ => {
            let why = format!(
                "with checkpoint {:?} tables and cursors are restored that never were",
                report.checkpoint
            );
            return Err(Stop::Wrong(why));
        }
    }
    let mut new = Vec::new();
    for _ in 0..3 {
        let Some(partition) = some_partition(sim) else {
            continue;
        };
        let stream = life.kernel.stream_by_id(partition.stream);
        if stream.is_none_or(|stream| stream.config.contains_key(DURABILITY)) {
            // It came back as it was set up before, since the list of streams was harmed.
            continue;
        }
        let appended = append(sim, &mut life, partition)?;
        let end = before.end(partition);
        match appended {
            Ok(appended) if appended.base_offset >= end => {
                new.push((partition, appended.base_offset));
            }
            // Nothing of it was ever sealed, and the list of streams was harmed.
            Err(AppendError::UnknownPartition(_)) if harmed.is_some() => {}
            other => {
                let why = format!(
                    "after a restoration an append to {partition}, whose end was {end}: {other:?}"
                );
                return Err(Stop::Wrong(why));
            }
        }
    }
    let sealed = seal(sim, &mut life)?;
    sealed.map_err(|error| format!("after a restoration nothing can be sealed: {error}"))?;
    let fresh = kill(sim, life);
    let segments = sim.cold.keys(".segment");
    if harmed.is_none() {
        // The machine was not dead after all.
        fenced(sim, &old)?;
    }
    let segments_now = sim.cold.keys(".segment");
    if segments.iter().any(|key| !segments_now.contains(key)) {
        return Err(Stop::Wrong(
            "the old directory deleted a segment of the restored one".to_owned(),
        ));
    }
    let mut life = start(sim, &fresh)?;
    let view = compare(sim, &mut life, before, harmed.is_none())?;
    for (partition, offset) in new {
        if !view.has(partition, offset) {
            let there = view.summary(partition);
            let why = format!(
                "what was written to {partition} at {offset} after a restoration is gone; there is {there}"
            );
            return Err(Stop::Wrong(why));
        }
    }
    let sealed = seal(sim, &mut life)?;
    sealed.map_err(|error| format!("the restored log is disturbed: {error}"))?;
    Ok(())
}

/// The first that a restored log writes is the end of the transactions that were open; until then queues give nothing that lies behind them.
fn orphans_are_aborted(sim: &mut Sim, life: &mut Life) -> Result<(), Stop> {
    let nothing = Entry::new().delete("t", "a row that never was");
    let written = life.kernel.write(nothing);
    let written = life.complete(sim, "a write", written)?;
    let written = written.map_err(|error| format!("a restored log takes no write: {error}"))?;
    debug_assert_eq!(written, [Outcome::NoEffect]);
    Ok(())
}

/// Harms one object that says what there is besides segments; returns its key.
fn harm(sim: &mut Sim) -> Option<String> {
    if sim.rng.random_bool(0.5) {
        return None;
    }
    let mut keys = sim.cold.keys("/checkpoints/");
    keys.extend(sim.cold.keys("/streams/"));
    keys.extend(sim.cold.keys("/epochs/"));
    if keys.is_empty() {
        return None;
    }
    let key = pick(&mut sim.rng, &keys).clone();
    let harm = *pick(&mut sim.rng, &[Harm::Flip, Harm::Truncate, Harm::Remove]);
    sim.cold.harm(&key, harm);
    Some(key)
}

fn restore(sim: &mut Sim) -> Result<Result<Restored, RestoreError>, Stop> {
    let ports = sim.ports();
    let mut restoring = std::pin::pin!(kernel::restore(&ports, None));
    for _ in 0..100_000 {
        if let Some(done) = stepped::poll(restoring.as_mut()) {
            return Ok(done);
        }
        sim.clock.advance(1);
    }
    Err(Stop::Wrong("a restoration does not end".to_owned()))
}

/// All that was sealed is there.
fn compare(sim: &mut Sim, life: &mut Life, before: &View, exact: bool) -> Result<View, Stop> {
    let view = sim.read_all(life, true)?;
    let damage = sim.damage.borrow();
    let damaged = !damage.is_empty();
    let truth = sim.truth.borrow();
    for (id, stream) in &truth.now.streams {
        if stream.takes_dead_letters {
            continue;
        }
        let Some((found, partitions)) = view.streams.get(id) else {
            let is_empty = |log: &Log| log.batches.iter().all(|k| k.class == Class::Memory);
            if exact || !stream.logs.iter().all(is_empty) && !damaged {
                let starts =
                    (0..stream.logs.len()).map(|n| before.log_start(id.partition(n as u32)));
                // What is trimmed away need not come back without a list of streams.
                let left = stream.logs.iter().zip(starts).any(|(log, start)| {
                    let mut kept = log.batches.iter().filter(|k| k.class != Class::Memory);
                    kept.any(|kept| kept.batch.last_offset() >= start)
                });
                if exact || left && !stream.compacts {
                    return Err(Stop::Wrong(format!("stream {id} is not restored")));
                }
            }
            continue;
        };
        if exact && (found.config != stream.config || found.address != stream.address) {
            return Err(Stop::Wrong(format!("stream {id} is restored as {found:?}")));
        }
        for (number, (log, found)) in stream.logs.iter().zip(partitions).enumerate() {
            let partition = id.partition(u32::try_from(number).unwrap_or(0));
            let start = before.log_start(partition);
            let end = before.end(partition);
            let there = found.batches.iter();
            let there: Vec<_> = there
                .filter(|b| b.last_offset() >= start && b.base_offset() < end)
                .cloned()
                .collect();
            // A segment whose end is damaged is not found at all.
            let reported = |kept: &Kept| {
                let (first, last) = (kept.batch.base_offset(), kept.batch.last_offset());
                is_within(&damage, partition, first, last)
            };
            same(stream, log, start, &there, reported)
                .map_err(|why| format!("restored partition {partition}: {why}"))?;
        }
    }
    if exact && view.streams.len() != truth.now.streams.len() {
        let found: Vec<_> = view.streams.keys().collect();
        let wanted: Vec<_> = truth.now.streams.keys().collect();
        let why = format!("the streams {found:?} are restored, not {wanted:?}");
        return Err(Stop::Wrong(why));
    }
    drop((truth, damage));
    Ok(view)
}

fn same(
    stream: &Stream,
    log: &Log,
    start: i64,
    there: &[record::Batch],
    reported: impl Fn(&Kept) -> bool,
) -> Result<(), String> {
    if stream.compacts {
        return compaction::check(stream, log, start, there, reported);
    }
    let mut there = there.iter().peekable();
    for kept in log
        .batches
        .iter()
        .filter(|k| k.batch.last_offset() >= start)
    {
        let offset = kept.batch.base_offset();
        match there.next_if(|batch| batch.base_offset() == offset) {
            Some(batch) if batch.bytes() == kept.batch.bytes() => {}
            Some(_) => return Err(format!("the batch at {offset} is another one")),
            None if kept.class == Class::Memory || reported(kept) => {}
            None => return Err(format!("the batch at {offset} is missing")),
        }
    }
    match there.next() {
        Some(batch) => Err(format!("nobody wrote the batch at {}", batch.base_offset())),
        None => Ok(()),
    }
}

/// The directory of a process that somebody else has replaced: it says so, and harms nothing; what it has can be read.
fn fenced(sim: &mut Sim, disk: &SimDisk) -> Result<(), Stop> {
    let mut disk = disk.clone();
    for _ in 0..2 {
        let mut life = start(sim, &disk)?;
        let view = sim.read_all(&mut life, true)?;
        sim.truth.borrow().is_there_at_least(&view)?;
        let Some(partition) = some_partition(sim) else {
            return Ok(());
        };
        // Its log may be full.
        if append(sim, &mut life, partition)?.is_ok() {
            let sealed = seal(sim, &mut life)?;
            if sealed != Err(ColdTierError::Fenced) {
                let why = format!("an old directory seals beside a newer one: {sealed:?}");
                return Err(Stop::Wrong(why));
            }
        }
        disk = kill(sim, life);
    }
    Ok(())
}

/// Somebody made a copy of the directory. The two are started one after the other, in any order: one owns the store, the other one is fenced.
fn copied(sim: &mut Sim, original: SimDisk) -> Result<(), Stop> {
    let copy = original.copy(sim.rng.random());
    let Some(partition) = some_partition(sim) else {
        return Ok(());
    };
    let mut newer = start(sim, &original)?;
    if append(sim, &mut newer, partition)?.is_err() {
        return Ok(());
    }
    let sealed = seal(sim, &mut newer)?;
    sealed.map_err(|error| format!("with a copy at rest nothing can be sealed: {error}"))?;
    let disk = kill(sim, newer);
    let segments = sim.cold.keys(".segment");
    fenced(sim, &copy)?;
    let segments_now = sim.cold.keys(".segment");
    if segments.iter().any(|key| !segments_now.contains(key)) {
        return Err(Stop::Wrong(
            "a copy deleted a segment of the original".to_owned(),
        ));
    }
    let mut newer = start(sim, &disk)?;
    let damaged = !sim.damage.borrow().is_empty();
    let view = sim.read_all(&mut newer, damaged)?;
    sim.truth.borrow().is_there_at_least(&view)?;
    if append(sim, &mut newer, partition)?.is_ok() {
        let sealed = seal(sim, &mut newer)?;
        sealed.map_err(|error| format!("a copy that was started fences the original: {error}"))?;
    }
    Ok(())
}
