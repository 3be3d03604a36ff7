//! Entries on their way to the writer, in the order in which they were handed over.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::entry::{Command, Outcome};
use crate::entry_codec::Encoded;
use crate::error::WriteError;

/// An entry that waits.
pub(crate) struct Pending {
    pub commands: Vec<Command>,
    pub encoded: Encoded,
    pub done: oneshot::Sender<Result<Vec<Outcome>, WriteError>>,
}

enum Door {
    Open,
    /// Takes nothing more; what is in it is still written.
    Closing,
    Failed(String),
}

struct Inner {
    entries: VecDeque<Pending>,
    /// What makes room, or must not wait for it: goes before all others.
    urgent: VecDeque<Pending>,
    bytes: usize,
    door: Door,
    /// Something for the writer to do besides entries.
    nudged: bool,
}

pub(crate) struct Intake {
    inner: Mutex<Inner>,
    arrived: Condvar,
    limit: usize,
}

impl Intake {
    pub fn new(limit: usize) -> Intake {
        let inner = Inner {
            entries: VecDeque::new(),
            urgent: VecDeque::new(),
            bytes: 0,
            door: Door::Open,
            nudged: false,
        };
        Intake {
            inner: Mutex::new(inner),
            arrived: Condvar::new(),
            limit,
        }
    }

    pub fn push(&self, pending: Pending) -> Result<(), WriteError> {
        let mut inner = self.inner.lock();
        match &inner.door {
            Door::Open => {}
            Door::Closing => return Err(WriteError::Closed),
            Door::Failed(reason) => return Err(WriteError::Failed(reason.clone())),
        }
        // An entry larger than all the room there is may pass when it is alone.
        if inner.bytes + pending.encoded.len > self.limit && !inner.entries.is_empty() {
            return Err(WriteError::Full);
        }
        inner.bytes += pending.encoded.len;
        inner.entries.push_back(pending);
        drop(inner);
        self.arrived.notify_one();
        Ok(())
    }

    /// Takes an entry that goes before the others, and is not counted: there are few, of the kernel's own making.
    pub fn push_urgent(&self, pending: Pending) -> Result<(), WriteError> {
        let mut inner = self.inner.lock();
        match &inner.door {
            Door::Open => {}
            Door::Closing => return Err(WriteError::Closed),
            Door::Failed(reason) => return Err(WriteError::Failed(reason.clone())),
        }
        inner.urgent.push_back(pending);
        drop(inner);
        self.arrived.notify_one();
        Ok(())
    }

    /// Takes the next entries: the urgent ones if there are any; else at least one if there is one, up to `max_bytes`.
    pub fn drain(&self, max_bytes: usize) -> Vec<Pending> {
        let mut inner = self.inner.lock();
        if !inner.urgent.is_empty() {
            return std::mem::take(&mut inner.urgent).into();
        }
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(next) = inner.entries.front() {
            bytes += next.encoded.len;
            if bytes > max_bytes && !group.is_empty() {
                break;
            }
            inner.bytes = inner.bytes.saturating_sub(next.encoded.len);
            group.extend(inner.entries.pop_front());
        }
        group
    }

    /// Sleeps until there is something for the writer; false when it is closed and empty.
    pub fn wait(&self) -> bool {
        let mut inner = self.inner.lock();
        loop {
            if !inner.entries.is_empty() || !inner.urgent.is_empty() || inner.nudged {
                inner.nudged = false;
                return true;
            }
            if !matches!(inner.door, Door::Open) {
                return false;
            }
            self.arrived.wait(&mut inner);
        }
    }

    /// Wakes the writer for something other than an entry.
    pub fn nudge(&self) {
        self.inner.lock().nudged = true;
        self.arrived.notify_one();
    }

    pub fn close(&self) {
        let mut inner = self.inner.lock();
        if matches!(inner.door, Door::Open) {
            inner.door = Door::Closing;
        }
        drop(inner);
        self.arrived.notify_one();
    }

    /// Refuses everything, for ever: what waits and what comes.
    pub fn fail(&self, reason: &str) {
        let mut inner = self.inner.lock();
        inner.door = Door::Failed(reason.to_owned());
        inner.bytes = 0;
        let entries = std::mem::take(&mut inner.entries);
        let urgent = std::mem::take(&mut inner.urgent);
        drop(inner);
        for pending in urgent.into_iter().chain(entries) {
            // The caller may have left.
            let _ = pending
                .done
                .send(Err(WriteError::Failed(reason.to_owned())));
        }
    }

    pub fn failure(&self) -> Option<String> {
        match &self.inner.lock().door {
            Door::Failed(reason) => Some(reason.clone()),
            Door::Open | Door::Closing => None,
        }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.inner.lock().door, Door::Open)
    }

    /// Entries and bytes that wait.
    pub fn depth(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.entries.len(), inner.bytes)
    }
}
