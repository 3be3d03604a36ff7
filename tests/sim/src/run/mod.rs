//! A run: one seed, several lives of the process on one disk, and a comparison after each.

mod class_work;
mod clients;
mod cold_work;
mod disaster;
mod life;
mod plan;
mod queue_work;
mod rot;
mod transaction_work;
mod truth;
mod work;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use kernel::{Kernel, OpenError, PartitionId, Ports, QueueName};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::clock::SimClock;
use crate::cold::SimCold;
use crate::disk::{SimDisk, SyncFailure};
use crate::model::queues;
use crate::model::view::{View, look};
use crate::spawner::SimSpawner;
use crate::trace::Trace;
use clients::Client;
use life::{Life, Stop};
use plan::Plan;
use transaction_work::Transactor;
use truth::Truth;

/// More than any entry of the simulator has, in bytes.
const LARGEST_ENTRY: usize = 512 * 1024;

/// What a run leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Hash of the trace: the same for every run of the seed.
    pub trace: u64,
    /// Lines of the trace.
    pub lines: u64,
}

/// Runs a seed; the error says what is wrong. With `print` the trace goes to the standard output.
pub fn run(seed: u64, print: bool) -> Result<Summary, String> {
    let mut sim = Sim::new(seed, print);
    for number in 0..sim.plan.lives {
        sim.trace.note(format_args!("life {number}"));
        let mut life = sim.open()?;
        match sim.work(&mut life) {
            Ok(()) | Err(Stop::Off) => sim.end(life)?,
            Err(Stop::Wrong(why)) => return Err(why),
        }
    }
    sim.trace.note(format_args!("last look"));
    drop(sim.open()?);
    let (trace, lines) = sim.trace.digest();
    Ok(Summary { trace, lines })
}

/// Everything that outlives the process, and what the simulator knows.
pub struct Sim {
    rng: StdRng,
    plan: Plan,
    trace: Trace,
    disk: SimDisk,
    clock: SimClock,
    cold: SimCold,
    /// Offsets that a flipped bit has taken, first and last.
    damage: Rc<RefCell<Vec<(PartitionId, i64, i64)>>>,
    spawner: SimSpawner,
    truth: Rc<RefCell<Truth>>,
    queues: Rc<RefCell<BTreeMap<QueueName, queues::Queue>>>,
    clients: Vec<Client>,
    transactors: Vec<Transactor>,
    next_client: i64,
    /// Last value given to anything.
    value: u64,
    /// Disk errors may come in this life.
    faulty: bool,
    /// The power went since the last recovery.
    power_cut: bool,
    /// File and position of the last group of entries that was synced: damage from there on looks like the torn end of a write.
    last_group: Option<(String, u64)>,
}

impl Sim {
    fn new(seed: u64, print: bool) -> Sim {
        let mut rng = StdRng::seed_from_u64(seed);
        let trace = Trace::new(print);
        let plan = Plan::draw(&mut rng);
        trace.note(format_args!("{plan:?}"));
        let clock = SimClock::default();
        let cold = SimCold::new(plan.cold, rng.random(), clock.clone(), trace.clone());
        Sim {
            disk: SimDisk::new(rng.random(), trace.clone()),
            cold,
            damage: Rc::default(),
            rng,
            plan,
            trace,
            clock,
            spawner: SimSpawner::default(),
            truth: Rc::default(),
            queues: Rc::default(),
            clients: Vec::new(),
            transactors: Vec::new(),
            next_client: 0,
            value: 0,
            faulty: false,
            power_cut: false,
            last_group: None,
        }
    }

    fn ports(&self) -> Ports {
        Ports {
            disk: Arc::new(self.disk.clone()),
            clock: Arc::new(self.clock.clone()),
            cold: Arc::new(self.cold.clone()),
            spawner: Arc::new(self.spawner.port()),
        }
    }

    /// Opens what is on the disk, however often that is cut short, and compares it with the model.
    fn open(&mut self) -> Result<Life, String> {
        self.cold.calm(true);
        let (kernel, stepper) = loop {
            self.cold.serve(&self.disk);
            let faults = self.plan.faults;
            let mut armed = false;
            if self.rng.random_bool(faults.crash_in_recovery) {
                self.disk.crash_after(self.rng.random_range(0..40));
                armed = true;
            } else if self.rng.random_bool(faults.io_error) {
                self.disk.fail_operation(self.rng.random_range(0..40));
                armed = true;
            }
            match Kernel::open_stepped(self.ports(), self.plan.config.clone()) {
                Ok(opened) if !self.disk.is_off() => break opened,
                Ok(opened) => drop(opened),
                Err(OpenError::Io { .. }) if armed => {}
                Err(error) => return Err(format!("it does not open: {error}")),
            }
            self.restart();
        };
        self.disk.be_healthy();
        self.trace.note(format_args!("it is open"));
        let mut life = Life::new(kernel, stepper);
        let compared = self.compare(&mut life);
        match compared {
            Ok(()) => {}
            Err(Stop::Wrong(why)) => return Err(why),
            Err(Stop::Off) => return Err("the power went while nothing should happen".to_owned()),
        }
        self.power_cut = false;
        self.cold.calm(false);
        self.disk.slow(self.clock.clone(), self.plan.slow_disk_us);
        Ok(life)
    }

    fn compare(&mut self, life: &mut Life) -> Result<(), Stop> {
        let view = self.look(life)?;
        let power_cut = self.power_cut;
        let damaged = !self.damage.borrow().is_empty();
        self.truth
            .borrow_mut()
            .recovered(&view, power_cut, damaged)?;
        self.trace.note(format_args!("it is what it should be"));
        if self.rng.random_bool(0.15) {
            rot::look_at_copy(self)?;
        }
        queue_work::reopen(self, life, &view, damaged)
    }

    /// Reads everything. The cold store is calm meanwhile.
    fn look(&mut self, life: &mut Life) -> Result<View, Stop> {
        let damaged = !self.damage.borrow().is_empty();
        let view = self.read_all(life, damaged)?;
        view.check_damage(&self.damage.borrow())?;
        Ok(view)
    }

    fn read_all(&mut self, life: &mut Life, damaged: bool) -> Result<View, Stop> {
        let seed = self.rng.random();
        let now_ms = self.clock.latest_ms();
        let looking = look(life.kernel.clone(), seed, now_ms, damaged);
        Ok(life.complete(self, "look", looking)??)
    }

    /// One life of random work.
    fn work(&mut self, life: &mut Life) -> Result<(), Stop> {
        let faults = self.plan.faults;
        let steps = self.plan.steps;
        self.faulty = false;
        if self.rng.random_bool(0.6) {
            let most = u64::from(steps) * 2;
            self.disk.crash_after(self.rng.random_range(5..most));
        }
        if self.rng.random_bool(faults.sync_failure) {
            let how = *plan::pick(
                &mut self.rng,
                &[
                    SyncFailure::ForEver,
                    SyncFailure::Once,
                    SyncFailure::OnceAndForgets,
                ],
            );
            self.disk.fail_sync(self.rng.random_range(0..80), how);
            self.faulty = true;
        }
        if self.rng.random_bool(faults.io_error) {
            let most = u64::from(steps);
            self.disk.fail_operation(self.rng.random_range(0..most));
            self.faulty = true;
        }
        let mut full_until = None;
        for step in 0..steps {
            if full_until.is_none() && self.rng.random_bool(faults.full / 50.0) {
                let room = self.rng.random_range(0..20_000);
                self.disk.limit(Some(self.disk.used() + room));
                full_until = Some(step + self.rng.random_range(1..60));
            }
            if full_until == Some(step) {
                self.disk.limit(None);
                full_until = None;
                if !self.faulty
                    && let Some(why) = life.kernel.stats().failed
                {
                    return Err(Stop::Wrong(format!("a full disk ended the log: {why}")));
                }
            }
            if self.rng.random_bool(faults.outage / 50.0) {
                self.cold.be_out(self.rng.random_range(0..60_000_000));
            }
            if self.rng.random_bool(faults.damage / 50.0) {
                let lost = self.cold.damage();
                self.damage.borrow_mut().extend(lost);
            }
            if self.rng.random_bool(self.plan.time) {
                self.clock
                    .advance(self.rng.random_range(0..self.plan.time_us));
            }
            if self.rng.random_bool(0.002) {
                self.clock
                    .jump_wall(self.rng.random_range(-3_600_000..3_600_000));
            }
            if life.tasks.len() < self.plan.in_flight + life.tasks.count("wait")
                && self.rng.random_bool(0.6)
            {
                self.begin(life)?;
            } else {
                life.turn(self)?;
            }
            if step % 16 == 0 {
                self.check_bounds(life)?;
            }
        }
        self.disk.limit(None);
        if self.rng.random_bool(0.3) {
            self.trace.note(format_args!("orderly shutdown"));
            let kernel = life.kernel.clone();
            life.complete(self, "shutdown", async move { kernel.shutdown().await })?;
        }
        Ok(())
    }

    fn check_bounds(&self, life: &Life) -> Result<(), Stop> {
        let stats = life.kernel.stats();
        let config = &self.plan.config;
        if let Some(why) = self.cold.wrong() {
            return Err(Stop::Wrong(why));
        }
        if stats.fenced {
            return Err(Stop::Wrong(
                "it is fenced, and nobody else is there".to_owned(),
            ));
        }
        let room = config.wal_bytes + LARGEST_ENTRY as u64;
        if stats.wal_bytes_on_disk > room {
            return Err(Stop::Wrong(format!(
                "the WAL has {} bytes, the bound is {room}",
                stats.wal_bytes_on_disk
            )));
        }
        if stats.tail_bytes > config.tail_bytes as u64 {
            return Err(Stop::Wrong(format!(
                "the tail has {} bytes, the bound is {}",
                stats.tail_bytes, config.tail_bytes
            )));
        }
        // One entry may be larger than all the room there is.
        // What was taken and is held back comes on top, and an entry may be larger than all the room there is.
        let bound = config.queue_bytes + config.group_bytes + LARGEST_ENTRY;
        if stats.queued_entries > 1 && stats.queued_bytes > bound as u64 {
            return Err(Stop::Wrong(format!(
                "{} bytes wait, the bound is {}",
                stats.queued_bytes, bound
            )));
        }
        Ok(())
    }

    /// The process dies, or has died.
    fn end(&mut self, mut life: Life) -> Result<(), String> {
        // What was answered was answered, also when nobody looked yet.
        life.tasks.poll_all("write");
        life.tasks.poll_all("settle");
        if let Some(why) = life.problems.borrow().first() {
            return Err(why.clone());
        }
        drop(life);
        drop(self.spawner.take());
        self.restart();
        Ok(())
    }

    /// What the next process finds.
    fn restart(&mut self) {
        // Whether a log remembers a producer that was in memory depends on what it replays: another one comes in its place.
        let truth = self.truth.borrow();
        let is_volatile = |p: &PartitionId| truth.now.log(*p).is_some_and(|log| log.is_volatile);
        self.clients
            .retain(|client| !is_volatile(&client.partition));
        drop(truth);
        let seed = self.rng.random();
        if self.rng.random_bool(self.plan.faults.power_cut) {
            self.trace.note(format_args!("power cut"));
            self.power_cut = true;
            self.disk = self.disk.after_crash(seed);
        } else {
            self.trace.note(format_args!("killed"));
            // What a failed sync dropped from memory is as good as lost in a power cut.
            self.power_cut |= self.faulty;
            self.disk = self.disk.after_kill(seed);
        }
        self.clock.advance(self.rng.random_range(0..10_000_000));
    }
}
