//! One run: where it writes, how much, and what came out.

use std::path::Path;

use anyhow::Result;

use crate::figure::Figure;
use crate::scratch::Scratch;

/// What a measurement works with.
pub struct Run {
    /// Where it writes.
    pub scratch: Scratch,
    /// Less data, fewer turns.
    pub quick: bool,
    /// For what waits.
    pub runtime: tokio::runtime::Runtime,
    /// What came out so far.
    pub figures: Vec<Figure>,
}

impl Run {
    /// A run below `dir`.
    pub fn new(dir: &Path, quick: bool) -> Result<Run> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(std::thread::available_parallelism().map_or(2, usize::from))
            .enable_all()
            .build()?;
        Ok(Run {
            scratch: Scratch::new(dir)?,
            quick,
            runtime,
            figures: Vec::new(),
        })
    }

    /// The one or the other number.
    pub fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Adds a figure.
    pub fn add(&mut self, figure: Figure) {
        self.figures.push(figure);
    }
}
