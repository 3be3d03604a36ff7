//! Follows the end of one feed: each range is read once and decoded once, the router is asked once, and what matches goes into the mailboxes of
//! those who are attached.
//!
//! Why nobody misses a message and nobody gets one twice. Let `position` be where the next range begins; it moves only under the lock, in the
//! same step in which the messages of the range before it are counted out (`distribute`).
//! * *Joining.* A connection that has read up to `p` attaches under the lock and is told `from = max(p, position)`. It goes on reading `[p, from)` by itself;
//!   messages from `from` on come by mailbox, because their range is counted out later than the attachment, and none below it, because
//!   `distribute` leaves out what is below `from`. So the two parts meet at `from`.
//! * *Falling behind.* What does not fit into the mailbox stays, in order, in `pending`. Either it gets in later, before the next range
//!   is read, or the connection is detached at the first position of what is left. The notice of that goes into the mailbox behind everything
//!   that got in: the connection has all below that position and reads on from there.
//! * *Subscribing.* A filter is put into the router before the ends of the feeds are asked for SUBACK, and the router is asked after a range was read.
//!   A message at or above such an end was read, and so routed, after the filter was there.

use crate::backend::{Backend, FeedId, FeedRead, Position, ReadError, everything};
use crate::hub::Hub;
use crate::limits;
use crate::mailbox::{Full, Mailbox, Placed, Recipient};
use crate::progress::Progress;
use mqtt_session::SharedMessage;
use parking_lot::Mutex;
use router::MatchCache;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

#[derive(Debug)]
pub(crate) struct Follower {
    feed: FeedId,
    state: Mutex<State>,
    /// All below it that is for those attached is in their mailboxes.
    given: AtomicU64,
    /// Somebody was detached: perhaps nobody is left.
    left: Notify,
    /// A full mailbox was emptied, or its owner is blocked.
    room: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    position: Position,
    attached: HashMap<u64, Attached>,
}

#[derive(Debug)]
struct Attached {
    from: Position,
    mailbox: Arc<Mailbox>,
    /// Counted out and not yet in the mailbox.
    pending: Vec<Placed>,
    /// Wants to hear of positions that moved although nothing matched.
    wants_progress: bool,
}

impl State {
    /// Those whose turn it is hear that the position has moved.
    fn tell(&self, progress: &mut Progress) {
        let Some(part) = progress.next_part() else {
            return;
        };
        for (id, one) in &self.attached {
            if one.wants_progress && id % limits::PROGRESS_PARTS == part {
                one.mailbox.put_progress();
            }
        }
    }
}

impl Follower {
    /// At a position that is the end of the feed, or nearly.
    pub fn new(feed: FeedId, position: Position) -> Follower {
        Follower {
            feed,
            state: Mutex::new(State {
                position,
                attached: HashMap::new(),
            }),
            given: AtomicU64::new(position.0),
            left: Notify::new(),
            room: Arc::default(),
        }
    }

    /// From where on the messages come by mailbox, for somebody who has read up to `at`. `None` = too far behind: read on alone first.
    pub fn attach(
        &self,
        mailbox: &Arc<Mailbox>,
        at: Position,
        wants_progress: bool,
    ) -> Option<Position> {
        let mut state = self.state.lock();
        if state.position.0.saturating_sub(at.0) > limits::JOIN_DISTANCE {
            return None;
        }
        let from = state.position.max(at);
        state.attached.insert(
            mailbox.id(),
            Attached {
                from,
                mailbox: mailbox.clone(),
                pending: Vec::new(),
                wants_progress,
            },
        );
        Some(from)
    }

    /// Nothing is put into the mailbox after this.
    pub fn detach(&self, id: u64) {
        let mut state = self.state.lock();
        state.attached.remove(&id);
        if state.attached.is_empty() {
            self.left.notify_one();
        }
    }

    /// Everything below it that is for those attached is in their mailboxes, if they are still attached when they have taken it out.
    pub fn given(&self) -> Position {
        Position(self.given.load(Ordering::Acquire))
    }

    pub fn is_deserted(&self) -> bool {
        self.state.lock().attached.is_empty()
    }

    /// Until nobody is attached any more, or the feed fails: then everybody finds that out by reading.
    pub async fn run<B: Backend>(self: Arc<Self>, hub: Arc<Hub<B>>) {
        let mut names = MatchCache::new(limits::CACHED_TOPICS, limits::CACHED_TARGETS);
        let mut progress = Progress::new(hub.progress_every());
        let mut generation = hub.backend().feeds_generation();
        loop {
            let position = self.state.lock().position;
            let watched = [(self.feed, position)];
            let moved = tokio::select! {
                moved = hub.backend().wait(&watched, generation) => moved,
                () = self.left.notified() => {
                    if hub.end(&self, self.feed) {
                        return;
                    }
                    continue;
                }
                () = progress.due() => {
                    self.state.lock().tell(&mut progress);
                    continue;
                }
                () = hub.stopped() => return,
            };
            generation = hub.backend().feeds_generation();
            if moved.is_empty() {
                continue; // other feeds
            }
            let read = hub
                .backend()
                .read(self.feed, position, limits::FOLLOW_READ, &everything);
            match read.await {
                Ok(read) => {
                    let full = self.distribute(&hub, &mut names, read);
                    self.wait_for_room(full).await;
                }
                Err(error) => {
                    if let ReadError::Storage(error) = error {
                        tracing::error!(feed = ?self.feed, %error, "a feed can not be followed");
                    }
                    self.detach_all();
                    if hub.end(&self, self.feed) {
                        return;
                    }
                    continue;
                }
            }
            let state = self.state.lock();
            self.given.store(state.position.0, Ordering::Release);
            progress.moved();
            // Also here: a feed on which there is always something leaves the time no turn.
            state.tell(&mut progress);
        }
    }

    /// Counts a range out; gives those whose mailboxes had no room for all of it.
    fn distribute<B: Backend>(
        &self,
        hub: &Hub<B>,
        names: &mut MatchCache<Recipient>,
        read: FeedRead,
    ) -> Vec<u64> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut touched = Vec::new();
        for (at, message) in read.messages {
            let message: Arc<SharedMessage> = Arc::new(message.into());
            let matching = names.matches(hub.router(), message.topic.as_str());
            for recipient in matching.iter() {
                let Some(one) = state.attached.get_mut(&recipient.0.id()) else {
                    continue;
                };
                // Several filters of one connection can match.
                let again = one.pending.last().is_some_and(|(last, _)| *last == at);
                if at < one.from || again {
                    continue;
                }
                if one.pending.is_empty() {
                    touched.push(recipient.0.id());
                }
                one.pending.push((at, Arc::clone(&message)));
            }
        }
        state.position = state.position.max(read.next);
        if read.lost > 0 {
            state
                .attached
                .values()
                .for_each(|one| one.mailbox.put_lost(read.lost));
        }
        touched.retain(|id| !self.put(state, *id));
        touched
    }

    /// `false` = not all of it, for now. Who is blocked is detached.
    fn put(&self, state: &mut State, id: u64) -> bool {
        let Some(one) = state.attached.get_mut(&id) else {
            return true;
        };
        match one
            .mailbox
            .put(self.feed, &mut one.pending, Some(&self.room))
        {
            Ok(()) => true,
            Err(Full::ForNow) => false,
            Err(Full::Blocked) => {
                self.detach_behind(state, id);
                true
            }
        }
    }

    fn detach_behind(&self, state: &mut State, id: u64) {
        if let Some(one) = state.attached.remove(&id) {
            let at = one.pending.first().map_or(state.position, |(at, _)| *at);
            one.mailbox.put_detached(self.feed, at);
        }
    }

    fn detach_all(&self) {
        let mut state = self.state.lock();
        let all: Vec<u64> = state.attached.keys().copied().collect();
        for id in all {
            self.detach_behind(&mut state, id);
        }
    }

    /// Who only waits for a processor is waited for: were it detached it would decode everything again by itself, when there is least time for
    /// that. Who waits for its client is not.
    async fn wait_for_room(&self, mut full: Vec<u64>) {
        let deadline = Instant::now() + limits::ROOM_WAIT;
        while !full.is_empty() {
            if timeout_at(deadline, self.room.notified()).await.is_err() {
                let mut state = self.state.lock();
                for id in full {
                    self.detach_behind(&mut state, id);
                }
                return;
            }
            let mut state = self.state.lock();
            full.retain(|id| !self.put(&mut state, *id));
        }
    }
}
