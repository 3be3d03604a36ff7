//! Work on queues.

use std::collections::{BTreeMap, BTreeSet};

use kernel::ports::Clock;
use kernel::{
    Acquired, Command, DeliveryId, HolderId, PartitionId, QueueError, QueueLimits, QueueName,
    QueueSource, Verdict, WriteError,
};
use rand::RngExt;

use super::Sim;
use super::life::{Life, Stop};
use super::plan::pick;
use crate::batches::address;
use crate::clock::SimClock;
use crate::model::letters::{self, Letter};
use crate::model::queues::{Held, Place, Queue as Model};
use crate::model::view::View;
use crate::model::{Class, DEAD_LETTERS};

/// Names of the queues.
pub const QUEUES: [&str; 2] = ["q", "r"];
/// Whoever takes everything after a restart, to see what there is.
const INSPECTOR: HolderId = HolderId(99);

/// The stop watch, as leases go by it.
fn now_ms(clock: &SimClock) -> u64 {
    clock.monotonic_us() / 1000
}

/// A delivery must be owed, and not be with somebody else.
fn check(
    model: &mut Model,
    name: &QueueName,
    holder: HolderId,
    got: &Acquired,
    failed: bool,
    now_ms: u64,
) -> Result<(), String> {
    let id = (got.id.partition, got.id.offset);
    let wrong = |why: &str| Err(format!("queue {name} delivered {id:?}: {why}"));
    if model.settled.contains(&id) {
        return wrong("it is settled");
    }
    if let Some(held) = model.held.remove(&id) {
        if !held.is_over(now_ms) {
            return wrong(&format!(
                "{:?} has it until {:?}",
                held.holder, held.until_ms
            ));
        }
        model.put_back(id, &held.letter);
    }
    if model.dying.contains(&id) {
        return wrong("it was put back too often");
    }
    if got.record.offset != id.1 {
        return wrong("it has another offset");
    }
    let known = model.sources.get(&id.0);
    let asked = model.asked.as_ref().and_then(|asked| asked.get(&id.0));
    if known.is_none() && asked.is_none() {
        return wrong("it is from no source");
    }
    if model.delivered.contains_key(&id) && !got.redelivered {
        return wrong("it was delivered before and does not say so");
    }
    if !failed {
        // Whatever became of an earlier settlement: it was not settled. When the log has failed, the next process finds out.
        model.maybe_settled.remove(&id);
    }
    let lease_ms = model.limits.lease_ms;
    let held = Held {
        id: got.id,
        holder,
        until_ms: lease_ms.map(|ms| now_ms + ms),
        letter: Letter::of(got),
    };
    let count = model.handed_out(id, held);
    if got.delivery_count != count {
        let why = format!(
            "it says {} deliveries, it is number {count}",
            got.delivery_count
        );
        return wrong(&why);
    }
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
    let clock = sim.clock.clone();
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
            if let Err(why) = check(model, &name, holder, got, failed, now_ms(&clock)) {
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
    let now = now_ms(&sim.clock);
    let held = model.held.iter().filter(|_| sim.rng.random_bool(often));
    let mut held: Vec<(Place, Held)> = held.map(|(place, held)| (*place, held.clone())).collect();
    // What may have been put back already goes alone: then the answer says whether it was.
    if let Some(over) = held.iter().position(|(_, held)| held.is_over(now)) {
        held = vec![held.swap_remove(over)];
    }
    if held.is_empty() {
        return Ok(());
    }
    let over = held.iter().any(|(_, held)| held.is_over(now));
    let (places, ids): (Vec<Place>, Vec<DeliveryId>) =
        held.iter().map(|(place, held)| (*place, held.id)).unzip();
    // What of it is certainly there to be settled.
    let there = |(place, _): &&(Place, Held)| life.kernel.watermarks(place.0).is_some();
    let least = if over {
        0
    } else {
        held.iter().filter(there).count()
    };
    let buries = verdict == Verdict::Reject && model.limits.dead_letter.is_some();
    for (place, held) in held {
        model.held.remove(&place);
        match verdict {
            Verdict::Release => model.put_back(place, &held.letter),
            _ if buries => {
                model.reject(place, &held.letter);
                model.settling.insert(place, held);
            }
            _ => {
                if !over {
                    model.letters.keep(&held.letter);
                }
                model.settling.insert(place, held);
                model.maybe_settled.insert(place);
            }
        }
    }
    drop(queues);
    sim.trace
        .note(format_args!("queue {name} {verdict:?} {ids:?}"));
    let (queues, problems, trace) = (sim.queues.clone(), life.problems.clone(), sim.trace.clone());
    let task = life.tasks.spawn("settle", async move {
        let settled = queue.settle(&ids, verdict).await;
        if let Ok(settled) = &settled
            && !(least..=ids.len()).contains(settled)
        {
            let why = format!("queue {name} settled {settled} of {least} to {}", ids.len());
            problems.borrow_mut().push(why);
        }
        if verdict == Verdict::Release {
            return;
        }
        let mut queues = queues.borrow_mut();
        let model = queues.entry(name.clone()).or_default();
        match settled {
            Ok(0) if over => {
                trace.note(format_args!("queue {name}: too late for {ids:?}"));
                for place in &places {
                    model.too_late(place);
                }
            }
            Ok(settled) => {
                trace.note(format_args!("queue {name} settled {settled} of {ids:?}"));
                for id in &places {
                    // A source that was dropped meanwhile took its state along.
                    let held = model.settling.remove(id);
                    if model.maybe_settled.remove(id) {
                        model.settled.insert(*id);
                    } else if buries && let Some(held) = held {
                        model.settled.insert(*id);
                        model.letters.answered(&held.letter);
                    }
                }
            }
            Err(QueueError::Write(WriteError::Full)) => {
                places.iter().for_each(|place| model.not_settled(place));
            }
            Err(QueueError::Unreadable) => {
                trace.note(format_args!("queue {name}: not all of {ids:?}"));
                places.iter().for_each(|place| model.perhaps_buried(place));
            }
            Err(_) if buries => {
                // The log failed. The queue hands it out again, though the letter may be there after the restart.
                for place in &places {
                    if let Some(held) = model.settling.get(place) {
                        model.letters.unanswered(&held.letter);
                    }
                }
            }
            Err(_) => {}
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
        model.changed_at = sim.truth.borrow().next_number();
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
        let now = now_ms(&sim.clock);
        let is_over = |id: &Place| model.held.get(id).is_some_and(|held| held.is_over(now));
        let free = |places: BTreeSet<Place>| -> BTreeSet<Place> {
            let places = places.into_iter();
            let places = places.filter(|id| !model.dying.contains(id));
            let places = places.filter(|id| !model.held.contains_key(id) || is_over(id));
            places.collect()
        };
        let (ready, perhaps) = (free(owed.must), free(owed.unless_settled));
        let mut fleeting = free(owed.fleeting);
        // What may have been put back, and what is still held after all.
        let (mut ready, over): (BTreeSet<_>, BTreeSet<_>) =
            ready.into_iter().partition(|id| !is_over(id));
        let (perhaps, over_too): (BTreeSet<_>, BTreeSet<_>) =
            perhaps.into_iter().partition(|id| !is_over(id));
        fleeting.extend(over.into_iter().chain(over_too));
        if model.limits.lease_ms.is_some() && model.limits.max_deliveries.is_some() {
            // What nobody has told us of may have died meanwhile, or it is there and counts.
            fleeting.extend(ready.extract_if(.., |id| model.letters.may_come(id)));
        }
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
pub fn reopen(sim: &mut Sim, life: &mut Life, view: &View, damaged: bool) -> Result<(), Stop> {
    let dead = dead_letters(sim, life)?;
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
            // Nobody holds anything any more.
            model.held.clear();
            compare_letters(sim, model, &name, view, true, damaged)?;
            model.restarted(&sim.truth.borrow().now);
            model
                .found(&found, &sim.truth.borrow().now)
                .map_err(|why| format!("queue {name}: {why}"))?;
        }
        if !damaged && sim.rng.random_bool(0.7) {
            inspect(sim, life, &name, &queue)?;
        }
        let limits = QueueLimits {
            max_deliveries: *pick(&mut sim.rng, &sim.plan.max_deliveries),
            dead_letter: dead.filter(|_| sim.rng.random_bool(0.7)),
            lease_ms: *pick(&mut sim.rng, &sim.plan.lease_ms),
        };
        sim.trace.note(format_args!("queue {name} {limits:?}"));
        queue.set_limits(limits);
        if let Some(model) = sim.queues.borrow_mut().get_mut(&name) {
            model.limits = limits;
        }
        life.queues.push((name, queue));
    }
    Ok(())
}

/// Where dead letters go, if this seed is about them.
fn dead_letters(sim: &mut Sim, life: &mut Life) -> Result<Option<PartitionId>, Stop> {
    if !sim.plan.dead_letters {
        return Ok(None);
    }
    let named = |sim: &Sim| sim.truth.borrow().now.named(&address(DEAD_LETTERS));
    if named(sim).is_none() {
        let create = Command::CreateStream {
            address: address(DEAD_LETTERS),
            uuid: Default::default(),
            partitions: 1,
            config: BTreeMap::new(),
        };
        sim.write(life, vec![create]);
        life.settle_down(sim)?;
    }
    Ok(named(sim).map(|stream| stream.partition(0)))
}

/// Compares the dead letters of a queue with those that were sent. After a restart none are on their way any more.
fn compare_letters(
    sim: &Sim,
    model: &mut Model,
    name: &QueueName,
    view: &View,
    restarted: bool,
    damaged: bool,
) -> Result<(), String> {
    if damaged {
        return Ok(());
    }
    let found = letters::found(view)?;
    let truth = sim.truth.borrow();
    let faulty = sim.faulty;
    let must_come = |(partition, offset): &Place| {
        let Some(log) = truth.now.log(*partition) else {
            return false;
        };
        let compacts = truth.now.streams[&partition.stream].compacts;
        let start = view.log_start(*partition);
        let kept = log.find(*offset);
        !faulty && !compacts && *offset >= start && kept.is_some_and(|k| k.class != Class::Memory)
    };
    let new = model
        .letters
        .check(found.get(&*name.0), restarted, must_come);
    let new = new.map_err(|why| format!("queue {name}: {why}"))?;
    for (place, is_sure) in new {
        if !is_sure {
            model.maybe_settled.insert(place);
            continue;
        }
        model
            .died(place, now_ms(&sim.clock))
            .map_err(|why| format!("queue {name}: {why}"))?;
    }
    Ok(())
}

/// Nothing is in flight, and maintenance has run since a moment: what had to die is dead, each once.
pub fn at_rest(sim: &mut Sim, view: &View, since_ms: u64, damaged: bool) -> Result<(), String> {
    let all = sim.queues.clone();
    for (name, model) in all.borrow_mut().iter_mut() {
        model.expire(since_ms);
        compare_letters(sim, model, name, view, false, damaged)?;
    }
    Ok(())
}

/// After a restoration a queue is as in a checkpoint that was made after an entry: it owes at least what it owed when the disk died, `before`.
pub fn restored(sim: &mut Sim, life: &mut Life, before: &View, number: u64) -> Result<(), Stop> {
    for name in QUEUES.map(QueueName::from) {
        let owed = {
            let queues = sim.queues.borrow();
            let Some(model) = queues.get(&name) else {
                continue;
            };
            if model.changed_at > number || model.asked.is_some() {
                // The checkpoint may have other sources.
                continue;
            }
            let kernel = life.kernel.clone();
            model.owed(&sim.truth.borrow().now, |partition| {
                // The checkpoint may not know of the last trim; what that took need not be there.
                let marks = kernel.watermarks(partition);
                let start = marks.map_or(0, |marks| marks.log_start);
                start.max(before.log_start(partition))
            })?
        };
        let queue = life.kernel.queue(&name, std::sync::Arc::new(()));
        let acquired = life.complete(sim, "inspect", async move {
            queue.acquire(INSPECTOR, usize::MAX, usize::MAX).await
        })?;
        let there: BTreeSet<Place> = acquired
            .iter()
            .map(|got| (got.id.partition, got.id.offset))
            .collect();
        sim.trace.note(format_args!(
            "restored queue {name} has {} records",
            there.len()
        ));
        if let Some(lost) = owed.must.difference(&there).next() {
            return Err(Stop::Wrong(format!("restored queue {name} lost {lost:?}")));
        }
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
        check(model, name, INSPECTOR, got, false, now_ms(&sim.clock))?;
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
