//! One life of the process: a kernel, its writer, and everything in flight.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use kernel::{Kernel, PartitionId, Queue, QueueName, Stepper};
use rand::{RngExt, rngs::StdRng};

use super::Sim;
use crate::tasks::Tasks;

/// Why a life does not go on.
#[derive(Debug)]
pub enum Stop {
    /// The power went.
    Off,
    /// Something is not as it should be.
    Wrong(String),
}

impl From<String> for Stop {
    fn from(why: String) -> Stop {
        Stop::Wrong(why)
    }
}

/// What tasks report that is wrong.
pub type Problems = Rc<RefCell<Vec<String>>>;

/// Rounds without any progress after which a life stands still, and what time passes in each, in microseconds.
const PATIENCE: u32 = 2000;
const ROUND_US: u64 = 100_000;

/// See the module.
pub struct Life {
    pub tasks: Tasks,
    pub problems: Problems,
    pub queues: Vec<(QueueName, Arc<Queue>)>,
    /// Who waits for a partition to grow past an offset.
    pub waits: Vec<(u64, PartitionId, i64)>,
    pub kernel: Kernel,
    pub stepper: Stepper,
}

impl Life {
    pub fn new(kernel: Kernel, stepper: Stepper) -> Life {
        Life {
            tasks: Tasks::default(),
            problems: Problems::default(),
            queues: Vec::new(),
            waits: Vec::new(),
            kernel,
            stepper,
        }
    }

    /// The first thing that a task found wrong.
    pub fn check(&self) -> Result<(), Stop> {
        match self.problems.borrow().first() {
            Some(why) => Err(Stop::Wrong(why.clone())),
            None => Ok(()),
        }
    }

    /// Something moves: the writer, or a task; false when nothing can.
    pub fn turn(&mut self, sim: &mut Sim) -> Result<bool, Stop> {
        for task in sim.spawner.take() {
            self.tasks.spawn("background", task);
        }
        let writer_first = sim.rng.random_bool(0.4);
        let mut moved = writer_first && self.step(sim);
        if !moved && let Some(label) = self.tasks.poll_any(&mut sim.rng) {
            sim.trace.note(format_args!("poll {label}"));
            moved = true;
        }
        if !moved && !writer_first {
            moved = self.step(sim);
        }
        self.check()?;
        if sim.disk.is_off() {
            return Err(Stop::Off);
        }
        Ok(moved)
    }

    fn step(&mut self, sim: &mut Sim) -> bool {
        let before = sim.disk.last_synced();
        let moved = self.stepper.step();
        let after = sim.disk.last_synced();
        if after != before
            && after
                .as_ref()
                .is_some_and(|(path, _)| path.starts_with("wal/"))
        {
            sim.last_group = after;
        }
        moved
    }

    /// Goes on until a task is done.
    pub fn finish(&mut self, sim: &mut Sim, task: u64) -> Result<(), Stop> {
        let mut idle = 0;
        while self.tasks.is_running(task) {
            if self.turn(sim)? {
                idle = 0;
            } else {
                idle = self.pass_time(sim, idle)?;
            }
        }
        Ok(())
    }

    /// Runs a future to its end.
    pub fn complete<T: 'static>(
        &mut self,
        sim: &mut Sim,
        label: &'static str,
        future: impl Future<Output = T> + 'static,
    ) -> Result<T, Stop> {
        let result = Rc::new(RefCell::new(None));
        let place = result.clone();
        let task = self.tasks.spawn(label, async move {
            let output = future.await;
            *place.borrow_mut() = Some(output);
        });
        self.finish(sim, task)?;
        let output = result.borrow_mut().take();
        output.ok_or_else(|| Stop::Wrong(format!("{label} ended without a result")))
    }

    /// Goes on until nothing moves any more and only those are left who wait for something to come.
    pub fn settle_down(&mut self, sim: &mut Sim) -> Result<(), Stop> {
        let mut idle = 0;
        loop {
            while self.turn(sim)? {
                idle = 0;
            }
            if self.tasks.len() == self.tasks.count("wait") {
                return self.check_waits(sim);
            }
            idle = self.pass_time(sim, idle)?;
        }
    }

    fn pass_time(&mut self, sim: &mut Sim, idle: u32) -> Result<u32, Stop> {
        if idle > PATIENCE {
            return Err(Stop::Wrong(format!(
                "it stands still; in flight: {:?}",
                self.tasks.labels()
            )));
        }
        sim.clock
            .advance(sim.clock.next_deadline().unwrap_or(ROUND_US).max(1));
        Ok(idle + 1)
    }

    /// Nobody waits for what is there already.
    fn check_waits(&mut self, sim: &Sim) -> Result<(), Stop> {
        let tasks = &self.tasks;
        self.waits.retain(|(task, _, _)| tasks.is_running(*task));
        let truth = sim.truth.borrow();
        for (_, partition, offset) in &self.waits {
            let log = truth.now.log(*partition);
            if log.is_some_and(|log| log.jumps) {
                // What made it grow may be gone from memory already.
                continue;
            }
            let end = log.map(|log| log.end);
            if end.is_none_or(|end| end > *offset) {
                return Err(Stop::Wrong(format!(
                    "somebody waits for {partition} past {offset}, its end is {end:?}"
                )));
            }
        }
        Ok(())
    }

    /// Something to be done to any queue.
    pub fn any_queue(&self, rng: &mut StdRng) -> Option<(QueueName, Arc<Queue>)> {
        if self.queues.is_empty() {
            return None;
        }
        Some(self.queues[rng.random_range(0..self.queues.len())].clone())
    }
}
