//! The crash simulator: the whole kernel on a simulated disk, clock and cold store, on one thread, from one seed, with a plain model
//! beside it that says what must be there afterwards. See `README.md`.

pub mod batches;
pub mod clock;
pub mod cold;
pub mod disk;
pub mod edge;
mod model;
mod run;
pub mod spawner;
pub mod stepped;
mod tasks;
pub mod trace;

pub use run::{Summary, run};
