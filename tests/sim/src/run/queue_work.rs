//! Work on queues.

use std::collections::{BTreeMap, BTreeSet};

use kernel::{
    Acquired, DeliveryId, HolderId, PartitionId, QueueError, QueueName, QueueSource, Verdict,
    WriteError,
};
use rand::RngExt;

use super::Sim;
use super::life::{Life, Stop};
use super::plan::pick;
use crate::model::queues::{Place, Queue as Model};

/// Names of the queues.
pub const QUEUES: [&str; 2] = ["q", "r"];
/// Whoever takes everything after a restart, to see what there is.
const INSPECTOR: HolderId = HolderId(99);

/// A delivery must be owed, and not be with somebody else.
fn check(
    model: &mut Model,
    name: &QueueName,
    holder: HolderId,
    got: &Acquired,
    failed: bool,
) -> Result<(), String> {
    let id = (got.id.partition, got.id.offset);
    let wrong = |why: &str| Err(format!("queue {name} delivered {id:?}: {why}"));
    if model.settled.contains(&id) {
        return wrong("it is settled");
    }
    if let Some((_, holder)) = model.held.get(&id) {
        return wrong(&format!("{holder:?} has it"));
    }
    if got.record.offset != id.1 {
        return wrong("it has another offset");
    }
    let known = model.sources.get(&id.0);
    let asked = model.asked.as_ref().and_then(|asked| asked.get(&id.0));
    if known.is_none() && asked.is_none() {
        return wrong("it is from no source");
    }
    if !model.delivered.insert(id) && !got.redelivered {
        return wrong("it was delivered before and does not say so");
    }
    if !failed {
        // Whatever became of an earlier settlement: it was not settled. When the log has failed, the next process finds out.
        model.maybe_settled.remove(&id);
    }
    model.held.insert(id, (got.id, holder));
    Ok(())
}

pub fn acquire(sim: &mut Sim, life: &mut Life) -> Result<(), Stop> {
    let Some((name, queue)) = life.any_queue(&mut sim.rng) else {
        return Ok(());
    };
    let holder = HolderId(sim.rng.random_range(1..4));
    let records = sim.rng.random_range(1..8);
    let bytes = *pick(&mut sim.rng, &[100, usize::MAX]);
    let kernel = life.kernel.clone();
    let (queues, problems, trace) = (sim.queues.clone(), life.problems.clone(), sim.trace.clone());
    life.tasks.spawn("acquire", async move {
        // If the holder is released meanwhile, nothing comes.
        let acquired = queue.acquire(holder, records, bytes).await;
        let failed = kernel.stats().failed.is_some();
        let mut queues = queues.borrow_mut();
        let model = queues.entry(name.clone()).or_default();
        for got in &acquired {
            trace.note(format_args!(
                "queue {name} gives {} {} to {holder:?}",
                got.id.partition, got.id.offset
            ));
            if let Err(why) = check(model, &name, holder, got, failed) {
                problems.borrow_mut().push(why);
            }
        }
    });
    Ok(())
}

pub fn settle(sim: &mut Sim, life: &mut Life) -> Result<(), Stop> {
    let Some((name, queue)) = life.any_queue(&mut sim.rng) else {
        return Ok(());
    };
    let verdict = *pick(
        &mut sim.rng,
        &[
            Verdict::Accept,
            Verdict::Accept,
            Verdict::Reject,
            Verdict::Release,
        ],
    );
    let often = *pick(&mut sim.rng, &[0.2, 0.7, 1.0]);
    let mut queues = sim.queues.borrow_mut();
    let model = queues.entry(name.clone()).or_default();
    let held = model.held.iter().filter(|_| sim.rng.random_bool(often));
    let (places, ids): (Vec<Place>, Vec<DeliveryId>) =
        held.map(|(place, (id, _))| (*place, *id)).unzip();
    if ids.is_empty() {
        return Ok(());
    }
    for place in &places {
        let held = model.held.remove(place);
        if verdict != Verdict::Release {
            model.settling.extend(held.map(|held| (*place, held)));
        }
        if verdict != Verdict::Release {
            model.maybe_settled.insert(*place);
        }
    }
    drop(queues);
    sim.trace
        .note(format_args!("queue {name} {verdict:?} {ids:?}"));
    let (queues, problems, trace) = (sim.queues.clone(), life.problems.clone(), sim.trace.clone());
    let task = life.tasks.spawn("settle", async move {
        let settled = queue.settle(&ids, verdict).await;
        if verdict == Verdict::Release {
            return;
        }
        let mut queues = queues.borrow_mut();
        let model = queues.entry(name.clone()).or_default();
        if settled == Err(QueueError::Write(WriteError::Full)) {
            places.iter().for_each(|place| model.not_settled(place));
        }
        if let Ok(settled) = settled {
            trace.note(format_args!("queue {name} settled {settled} of {ids:?}"));
            for id in &places {
                // A source that was dropped meanwhile took its state along.
                model.settling.remove(id);
                if model.maybe_settled.remove(id) {
                    model.settled.insert(*id);
                }
            }
            if settled > ids.len() {
                problems
                    .borrow_mut()
                    .push(format!("queue {name} settled {settled} of {}", ids.len()));
            }
        }
    });
    // The settlement takes its place now.
    life.tasks.poll(task);
    Ok(())
}

pub fn release(sim: &mut Sim, life: &mut Life) -> Result<(), Stop> {
    let Some((name, queue)) = life.any_queue(&mut sim.rng) else {
        return Ok(());
    };
    let holder = HolderId(sim.rng.random_range(1..4));
    queue.release_holder(holder);
    if let Some(model) = sim.queues.borrow_mut().get_mut(&name) {
        model.released(holder);
    }
    Ok(())
}

pub fn set_sources(sim: &mut Sim, life: &mut Life) -> Result<(), Stop> {
    let Some((name, queue)) = life.any_queue(&mut sim.rng) else {
        return Ok(());
    };
    life.settle_down(sim)?;
    if sim
        .queues
        .borrow()
        .get(&name)
        .is_some_and(|model| model.asked.is_some())
    {
        // The log failed when it was asked; nothing that comes after is written.
        return Ok(());
    }
    let mut wanted: BTreeMap<PartitionId, i64> = BTreeMap::new();
    for _ in 0..sim.rng.random_range(0..4) {
        if let Some(partition) = sim.partition() {
            wanted.insert(partition, sim.rng.random_range(0..3));
        }
    }
    let known: Vec<_> = {
        let mut queues = sim.queues.borrow_mut();
        let model = queues.entry(name.clone()).or_default();
        model.asked = Some(wanted.clone());
        model.sources.clone().into_iter().collect()
    };
    if sim.rng.random_bool(0.7) {
        // Usually more, seldom others.
        let truth = sim.truth.borrow();
        let alive = known
            .into_iter()
            .filter(|(p, _)| truth.now.log(*p).is_some());
        wanted.extend(alive);
        drop(truth);
        if let Some(model) = sim.queues.borrow_mut().get_mut(&name) {
            model.asked = Some(wanted.clone());
        }
    }
    sim.trace
        .note(format_args!("queue {name} sources {wanted:?}"));
    let sources = wanted
        .iter()
        .map(|(partition, from)| QueueSource {
            partition: *partition,
            from: *from,
        })
        .collect();
    let set = life.complete(
        sim,
        "sources",
        async move { queue.set_sources(sources).await },
    )?;
    if let Some(model) = sim.queues.borrow_mut().get_mut(&name) {
        match set {
            Ok(()) => {
                model.asked = None;
                model
                    .held
                    .retain(|(partition, _), _| wanted.contains_key(partition));
                model.set_sources(wanted);
            }
            Err(QueueError::Write(WriteError::Full)) => model.asked = None,
            Err(_) => {}
        }
    }
    Ok(())
}

pub fn purge(sim: &mut Sim, life: &mut Life) -> Result<(), Stop> {
    let Some((name, queue)) = life.any_queue(&mut sim.rng) else {
        return Ok(());
    };
    life.settle_down(sim)?;
    // What is owed and with nobody; what of that an earlier life has perhaps settled; what may be gone.
    let (ready, perhaps, fleeting): (BTreeSet<Place>, BTreeSet<Place>, usize) = {
        let truth = sim.truth.borrow();
        let mut queues = sim.queues.borrow_mut();
        let model = queues.entry(name.clone()).or_default();
        let owed = model.owed(&truth.now, |partition| {
            let marks = life.kernel.watermarks(partition);
            marks.map_or(0, |marks| marks.log_start)
        })?;
        let free = |places: BTreeSet<Place>| -> BTreeSet<Place> {
            let places = places.into_iter();
            places.filter(|id| !model.held.contains_key(id)).collect()
        };
        let (ready, perhaps) = (free(owed.must), free(owed.unless_settled));
        let fleeting = free(owed.fleeting);
        model.maybe_settled.extend(&ready);
        model.maybe_settled.extend(&fleeting);
        (ready, perhaps, fleeting.len())
    };
    let (least, most) = (ready.len(), ready.len() + perhaps.len() + fleeting);
    sim.trace
        .note(format_args!("queue {name} purge {least} to {most}"));
    let purged = life.complete(sim, "purge", async move { queue.purge().await })?;
    if let Err(error) = &purged {
        if *error == QueueError::Write(WriteError::Full)
            && let Some(model) = sim.queues.borrow_mut().get_mut(&name)
        {
            ready.iter().for_each(|place| model.not_settled(place));
        }
        return Ok(());
    }
    let purged = purged.unwrap_or_default();
    sim.trace.note(format_args!("queue {name} purged {purged}"));
    if sim.faulty || sim.cold_fails() {
        // A source that could not be read keeps what it has.
        return Ok(());
    }
    if !(least as u64..=most as u64).contains(&purged) {
        let why = format!("queue {name} purged {purged} of {least} to {most}");
        return Err(Stop::Wrong(why));
    }
    if let Some(model) = sim.queues.borrow_mut().get_mut(&name) {
        for id in ready.into_iter().chain(perhaps) {
            model.maybe_settled.remove(&id);
            model.settled.insert(id);
        }
    }
    Ok(())
}

/// Opens the queues of a new life, and sometimes takes everything they have to see that it is what they owe.
pub fn reopen(sim: &mut Sim, life: &mut Life, damaged: bool) -> Result<(), Stop> {
    for name in QUEUES.map(QueueName::from) {
        let queue = life.kernel.queue(&name, std::sync::Arc::new(()));
        let found: BTreeSet<PartitionId> = queue
            .sources()
            .iter()
            .map(|source| source.partition)
            .collect();
        {
            let mut queues = sim.queues.borrow_mut();
            let model = queues.entry(name.clone()).or_default();
            model.restarted(&sim.truth.borrow().now);
            model
                .found(&found, &sim.truth.borrow().now)
                .map_err(|why| format!("queue {name}: {why}"))?;
        }
        if !damaged && sim.rng.random_bool(0.7) {
            inspect(sim, life, &name, &queue)?;
        }
        life.queues.push((name, queue));
    }
    Ok(())
}

fn inspect(
    sim: &mut Sim,
    life: &mut Life,
    name: &QueueName,
    queue: &std::sync::Arc<kernel::Queue>,
) -> Result<(), Stop> {
    let taker = queue.clone();
    let acquired = life.complete(sim, "inspect", async move {
        taker.acquire(INSPECTOR, usize::MAX, usize::MAX).await
    })?;
    let mut queues = sim.queues.borrow_mut();
    let model = queues.entry(name.clone()).or_default();
    for got in &acquired {
        check(model, name, INSPECTOR, got, false)?;
    }
    model.held.clear();
    sim.trace
        .note(format_args!("queue {name} has {} records", acquired.len()));
    queue.release_holder(INSPECTOR);
    let there: BTreeSet<Place> = acquired
        .iter()
        .map(|got| (got.id.partition, got.id.offset))
        .collect();
    let kernel = life.kernel.clone();
    let owed = model.owed(&sim.truth.borrow().now, |partition| {
        kernel
            .watermarks(partition)
            .map_or(0, |marks| marks.log_start)
    })?;
    if let Some(lost) = owed.must.difference(&there).next() {
        return Err(Stop::Wrong(format!("queue {name} lost {lost:?}")));
    }
    if let Some(extra) = there.iter().find(|id| {
        ![&owed.must, &owed.unless_settled, &owed.fleeting]
            .iter()
            .any(|some| some.contains(id))
    }) {
        return Err(Stop::Wrong(format!("queue {name} does not owe {extra:?}")));
    }
    model.resolve(&owed, &there);
    Ok(())
}
