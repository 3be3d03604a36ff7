//! The edge's store on the simulated disk: several lives of a process from one seed, with the power cut at any operation, and a model of
//! what was acknowledged.

mod core;
mod delayed;
mod disk;
mod ledger;
mod life;
mod model;
mod opened;
mod plan;

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use kernel::ports::Disk;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use store::Store;
use tokio::runtime::{Builder, Runtime};

use crate::disk::{SimDisk, SyncFailure};
use crate::trace::Trace;
use disk::EdgeDisk;
use ledger::{JOURNAL, JournalLedger};
use life::{Life, Stop};
use model::Model;
use plan::Plan;

/// The store's directory.
const DIRECTORY: &str = "edge/store";
/// The store comes up with this much room, or with its reserve.
const ENOUGH: u64 = 256 * 1024;

/// What a run leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Hash of the trace: the same for every run of the seed.
    pub trace: u64,
    pub lines: u64,
    /// How often the power was cut.
    pub cuts: u64,
    /// Messages that were acknowledged.
    pub acknowledged: u64,
}

/// Runs a seed; the error says what is wrong. With `print` the trace goes to the standard output.
pub fn run(seed: u64, print: bool) -> Result<Summary, String> {
    let mut edge = Edge::new(seed, print)?;
    for number in 0..edge.plan.lives {
        edge.trace.note(format_args!("life {number}"));
        let mut life = edge.open(true)?;
        match edge.work(&mut life) {
            Ok(()) | Err(Stop::Over) => edge.end(life)?,
            Err(Stop::Wrong(why)) => return Err(why),
        }
        edge.harm()?;
    }
    edge.trace.note(format_args!("last look"));
    edge.last_look()?;
    let (trace, lines) = edge.trace.digest();
    let model = edge.model.borrow();
    let stored = model.messages.values();
    let stored = stored.filter(|message| message.fate == model::Fate::Stored);
    Ok(Summary {
        trace,
        lines,
        cuts: edge.cuts,
        acknowledged: stored.count() as u64,
    })
}

/// Everything that outlives the process.
struct Edge {
    rng: StdRng,
    plan: Plan,
    trace: Trace,
    disk: SimDisk,
    model: Rc<RefCell<Model>>,
    runtime: Runtime,
    /// Milliseconds.
    now: i64,
    /// Names of messages that were given.
    named: u64,
    cuts: u64,
    /// Disk errors may come in this life.
    faulty: bool,
}

impl Edge {
    fn new(seed: u64, print: bool) -> Result<Edge, String> {
        let mut rng = StdRng::seed_from_u64(seed);
        let trace = Trace::new(print);
        let plan = Plan::draw(&mut rng);
        trace.note(format_args!("{plan:?}"));
        let disk = SimDisk::new(rng.random(), trace.clone());
        let made = disk.create_dir("edge").and_then(|()| disk.sync_dir(""));
        made.map_err(|error| error.to_string())?;
        let runtime = Builder::new_current_thread().build();
        Ok(Edge {
            model: Rc::new(RefCell::new(Model::new(&plan))),
            rng,
            plan,
            trace,
            disk,
            runtime: runtime.map_err(|error| error.to_string())?,
            now: 1_000_000,
            named: 0,
            cuts: 0,
            faulty: false,
        })
    }

    /// Opens what is there, with the faults of a life if `faults`, and compares it.
    fn open(&mut self, faults: bool) -> Result<Life, String> {
        loop {
            let must = self.draw_faults(faults);
            let opened = JournalLedger::open(&self.disk)
                .map_err(|error| error.to_string())
                .and_then(|ledger| {
                    let disk = Arc::new(EdgeDisk(self.disk.clone()));
                    let (ledger, dir) = (Arc::new(ledger), Path::new(DIRECTORY));
                    let opened = Store::open_stepped(disk, ledger, dir, self.plan.config());
                    opened.map_err(|error| error.to_string())
                });
            let result = match opened {
                Ok(store) => {
                    let life = Life::new(Arc::new(store));
                    self.look(&life).map(|()| life)
                }
                Err(error) => Err(Stop::Wrong(format!("the store does not open: {error}"))),
            };
            match result {
                Ok(mut life) if !self.disk.is_off() => {
                    life.begin(self.plan.lanes.len());
                    self.trace
                        .note(format_args!("open; gaps: {:?}", life.store.gaps().len()));
                    return Ok(life);
                }
                _ if self.disk.is_off() => self.cut(),
                Err(Stop::Wrong(why)) if must && !self.faulty => return Err(why),
                _ => {
                    // Once more, without what was in its way.
                    self.disk = self.disk.after_kill(self.rng.random());
                }
            }
        }
    }

    /// What goes wrong in this life. False: it may keep the store from opening.
    fn draw_faults(&mut self, faults: bool) -> bool {
        self.faulty = false;
        if !faults {
            return true;
        }
        let mut must = true;
        if self.plan.full && self.rng.random_bool(0.4) {
            let room = [0, 0, 10_000, 3_000_000][self.rng.random_range(0..4)];
            let room = self.rng.random_range(0..=room);
            self.disk.limit(Some(self.disk.used() + room));
            must = room > ENOUGH || self.has_reserve();
        }
        let most = u64::from(self.plan.steps) * 8;
        if self.rng.random_bool(0.85) {
            let operations = self.rng.random_range(0..=most);
            self.disk.crash_after(operations);
        }
        if self.plan.faults && self.rng.random_bool(0.4) {
            self.faulty = true;
            match self.rng.random_range(0..4) {
                0 => self.fail_syncs(SyncFailure::ForEver),
                1 => self.fail_syncs(SyncFailure::Once),
                2 => self.fail_syncs(SyncFailure::OnceAndForgets),
                _ => self.disk.fail_operation(self.rng.random_range(0..=most)),
            }
        }
        must
    }

    /// There is no room, and was none for a reserve.
    fn is_starved(&self) -> bool {
        !self.has_reserve() && self.disk.room() < ENOUGH
    }

    fn has_reserve(&self) -> bool {
        let names = self.disk.names(DIRECTORY);
        names.iter().any(|name| name.ends_with("/reserve"))
    }

    fn fail_syncs(&mut self, how: SyncFailure) {
        let syncs = u64::from(self.plan.steps);
        self.disk.fail_sync(self.rng.random_range(0..=syncs), how);
        // What was read after it may not be on the platter, and no later sync tells.
        let mut model = self.model.borrow_mut();
        model.ledger_lost = true;
        for lane in &mut model.lanes {
            lane.damaged = true;
        }
    }

    /// The power went.
    fn cut(&mut self) {
        self.cuts += 1;
        self.disk = self.disk.after_crash(self.rng.random());
    }

    /// Ends a life in one way or another.
    fn end(&mut self, mut life: Life) -> Result<(), String> {
        let kind = self.rng.random_range(0..5);
        if !self.disk.is_off() && kind == 0 {
            self.trace.note(format_args!("it is stopped"));
            life.store.close();
            while life.tasks.poll_any(&mut self.rng).is_some() {}
            // A store that is closed refuses what comes of these answers.
            self.model.borrow_mut().failure = None;
        }
        let is_off = self.disk.is_off();
        // Nothing more gets there whole.
        self.disk.crash_after(0);
        drop(life);
        if is_off || kind > 1 {
            self.cut();
        } else {
            self.disk = self.disk.after_kill(self.rng.random());
        }
        match self.model.borrow_mut().wrong.take() {
            Some(why) => Err(why),
            None => Ok(()),
        }
    }

    /// What happens to a disk at rest.
    fn harm(&mut self) -> Result<(), String> {
        if !self.plan.damage || self.rng.random_bool(0.7) {
            return Ok(());
        }
        let mut model = self.model.borrow_mut();
        if self.rng.random_bool(0.2) {
            self.trace.note(format_args!("the ledger is lost"));
            model.ledger_lost = true;
            if !self.disk.names("edge/ledger").is_empty() {
                self.disk.damage(JOURNAL, Vec::clear);
            }
            return Ok(());
        }
        let number = self.rng.random_range(0..self.plan.lanes.len());
        let directory = format!("{DIRECTORY}/outbox/{}", self.plan.lanes[number].name);
        let mut paths = self.disk.names(&directory);
        paths.retain(|path| path.ends_with(".seg"));
        // Damage to the last write looks like a write that the power cut has torn.
        paths.pop();
        if paths.is_empty() {
            return Ok(());
        }
        let path = paths.swap_remove(self.rng.random_range(0..paths.len()));
        model.lanes[number].damaged = true;
        // What the ledger had not got yet was only in there.
        model.ledger_lost = true;
        let len = self.disk.bytes(&path).len();
        let at = self.rng.random_range(0..len.max(1));
        match self.rng.random_range(0..4) {
            0 => {
                self.trace.note(format_args!("{path} is lost"));
                let gone = self.disk.remove(&path);
                gone.and_then(|()| self.disk.sync_dir(&directory))
                    .map_err(|error| error.to_string())?;
            }
            1 => {
                self.trace.note(format_args!("{path} is cut off at {at}"));
                self.disk.damage(&path, |bytes| bytes.truncate(at));
            }
            _ => {
                self.trace
                    .note(format_args!("a bit of {path} flips at {at}"));
                self.disk.damage(&path, |bytes| {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 4;
                    }
                });
            }
        }
        Ok(())
    }

    /// The core takes all there is of a lane, and what it has dropped is counted without another message.
    fn drain_idle(&mut self, life: &mut Life, lane: usize) -> Result<(), String> {
        let drained = self
            .drain_all(life, lane)
            .and_then(|()| {
                self.count(life, lane);
                // No task has this number: until nobody has anything to do.
                self.settle(life, 0)
            })
            .and_then(|()| self.drain_all(life, lane));
        match drained {
            Err(Stop::Wrong(why)) => Err(why),
            _ => Ok(()),
        }
    }

    /// On a disk that is well: the core takes all there is, the store takes new messages, and nothing is missing that nobody said.
    fn last_look(&mut self) -> Result<(), String> {
        let mut life = self.open(false)?;
        for lane in 0..self.plan.lanes.len() {
            self.drain_idle(&mut life, lane)?;
        }
        self.model.borrow().check_drained()?;
        for lane in 0..self.plan.lanes.len() {
            self.must_take(&mut life, lane)?;
            self.drain_idle(&mut life, lane)?;
        }
        self.model.borrow().check_drained()?;
        let left = life.store.gaps();
        if !left.is_empty() {
            return Err(format!("the core knows all, and there are gaps: {left:?}"));
        }
        Ok(())
    }
}
