//! Entries on their way to the writer, in the order in which they were handed over.

use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::frame::Format;
use crate::entry::{Command, Outcome};
use crate::entry_codec::Encoded;
use crate::error::WriteError;

/// Bytes of a frame that are not its body.
const HEADER: usize = Format::V3 { salt: 0 }.header_len();

/// About what the channel of an answer takes, in bytes.
const ANSWER: usize = 128;

/// What a batch takes at least, in bytes: a [`record::BatchBuilder`] begins with that.
const BATCH: usize = 1024;

/// Entries that are written together.
#[derive(Default)]
pub(crate) struct Group {
    pub entries: Vec<Pending>,
    /// They make room, or must not wait for it.
    pub urgent: bool,
}

/// An entry that waits.
pub(crate) struct Pending {
    /// It makes room, or must not wait for it.
    pub urgent: bool,
    pub commands: Vec<Command>,
    pub encoded: Encoded,
    pub done: oneshot::Sender<Result<Vec<Outcome>, WriteError>>,
}

impl Pending {
    /// About what it takes of memory: small entries are more beside their bytes than these.
    fn bytes(&self) -> usize {
        let commands = self.commands.len() * size_of::<Command>();
        let batches = self.commands.iter().filter_map(Command::batch);
        let unused: usize = batches.map(|b| BATCH.saturating_sub(b.len())).sum();
        size_of::<Pending>() + ANSWER + commands + self.encoded.len + unused
    }
}

enum Door {
    Open,
    /// Takes nothing more; what is in it is still written.
    Closing,
    Failed(String),
}

struct Inner {
    entries: VecDeque<Pending>,
    /// How many of them are urgent.
    urgent: usize,
    bytes: usize,
    door: Door,
    /// Something for the writer to do besides entries.
    nudged: bool,
    /// What was written without a sync shall be synced.
    sync_asked: bool,
}

impl Inner {
    /// Takes out what is urgent, or what is not.
    fn split(&mut self, urgent: bool) -> Vec<Pending> {
        let entries = std::mem::take(&mut self.entries).into_iter();
        let (taken, left): (Vec<_>, Vec<_>) = entries.partition(|p| p.urgent == urgent);
        self.entries = left.into();
        taken
    }
}

pub(crate) struct Intake {
    inner: Mutex<Inner>,
    arrived: Condvar,
    /// Entries that ever came.
    arrivals: AtomicU64,
    /// Since when the writer is at work on what it took, in microseconds of the clock's stop watch, plus one; 0 when it is not.
    busy_since: AtomicU64,
    /// It has been for too long: nothing more is taken until it is done.
    stalled: AtomicBool,
    limit: usize,
}

impl Intake {
    pub fn new(limit: usize) -> Intake {
        let inner = Inner {
            entries: VecDeque::new(),
            urgent: 0,
            bytes: 0,
            door: Door::Open,
            nudged: false,
            sync_asked: false,
        };
        Intake {
            inner: Mutex::new(inner),
            arrived: Condvar::new(),
            arrivals: AtomicU64::new(0),
            busy_since: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
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
        // An entry larger than all the room there is may pass when it is alone; of urgent ones there are few.
        let bytes = pending.bytes();
        let fits = inner.bytes + bytes <= self.limit || inner.entries.is_empty();
        if !pending.urgent && (!fits || self.stalled.load(Ordering::SeqCst)) {
            return Err(WriteError::Full);
        }
        inner.bytes += bytes;
        inner.urgent += usize::from(pending.urgent);
        inner.entries.push_back(pending);
        drop(inner);
        self.arrivals.fetch_add(1, Ordering::Relaxed);
        self.arrived.notify_one();
        Ok(())
    }

    /// Takes the next entries into an empty group: at least one if there is one, up to `max_bytes` as frames, all of them urgent or none. While
    /// the others are held back, the urgent ones pass them by.
    pub fn drain(&self, max_bytes: usize, held: bool, group: &mut Group) {
        let mut inner = self.inner.lock();
        let (mut taken, mut framed) = (0, 0);
        if held {
            if inner.urgent > 0 {
                group.entries = inner.split(true);
                taken = group.entries.iter().map(Pending::bytes).sum();
            }
        } else {
            while let Some(next) = inner.entries.front() {
                let bytes = framed + next.encoded.len + HEADER;
                let other = group
                    .entries
                    .last()
                    .is_some_and(|l| l.urgent != next.urgent);
                if other || bytes > max_bytes && !group.entries.is_empty() {
                    break;
                }
                framed = bytes;
                taken += next.bytes();
                group.entries.extend(inner.entries.pop_front());
            }
        }
        group.urgent = group.entries.first().is_some_and(|p| p.urgent);
        if group.urgent {
            inner.urgent -= group.entries.len();
        }
        inner.bytes = inner.bytes.saturating_sub(taken);
    }

    /// The writer goes to work, and may wait for the device.
    pub fn begin_work(&self, now_us: u64) {
        self.busy_since.store(now_us + 1, Ordering::SeqCst);
    }

    /// The device has answered.
    pub fn end_work(&self) {
        self.busy_since.store(0, Ordering::SeqCst);
        if self.stalled.swap(false, Ordering::SeqCst) {
            tracing::info!("the disk of the log answers again");
        }
    }

    /// How long the writer is at work already, in microseconds; 0 when it is not.
    pub fn busy_us(&self, now_us: u64) -> u64 {
        match self.busy_since.load(Ordering::SeqCst) {
            0 => 0,
            since => (now_us + 1).saturating_sub(since),
        }
    }

    /// If the writer is at work for at least so long, takes out what waits behind it, to be refused, and lets nothing in until it is done.
    pub fn stall(&self, now_us: u64, longest_us: u64) -> Option<Vec<Pending>> {
        let since = self.busy_since.load(Ordering::SeqCst);
        if since == 0 || (now_us + 1).saturating_sub(since) < longest_us {
            return None;
        }
        let already = self.stalled.swap(true, Ordering::SeqCst);
        // It may be done just now, and has looked before this was said.
        if self.busy_since.load(Ordering::SeqCst) != since {
            self.stalled.store(false, Ordering::SeqCst);
            return None;
        }
        if !already {
            tracing::error!(
                seconds = (now_us + 1 - since) / 1_000_000,
                "the disk does not answer; writes are refused until it does"
            );
        }
        Some(self.take_all())
    }

    /// How many entries ever came.
    pub fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::Relaxed)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.inner.lock().entries.is_empty()
    }

    /// Gives back what was drained and must wait, none of it urgent: it goes before what waits.
    pub fn put_back(&self, entries: impl DoubleEndedIterator<Item = Pending>) {
        let mut inner = self.inner.lock();
        for pending in entries.rev() {
            inner.bytes += pending.bytes();
            inner.entries.push_front(pending);
        }
    }

    /// Takes everything that waits, the urgent aside.
    pub fn take_all(&self) -> Vec<Pending> {
        let mut inner = self.inner.lock();
        let taken = inner.split(false);
        inner.bytes = inner.entries.iter().map(Pending::bytes).sum();
        taken
    }

    /// Sleeps until there is something for the writer; false when it is closed and empty. With `held`, entries that are not urgent are
    /// nothing for it, and it sleeps no longer than that.
    pub fn wait(&self, held: Option<Duration>) -> bool {
        let mut inner = self.inner.lock();
        loop {
            let open = matches!(inner.door, Door::Open);
            let passes = held.is_none() || inner.urgent > 0 || !open;
            if !inner.entries.is_empty() && passes || inner.nudged {
                inner.nudged = false;
                return true;
            }
            if !open {
                return false;
            }
            match held {
                None => self.arrived.wait(&mut inner),
                Some(longest) => {
                    if self.arrived.wait_for(&mut inner, longest).timed_out() {
                        return true;
                    }
                }
            }
        }
    }

    /// Asks the writer to sync what it wrote without.
    pub fn ask_sync(&self) {
        let mut inner = self.inner.lock();
        inner.sync_asked = true;
        inner.nudged = true;
        drop(inner);
        self.arrived.notify_one();
    }

    /// Whether that was asked since it was last looked at.
    pub fn take_sync_asked(&self) -> bool {
        std::mem::take(&mut self.inner.lock().sync_asked)
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
        inner.urgent = 0;
        drop(inner);
        for pending in entries {
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
