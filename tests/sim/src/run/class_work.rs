//! Streams that come to promise more, or less.

use std::collections::BTreeMap;

use kernel::{Command, DURABILITY};
use rand::{RngExt, rngs::StdRng};

use super::Sim;
use super::life::{Life, Stop};
use super::plan::{Plan, pick};

/// A durability for a new stream.
pub fn draw(plan: &Plan, rng: &mut StdRng) -> Option<&'static str> {
    if rng.random_bool(plan.volatile_streams) {
        Some("memory")
    } else if rng.random_bool(plan.weak_streams) {
        Some("quorum")
    } else {
        None
    }
}

fn set(config: &mut BTreeMap<String, String>, durability: Option<&str>) {
    match durability {
        Some(durability) => {
            config.insert(DURABILITY.to_owned(), durability.to_owned());
        }
        None => {
            config.remove(DURABILITY);
        }
    }
}

/// Changes the durability of a stream while nothing else is on its way to it: what is on its way may be treated as before or as after.
pub fn switch(sim: &mut Sim, life: &mut Life) -> Result<(), Stop> {
    let Some(stream) = sim.stream() else {
        return Ok(());
    };
    life.settle_down(sim)?;
    let Some(mut config) = ({
        let truth = sim.truth.borrow();
        truth.now.streams.get(&stream).map(|s| s.config.clone())
    }) else {
        return Ok(());
    };
    let durability = *pick(&mut sim.rng, &[None, Some("quorum"), Some("memory")]);
    if durability == Some("memory") && sim.plan.volatile_streams == 0.0 {
        return Ok(());
    }
    set(&mut config, durability);
    sim.write(life, vec![Command::AlterStream { stream, config }]);
    life.settle_down(sim)
}

/// A new configuration does not change a class from or to `memory` beside other work.
pub fn keep(old: &BTreeMap<String, String>, new: &mut BTreeMap<String, String>) {
    let is_memory = |config: &BTreeMap<String, String>| {
        let class = config.get(DURABILITY);
        class.is_some_and(|class| class == "memory")
    };
    if is_memory(old) || is_memory(new) {
        set(new, old.get(DURABILITY).map(String::as_str));
    }
}
