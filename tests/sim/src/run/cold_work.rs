//! Work on the cold tier.

use kernel::{
    CLEANUP_POLICY, ColdTierError, DELETE_RETENTION_MS, MIN_CLEANABLE_DIRTY_RATIO,
    MIN_COMPACTION_LAG_MS,
};
use rand::{RngExt, rngs::StdRng};

use super::Sim;
use super::life::{Life, Stop};
use super::plan::{Work, pick};
use crate::model::compaction::FOR_EVER_MS;

/// Calls of one kind in flight at a time: more than one, since nobody forbids it.
const AT_A_TIME: usize = 2;

/// Begins something that loops of the server do.
pub fn begin(sim: &mut Sim, life: &mut Life, work: Work) {
    let label = match work {
        Work::Seal => "seal",
        Work::SealAll => "seal all",
        Work::Tend => "tend",
        _ => "rewrite",
    };
    if life.tasks.count(label) >= AT_A_TIME {
        return;
    }
    let kernel = life.kernel.clone();
    let (problems, trace) = (life.problems.clone(), sim.trace.clone());
    life.tasks.spawn(label, async move {
        let done = match work {
            Work::Seal => kernel.seal().await.map(|_| ()),
            Work::SealAll => kernel.seal_all().await,
            Work::Tend => kernel.tend_cold().await,
            _ => kernel.rewrite().await.map(|_| ()),
        };
        trace.note(format_args!("{label}: {}", done.is_ok()));
        if done == Err(ColdTierError::Fenced) {
            let why = format!("{label} says that somebody else owns the store");
            problems.borrow_mut().push(why);
        }
    });
}

/// Nothing is in flight, and nothing fails: everything can be sealed. True if it was.
pub fn at_rest(sim: &mut Sim, life: &mut Life) -> Result<bool, Stop> {
    if sim.rng.random_bool(0.7) {
        return Ok(false);
    }
    let kernel = life.kernel.clone();
    let sealed = life.complete(sim, "seal all", async move { kernel.seal_all().await })?;
    sim.trace
        .note(format_args!("sealed at rest: {}", sealed.is_ok()));
    let left = life.kernel.stats().unsealed_bytes;
    match sealed {
        Ok(()) if left > 0 => {
            let why = format!("everything was sealed, and {left} bytes are left");
            Err(Stop::Wrong(why))
        }
        Err(error @ (ColdTierError::Fenced | ColdTierError::Store(_))) => {
            let why = format!("the cold store is well, and sealing says: {error}");
            Err(Stop::Wrong(why))
        }
        sealed => Ok(sealed.is_ok()),
    }
}

/// Settings of a stream that keeps the newest record of each key.
pub fn compaction(rng: &mut StdRng) -> Vec<(String, String)> {
    let settings = [
        (CLEANUP_POLICY, *pick(rng, &["compact", "compact,delete"])),
        (MIN_CLEANABLE_DIRTY_RATIO, *pick(rng, &["0", "0.5"])),
        (MIN_COMPACTION_LAG_MS, *pick(rng, &["0", "0", "5000"])),
    ];
    let deletions_ms = *pick(rng, &[0, 30_000, FOR_EVER_MS]);
    let mut settings: Vec<_> = settings
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    settings.push((DELETE_RETENTION_MS.to_owned(), deletions_ms.to_string()));
    settings
}

impl Sim {
    /// Whether requests to the cold store may fail.
    pub fn cold_fails(&self) -> bool {
        self.plan.cold.error > 0.0 || self.plan.faults.outage > 0.0
    }
}
