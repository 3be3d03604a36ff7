//! Where the hub puts what a connection is to get. Bounded: one that does not empty its mailbox costs this much and nothing else.

use crate::backend::{FeedId, Position};
use crate::limits;
use futures_util::task::AtomicWaker;
use mqtt_session::SharedMessage;
use parking_lot::Mutex;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll};
use tokio::sync::Notify;

/// A message at its place in a feed, as a follower gives it to many.
pub(crate) type Placed = (Position, Arc<SharedMessage>);

#[derive(Debug)]
pub(crate) struct Letter {
    pub feed: FeedId,
    pub at: Position,
    /// `None` = the connection was detached: all below this position that is for it came before, from here on it reads by itself.
    pub message: Option<Arc<SharedMessage>>,
}

#[derive(Debug, Default)]
struct Inside {
    letters: Vec<Letter>,
    bytes: usize,
    lost: u64,
    /// The positions have moved although nothing matched.
    progress: bool,
    /// Followers that wait for room.
    waiting: Vec<Arc<Notify>>,
}

impl Inside {
    fn notify(&mut self) {
        for follower in self.waiting.drain(..) {
            follower.notify_one();
        }
    }
}

/// What was in a mailbox.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    pub letters: Vec<Letter>,
    pub lost: u64,
    pub progress: bool,
}

/// Why not everything was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The owner is about to take it out.
    ForNow,
    /// The owner waits for its client.
    Blocked,
}

#[derive(Debug)]
pub(crate) struct Mailbox {
    id: u64,
    inside: Mutex<Inside>,
    /// Something is inside that the owner has not been told of.
    ready: AtomicBool,
    owner: AtomicWaker,
    /// Why the owner waits for its client and not for a processor: [`SOCKET`], [`WINDOW`].
    blocked: AtomicU8,
}

/// The client's socket takes nothing.
pub(crate) const SOCKET: u8 = 1;
/// The client has as many unacknowledged messages as it may.
pub(crate) const WINDOW: u8 = 2;

impl Mailbox {
    pub fn new(id: u64) -> Mailbox {
        Mailbox {
            id,
            inside: Mutex::default(),
            ready: AtomicBool::new(false),
            owner: AtomicWaker::new(),
            blocked: AtomicU8::new(0),
        }
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    fn wake(&self) {
        if !self.ready.swap(true, Ordering::AcqRel) {
            self.owner.wake();
        }
    }

    /// Moves messages in from the front of `pending`, as far as there is room. With `waiting`, that is notified when there is room again, or
    /// when the owner is blocked.
    pub fn put(
        &self,
        feed: FeedId,
        pending: &mut Vec<Placed>,
        waiting: Option<&Arc<Notify>>,
    ) -> Result<(), Full> {
        let mut inside = self.inside.lock();
        let mut room = limits::MAILBOX_BYTES.saturating_sub(inside.bytes);
        let mut free = limits::MAILBOX_MESSAGES.saturating_sub(inside.letters.len());
        let fitting = pending.iter().take_while(|(_, message)| {
            let fits = room > 0 && free > 0;
            room = room.saturating_sub(cost(message));
            free = free.saturating_sub(1);
            fits
        });
        let fitting = fitting.count();
        let all = fitting == pending.len();
        for (at, message) in pending.drain(..fitting) {
            inside.bytes += cost(&message);
            inside.letters.push(Letter {
                feed,
                at,
                message: Some(message),
            });
        }
        // Under the lock: who becomes blocked after this notifies those who wait.
        let blocked = self.blocked.load(Ordering::Acquire) != 0;
        let result = match (all, blocked) {
            (true, _) => Ok(()),
            (false, true) => Err(Full::Blocked),
            (false, false) => {
                // It asks again whenever another mailbox has room, and is told once.
                let told = |one: &Arc<Notify>| inside.waiting.iter().any(|w| Arc::ptr_eq(w, one));
                let new = waiting.filter(|one| !told(one)).cloned();
                inside.waiting.extend(new);
                Err(Full::ForNow)
            }
        };
        drop(inside);
        if fitting > 0 {
            self.wake();
        }
        result
    }

    /// Always has room: once for each time that the owner was attached.
    pub fn put_detached(&self, feed: FeedId, at: Position) {
        self.inside.lock().letters.push(Letter {
            feed,
            at,
            message: None,
        });
        self.wake();
    }

    pub fn put_lost(&self, count: u64) {
        self.inside.lock().lost += count;
        self.wake();
    }

    /// Tells the owner to look how far the followers are.
    pub fn put_progress(&self) {
        self.inside.lock().progress = true;
        self.wake();
    }

    /// Does the owner wait for its client, for this reason? Then nobody waits for the owner.
    pub fn set_blocked(&self, why: u8, blocked: bool) {
        if blocked {
            if self.blocked.fetch_or(why, Ordering::AcqRel) == 0 {
                self.inside.lock().notify();
            }
        } else if self.blocked.load(Ordering::Relaxed) & why != 0 {
            self.blocked.fetch_and(!why, Ordering::AcqRel);
        }
    }

    /// For the owner only.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ready.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.owner.register(cx.waker());
        if self.ready.load(Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Takes everything out.
    pub fn take(&self) -> Mail {
        // Before the lock: what is put after we looked makes it ready again.
        self.ready.store(false, Ordering::Release);
        let mut inside = self.inside.lock();
        inside.bytes = 0;
        inside.notify();
        Mail {
            letters: std::mem::take(&mut inside.letters),
            lost: std::mem::take(&mut inside.lost),
            progress: std::mem::take(&mut inside.progress),
        }
    }
}

/// What a message that waits is counted with, bytes.
pub(crate) fn cost(message: &SharedMessage) -> usize {
    message.payload.len() + message.topic.as_str().len() + 128
}

/// A mailbox as a target of the router: the same when it is the same mailbox.
#[derive(Clone, Debug)]
pub(crate) struct Recipient(pub Arc<Mailbox>);

impl PartialEq for Recipient {
    fn eq(&self, other: &Recipient) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Recipient {}

impl Hash for Recipient {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}
