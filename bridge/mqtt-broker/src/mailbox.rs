//! Where the hub puts what a connection is to get. Bounded: one that does not empty its mailbox costs this much and nothing else.

use crate::backend::{FeedId, Position};
use crate::given::Given;
use crate::limits;
use crate::unstored_groups::Group;
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

/// Messages that are not stored, in order; shared by all who get them.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    messages: Arc<[Arc<SharedMessage>]>,
    /// So many of them are done with.
    taken: usize,
    /// Given to a member of this group.
    group: Option<Arc<Group>>,
    cost: usize,
}

impl Batch {
    pub fn new(messages: Arc<[Arc<SharedMessage>]>, group: Option<Arc<Group>>) -> Batch {
        Batch {
            cost: messages.iter().map(|message| cost(message)).sum(),
            messages,
            taken: 0,
            group,
        }
    }

    pub fn len(&self) -> usize {
        self.messages.len().saturating_sub(self.taken)
    }

    /// Of all its messages, as they wait.
    pub fn cost(&self) -> usize {
        self.cost
    }

    pub fn cost_of_rest(&self) -> usize {
        self.rest().iter().map(|message| cost(message)).sum()
    }

    pub fn group(&self) -> Option<&Arc<Group>> {
        self.group.as_ref()
    }

    /// Those that are not done with.
    pub fn rest(&self) -> &[Arc<SharedMessage>] {
        self.messages.get(self.taken..).unwrap_or_default()
    }

    pub fn first(&self) -> Option<&Arc<SharedMessage>> {
        self.messages.get(self.taken)
    }

    /// The first is done with.
    pub fn advance(&mut self) {
        self.taken += 1;
    }

    /// `None` = nothing is left.
    pub fn filter(&self, keep: impl Fn(&SharedMessage) -> bool) -> Option<Batch> {
        let rest = self.rest().iter();
        let kept: Arc<[_]> = rest.filter(|message| keep(message)).cloned().collect();
        (!kept.is_empty()).then(|| Batch::new(kept, self.group.clone()))
    }
}

/// What did not fit.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub batch: Batch,
    /// `None` = there is no owner any more.
    pub full: Option<Full>,
}

#[derive(Debug, Default)]
struct Inside {
    letters: Vec<Letter>,
    batches: Vec<Batch>,
    /// Batches of what comes back in a feed, see `early.rs`.
    early: Vec<Batch>,
    /// Messages in the batches of both kinds.
    in_batches: usize,
    given: Given,
    /// Given early is nothing before the owner has passed a new fence.
    wants_fence: bool,
    bytes: usize,
    lost: u64,
    /// The positions have moved although nothing matched.
    progress: bool,
    /// The owner is gone.
    closed: bool,
    /// Followers and publishers that wait for room.
    waiting: Vec<Arc<Notify>>,
}

impl Inside {
    fn notify(&mut self) {
        for one in self.waiting.drain(..) {
            one.notify_one();
        }
    }

    /// Whoever waits asks again whenever another mailbox has room, and is told once.
    fn tell(&mut self, one: &Arc<Notify>) {
        if !self.waiting.iter().any(|known| Arc::ptr_eq(known, one)) {
            self.waiting.push(one.clone());
        }
    }

    fn count(&self) -> usize {
        self.letters.len() + self.in_batches
    }

    fn has_room(&self) -> bool {
        self.bytes < limits::MAILBOX_BYTES && self.count() < limits::MAILBOX_MESSAGES
    }
}

/// What was in a mailbox.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    pub letters: Vec<Letter>,
    pub batches: Vec<Batch>,
    pub early: Vec<Batch>,
    pub lost: u64,
    pub progress: bool,
    pub wants_fence: bool,
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
    /// A subscription of the owner has a QoS above 0.
    wants_all: AtomicBool,
    /// A publisher has waited for room in vain since the owner took something out.
    given_up: AtomicBool,
    /// The session of the owner ends with its connection: it may be given messages of QoS 0 before they are stored.
    takes_early: bool,
    /// Something that goes by the log was noted.
    noted: AtomicBool,
}

/// The client's socket takes nothing.
pub(crate) const SOCKET: u8 = 1;
/// The client has as many unacknowledged messages as it may.
pub(crate) const WINDOW: u8 = 2;

impl Mailbox {
    pub fn new(id: u64, takes_early: bool) -> Mailbox {
        Mailbox {
            id,
            inside: Mutex::default(),
            ready: AtomicBool::new(false),
            owner: AtomicWaker::new(),
            blocked: AtomicU8::new(0),
            wants_all: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            takes_early,
            noted: AtomicBool::new(false),
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

    /// Moves messages in from the front of `pending`, as far as there is room; those that were given early are left out. With `waiting`, that is notified when there is room again, or
    /// when the owner is blocked.
    pub fn put(
        &self,
        feed: FeedId,
        pending: &mut Vec<Placed>,
        waiting: Option<&Arc<Notify>>,
    ) -> Result<(), Full> {
        let mut inside = self.inside.lock();
        let before = inside.letters.len();
        let mut left = Vec::new();
        let mut messages = pending.drain(..);
        while let Some((at, message)) = messages.next() {
            if message
                .number
                .is_some_and(|number| inside.given.seen(number))
            {
                continue;
            }
            if !inside.has_room() {
                left.push((at, message));
                left.extend(messages.by_ref());
                break;
            }
            inside.bytes += cost(&message);
            inside.letters.push(Letter {
                feed,
                at,
                message: Some(message),
            });
        }
        drop(messages);
        if !left.is_empty() {
            *pending = left;
        }
        let (all, fitting) = (pending.is_empty(), inside.letters.len() > before);
        // Under the lock: who becomes blocked after this notifies those who wait.
        let blocked = self.blocked.load(Ordering::Acquire) != 0;
        let result = match (all, blocked) {
            (true, _) => Ok(()),
            (false, true) => Err(Full::Blocked),
            (false, false) => {
                waiting.into_iter().for_each(|one| inside.tell(one));
                Err(Full::ForNow)
            }
        };
        drop(inside);
        if fitting {
            self.wake();
        }
        result
    }

    /// Puts a batch in as a whole, if there is any room; otherwise `waiting` is notified when there is, or when the owner is blocked.
    pub fn put_batch(&self, batch: Batch, waiting: &Arc<Notify>) -> Result<(), Refusal> {
        let mut inside = self.inside.lock();
        if inside.closed {
            return Err(Refusal { batch, full: None });
        }
        if inside.has_room() {
            inside.bytes += batch.cost();
            inside.in_batches += batch.len();
            inside.batches.push(batch);
            drop(inside);
            self.wake();
            return Ok(());
        }
        inside.tell(waiting);
        let full = Some(if self.is_blocked() {
            Full::Blocked
        } else {
            Full::ForNow
        });
        Err(Refusal { batch, full })
    }

    /// May be in [`Mailbox::put_early`].
    pub fn takes_early(&self) -> bool {
        self.takes_early
    }

    /// Messages of one client on one topic, `source`, that are not stored yet; numbers from `first` on. `false` = they go by the log.
    pub fn put_early(&self, source: u64, batch: Batch, first: u64) -> bool {
        let mut inside = self.inside.lock();
        let count = batch.len();
        if !inside.has_room() || !inside.given.can_take(source, count) {
            let last = first + (count as u64).saturating_sub(1);
            self.note(&mut inside, source, last);
            return false;
        }
        inside.given.take(first, count as u64);
        inside.bytes += batch.cost();
        inside.in_batches += count;
        inside.early.push(batch);
        drop(inside);
        self.wake();
        true
    }

    /// What goes by the log although others of its source are given early.
    pub fn note_by_log(&self, source: u64, number: u64) {
        self.note(&mut self.inside.lock(), source, number);
    }

    fn note(&self, inside: &mut Inside, source: u64, number: u64) {
        if !inside.given.note_by_log(source, number) {
            inside.wants_fence = true;
            self.wake();
        }
        self.noted
            .store(inside.given.has_by_log(), Ordering::Release);
    }

    /// The owner has found it in a feed. `true` = it was given early.
    pub fn seen(&self, number: u64) -> bool {
        self.inside.lock().given.seen(number)
    }

    /// The owner has offered what came by the log.
    pub fn offered(&self, number: u64) {
        if self.noted.load(Ordering::Acquire) {
            let mut inside = self.inside.lock();
            inside.given.offered(number);
            self.noted
                .store(inside.given.has_by_log(), Ordering::Release);
        }
    }

    /// Changes what the owner was given early, or will be.
    pub fn with_given<T>(&self, change: impl FnOnce(&mut Given) -> T) -> T {
        let mut inside = self.inside.lock();
        let result = change(&mut inside.given);
        self.noted
            .store(inside.given.has_by_log(), Ordering::Release);
        result
    }

    /// The owner waits for its client.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Acquire) != 0
    }

    pub fn set_wants_all(&self, wants_all: bool) {
        self.wants_all.store(wants_all, Ordering::Relaxed);
    }

    pub fn wants_all(&self) -> bool {
        self.wants_all.load(Ordering::Relaxed)
    }

    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
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

    /// Takes everything out, for the last time: no batch comes in any more.
    pub fn close(&self) -> Mail {
        self.inside.lock().closed = true;
        self.take()
    }

    /// Takes everything out.
    pub fn take(&self) -> Mail {
        // Before the lock: what is put after we looked makes it ready again.
        self.ready.store(false, Ordering::Release);
        let mut inside = self.inside.lock();
        inside.bytes = 0;
        inside.in_batches = 0;
        inside.notify();
        if self.given_up.load(Ordering::Relaxed) {
            self.given_up.store(false, Ordering::Relaxed);
        }
        Mail {
            letters: std::mem::take(&mut inside.letters),
            batches: std::mem::take(&mut inside.batches),
            early: std::mem::take(&mut inside.early),
            wants_fence: std::mem::take(&mut inside.wants_fence),
            lost: std::mem::take(&mut inside.lost),
            progress: std::mem::take(&mut inside.progress),
        }
    }
}

/// What a message that waits is counted with, bytes.
pub(crate) fn cost(message: &SharedMessage) -> usize {
    message.size() + 128
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
