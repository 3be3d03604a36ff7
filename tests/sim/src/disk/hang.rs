//! Operations that do not come back until somebody says so: for tests in which the writer has a thread of its own.

use parking_lot::{Condvar, Mutex};

/// What does not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hang {
    /// Writes, of which nothing is there yet.
    Write,
    /// Syncs: what was written is there, and not durable.
    Sync,
}

#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    closed: Option<Hang>,
    waiting: usize,
}

impl Gate {
    pub fn close(&self, what: Hang) {
        self.state.lock().closed = Some(what);
    }

    pub fn open(&self) {
        self.state.lock().closed = None;
        self.changed.notify_all();
    }

    pub fn wait_for_one(&self) {
        let mut state = self.state.lock();
        while state.waiting == 0 {
            self.changed.wait(&mut state);
        }
    }

    /// Holds an operation for as long as its kind hangs.
    pub fn pass(&self, what: Hang) {
        let mut state = self.state.lock();
        if state.closed != Some(what) {
            return;
        }
        state.waiting += 1;
        self.changed.notify_all();
        while state.closed == Some(what) {
            self.changed.wait(&mut state);
        }
        state.waiting -= 1;
    }
}
