//! What happened, in order: a hash of it always, the text of it when `SIM_TRACE=1`. Two runs of one seed must have the same hash.

use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

use parking_lot::Mutex;

/// A shared trace; clones write to the same one.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    /// Its keys are fixed, so the hash is the same in every process.
    hasher: std::collections::hash_map::DefaultHasher,
    lines: u64,
    print: bool,
}

impl Default for Trace {
    fn default() -> Self {
        Trace::new(false)
    }
}

impl Trace {
    /// A trace that prints what it is told when asked to.
    pub fn new(print: bool) -> Trace {
        Trace(Arc::new(Mutex::new(Inner {
            hasher: Default::default(),
            lines: 0,
            print,
        })))
    }

    /// Adds a line. What differs between runs (random identities, addresses) must not be in it.
    pub fn note(&self, line: fmt::Arguments<'_>) {
        let text = line.to_string();
        let mut inner = self.0.lock();
        inner.hasher.write(text.as_bytes());
        inner.lines += 1;
        if inner.print {
            println!("{:7} {text}", inner.lines);
        }
    }

    /// Adds a line for people alone: it is not in the hash.
    pub fn detail(&self, line: fmt::Arguments<'_>) {
        if self.0.lock().print {
            println!("        {line}");
        }
    }

    /// Hash and number of the lines so far.
    pub fn digest(&self) -> (u64, u64) {
        let inner = self.0.lock();
        (inner.hasher.finish(), inner.lines)
    }
}
