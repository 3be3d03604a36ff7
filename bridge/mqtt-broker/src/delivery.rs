//! From the feeds to the session. At the end of a feed the hub brings what matches ([`crate::hub`]); a session that is behind (it was away, its
//! client is slow) reads the feed by itself until it is there: `catching up`. What was brought or read and not yet offered waits here.

use crate::backend::{Backend, FeedId, FeedRead, Position, ReadError};
use crate::hub::{Hub, Subscriber};
use crate::limits;
use crate::mailbox::{Batch, Letter, Mailbox, Placed, cost};
use crate::running::Running;
use futures_util::future::BoxFuture;
use mqtt_codec::TopicFilter;
use mqtt_session::{Filters, Offer, Session};
use router::PatternError;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::task::Poll;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Something may be there: read when there is room.
    Behind,
    Reading,
    /// The mailbox brings everything.
    Following,
}

struct Feed {
    /// Tells a read for this feed from one for an earlier life of it in this connection.
    ticket: u64,
    state: State,
    messages: VecDeque<Placed>,
    /// Own reading goes on here.
    next: Position,
    /// Attached to the follower: from here on the mailbox brings the messages. Own reading goes up to it, see `follower.rs`.
    from: Option<Position>,
    /// Brought before own reading came to `from`.
    held: VecDeque<Placed>,
    /// Detached before that: `held` is all up to here, and from here on own reading goes on. It can not begin with `held` again: of what was given
    /// early the follower has left out the copies.
    detached: Option<Position>,
    /// Is in `Delivery::ready`.
    queued: bool,
}

fn bytes(placed: &VecDeque<Placed>) -> usize {
    placed.iter().map(|(_, message)| cost(message)).sum()
}

struct ReadDone {
    feed: FeedId,
    ticket: u64,
    from: Position,
    result: Result<FeedRead, ReadError>,
}

/// What the delivery side wants to tell the connection.
pub(crate) enum Arrival {
    /// Something to offer, or something to read.
    Progress,
    /// From the hub, or read. With `positions`: they have moved, see [`Delivery::settle`]; with `wants_fence`: see `early.rs`.
    Mail {
        lost: u64,
        positions: bool,
        wants_fence: bool,
    },
    Gone(FeedId),
    Failed(ReadError),
    /// Another set of feeds.
    Feeds,
}

pub(crate) struct Delivery<B: Backend> {
    backend: Arc<B>,
    subscriber: Subscriber<B>,
    /// Wants its positions to move on although nothing matches.
    wants_progress: bool,
    /// In boxes: a node of the map has room for eleven, mostly there is one.
    feeds: BTreeMap<FeedId, Box<Feed>>,
    /// Not stored yet: goes before what the feeds bring, see `early.rs`.
    early: VecDeque<Batch>,
    /// Of topics that are not stored.
    unstored: VecDeque<Batch>,
    /// Of groups that the session has left, for their other members.
    left: Vec<Batch>,
    /// Feeds with messages to offer, or whose position the session does not know yet.
    ready: VecDeque<FeedId>,
    /// Feeds in [`State::Behind`].
    behind: BTreeSet<FeedId>,
    /// Bytes that can be offered.
    buffered: usize,
    /// Bytes that can not yet be.
    held: usize,
    tickets: u64,
    /// The session took nothing: too much is unacknowledged.
    window_full: bool,
    reads: Running<ReadDone>,
    /// What to read for, while something is read.
    filters: Option<Arc<Filters>>,
    wait: Option<BoxFuture<'static, ()>>,
}

impl<B: Backend> Delivery<B> {
    pub fn new(
        backend: Arc<B>,
        hub: Arc<Hub<B>>,
        wants_progress: bool,
        takes_early: bool,
    ) -> Delivery<B> {
        Delivery {
            backend,
            subscriber: Subscriber::new(hub, takes_early),
            wants_progress,
            feeds: BTreeMap::new(),
            early: VecDeque::new(),
            unstored: VecDeque::new(),
            left: Vec::new(),
            ready: VecDeque::new(),
            behind: BTreeSet::new(),
            buffered: 0,
            held: 0,
            tickets: 0,
            window_full: false,
            reads: Running::default(),
            filters: None,
            wait: None,
        }
    }

    pub fn mailbox(&self) -> &Arc<Mailbox> {
        self.subscriber.mailbox()
    }

    /// To be called before the ends of the feeds are asked for: see `follower.rs`.
    pub fn subscribe(&mut self, filter: &TopicFilter) -> Result<(), PatternError> {
        // What is read just now is read without this filter, and perhaps to beyond where it begins.
        self.filters = None;
        for (id, feed) in &mut self.feeds {
            if feed.state == State::Reading {
                self.tickets += 1;
                feed.ticket = self.tickets;
                feed.state = State::Behind;
                self.behind.insert(*id);
            }
        }
        self.subscriber.subscribe(filter)
    }

    pub fn unsubscribe(&mut self, filter: &TopicFilter) {
        self.filters = None;
        self.subscriber.unsubscribe(filter);
    }

    /// Follows the session's subscriptions, for what is not stored.
    pub fn sync_unstored(&mut self, session: &Session) {
        self.subscriber.sync_unstored(session);
    }

    /// Follows the session's set of feeds. Gives how many messages were found to be lost.
    pub fn sync(&mut self, session: &Session) -> u64 {
        let wanted = session.feeds();
        let gone = self.feeds.keys().filter(|id| !wanted.contains_key(id));
        let gone: Vec<FeedId> = gone.copied().collect();
        let mut lost = 0;
        if !gone.is_empty() {
            gone.iter().for_each(|id| self.subscriber.detach(*id));
            // What came of them until now is dropped with them: nothing of it may be taken for something of a later life of the feed here.
            lost = self.collect().lost;
            for id in gone {
                self.behind.remove(&id);
                if let Some(dropped) = self.feeds.remove(&id) {
                    self.buffered = self.buffered.saturating_sub(bytes(&dropped.messages));
                    self.held = self.held.saturating_sub(bytes(&dropped.held));
                }
            }
        }
        for (id, position) in wanted {
            if self.feeds.contains_key(id) {
                continue;
            }
            self.tickets += 1;
            let feed = Feed {
                ticket: self.tickets,
                state: State::Behind,
                messages: VecDeque::new(),
                next: *position,
                from: None,
                held: VecDeque::new(),
                detached: None,
                queued: false,
            };
            self.feeds.insert(*id, Box::new(feed));
            self.join(*id, false);
        }
        lost
    }

    /// Attaches to the follower of a feed of which no read is under way. `is_end`: the last read found nothing.
    fn join(&mut self, id: FeedId, is_end: bool) {
        let Some(feed) = self.feeds.get_mut(&id) else {
            return;
        };
        feed.from = self
            .subscriber
            .attach(id, feed.next, is_end, self.wants_progress);
        match feed.from {
            Some(from) if feed.next >= from => self.follow(id),
            _ => self.fall_behind(id),
        }
    }

    fn fall_behind(&mut self, id: FeedId) {
        if let Some(feed) = self.feeds.get_mut(&id) {
            feed.state = State::Behind;
            self.behind.insert(id);
        }
    }

    /// Own reading has come to where the mailbox goes on.
    fn follow(&mut self, id: FeedId) {
        if let Some(feed) = self.feeds.get_mut(&id) {
            feed.next = feed.next.max(feed.from.unwrap_or(feed.next));
            feed.state = State::Following;
            let held = bytes(&feed.held);
            self.held = self.held.saturating_sub(held);
            self.buffered += held;
            feed.messages.append(&mut feed.held);
            Self::queue(&mut self.ready, id, feed);
            if let Some(at) = feed.detached.take() {
                feed.next = feed.next.max(at);
                feed.from = None;
                self.fall_behind(id);
            }
        }
    }

    fn queue(ready: &mut VecDeque<FeedId>, id: FeedId, feed: &mut Feed) {
        if !feed.queued {
            feed.queued = true;
            ready.push_back(id);
        }
    }

    /// Is something read that was not taken?
    pub fn waits(&self) -> bool {
        self.buffered > 0
    }

    /// Offers up to `limits::OFFERS_PER_TURN` messages, feed by feed. `true` = there is more that could be offered at once.
    pub fn offer(&mut self, session: &mut Session, now_ms: i64) -> bool {
        let mut budget = limits::OFFERS_PER_TURN;
        let mut progress = false;
        self.window_full = false;
        while budget > 0
            && let Some(batch) = self.early.front_mut()
        {
            let Some(message) = batch.first() else {
                self.early.pop_front();
                continue;
            };
            // Of QoS 0: no window holds it back.
            session.offer_unstored(message, now_ms);
            progress = true;
            budget -= 1;
            self.buffered = self.buffered.saturating_sub(cost(message));
            batch.advance();
        }
        // Where both wait, each has its half.
        let for_feeds = if self.ready.is_empty() { 0 } else { budget / 2 };
        while budget > for_feeds
            && let Some(batch) = self.unstored.front_mut()
        {
            let Some(message) = batch.first() else {
                self.unstored.pop_front();
                continue;
            };
            let offer = match batch.group() {
                None => session.offer_unstored(message, now_ms),
                Some(group) if session.is_member(&group.share) => {
                    session.offer_unstored_shared(&group.share, message, now_ms)
                }
                Some(_) => {
                    // It was dealt before the client left the group.
                    self.buffered = self.buffered.saturating_sub(batch.cost_of_rest());
                    self.left.extend(self.unstored.pop_front());
                    continue;
                }
            };
            if offer == Offer::Full {
                self.window_full = true;
                break;
            }
            progress = true;
            budget -= 1;
            self.buffered = self.buffered.saturating_sub(cost(message));
            batch.advance();
        }
        for _ in 0..self.ready.len() {
            let Some(id) = self.ready.pop_front() else {
                break;
            };
            let Some(feed) = self.feeds.get_mut(&id) else {
                continue;
            };
            feed.queued = false;
            let share = budget.min(limits::OFFERS_PER_FEED);
            for _ in 0..share {
                let Some((at, message)) = feed.messages.front() else {
                    break;
                };
                if session.offer(id, *at, message, now_ms) == Offer::Full {
                    self.window_full = true;
                    break;
                }
                if let Some(number) = message.number {
                    self.subscriber.mailbox().offered(number);
                }
                progress = true;
                budget -= 1;
                self.buffered = self.buffered.saturating_sub(cost(message));
                feed.messages.pop_front();
            }
            if !feed.messages.is_empty() {
                Self::queue(&mut self.ready, id, feed);
            } else {
                // Below it everything was offered, or was not for MQTT.
                session.advance(id, feed.next);
            }
            if budget == 0 {
                break;
            }
        }
        progress
    }

    pub fn window_full(&self) -> bool {
        self.window_full
    }

    /// Moves the session's positions on to where the followers are, where everything before was offered.
    pub fn settle(&mut self, session: &mut Session) -> u64 {
        // First how far they are, then what is in the mailbox: all below is in it, or was.
        let given = self.subscriber.given();
        let mail = self.collect();
        for (id, position) in given {
            if let Some(feed) = self.feeds.get_mut(&id)
                && feed.state == State::Following
                && feed.messages.is_empty()
            {
                feed.next = feed.next.max(position);
                session.advance(id, feed.next);
            }
        }
        mail.lost
    }

    /// Is there room for what is in the mailbox?
    pub fn has_room(&self) -> bool {
        self.buffered.max(self.held) < limits::MAX_FEED_BUFFER
    }

    /// What groups gave that are left now, and was not offered.
    pub fn take_left(&mut self) -> Vec<Batch> {
        std::mem::take(&mut self.left)
    }

    /// The session has left groups: what they gave and was not offered is found by [`Delivery::take_left`]. Gives how many messages were found to
    /// be lost.
    pub fn look_for_left(&mut self, session: &Session) -> u64 {
        let lost = self.collect().lost;
        for batch in std::mem::take(&mut self.unstored) {
            match batch.group() {
                Some(group) if !session.is_member(&group.share) => {
                    self.buffered = self.buffered.saturating_sub(batch.cost_of_rest());
                    self.left.push(batch);
                }
                _ => self.unstored.push_back(batch),
            }
        }
        lost
    }

    /// Nothing comes any more. Gives what came, is stored nowhere, and was not offered.
    pub fn leave(&mut self) -> Vec<Batch> {
        self.subscriber.leave();
        let mail = self.subscriber.mailbox().close();
        self.unstored.drain(..).chain(mail.batches).collect()
    }

    /// Begins the reads and the wait that are due.
    pub fn begin(&mut self, generation: u64, session: &Session) {
        let subscriptions = session.subscriptions();
        let mut waiting = Vec::new();
        while self.buffered < limits::MAX_FEED_BUFFER
            && self.reads.len() < limits::MAX_FEED_READS
            && let Some(id) = self.behind.pop_first()
        {
            let Some(feed) = self.feeds.get_mut(&id) else {
                continue;
            };
            if !feed.messages.is_empty() {
                waiting.push(id);
                continue;
            }
            feed.state = State::Reading;
            let (backend, ticket, from) = (self.backend.clone(), feed.ticket, feed.next);
            let filters = self
                .filters
                .get_or_insert_with(|| Arc::new(subscriptions.filters()));
            let filters = filters.clone();
            self.reads.push(Box::pin(async move {
                let wanted = |_: Position, topic: &str| filters.match_topic(topic);
                let result = backend.read(id, from, limits::FEED_READ, &wanted).await;
                ReadDone {
                    feed: id,
                    ticket,
                    from,
                    result,
                }
            }));
        }
        self.behind.extend(waiting);
        if self.reads.is_empty() {
            self.filters = None;
        }
        if subscriptions.is_empty() {
            self.wait = None;
        } else if self.wait.is_none() {
            self.wait = Some(self.backend.feeds_changed(generation));
        }
    }

    /// The next thing that happens. Can be dropped and called again without loss.
    pub async fn next(&mut self) -> Arrival {
        let has_room = self.has_room();
        let Delivery {
            subscriber,
            reads,
            wait,
            ..
        } = self;
        let mail = poll_fn(|cx| match has_room {
            true => subscriber.mailbox().poll_ready(cx),
            false => Poll::Pending,
        });
        let others = async {
            match wait {
                Some(wait) => wait.await,
                None => pending().await,
            }
        };
        tokio::select! {
            Some(done) = reads.next(), if !reads.is_empty() => self.read_done(done),
            () = mail => {
                self.collect().into()
            }
            () = others => {
                self.wait = None;
                Arrival::Feeds
            }
        }
    }

    /// What is in the mailbox now.
    pub fn take_mail(&mut self) -> Arrival {
        self.collect().into()
    }

    /// Is something of the feed below this position still to be offered? Where the mailbox brings everything and nothing waits it is not, whatever the
    /// session's position says: that moves on only now and then.
    pub fn is_below(&self, session: &Session, feed: FeedId, end: Position) -> bool {
        let waits = self
            .feeds
            .get(&feed)
            .is_some_and(|feed| feed.state != State::Following || !feed.messages.is_empty());
        waits && session.feeds().get(&feed).is_some_and(|at| *at < end)
    }

    /// Takes out what is in the mailbox.
    fn collect(&mut self) -> Collected {
        let mail = self.subscriber.mailbox().take();
        for batch in mail.early {
            self.buffered += batch.cost();
            self.early.push_back(batch);
        }
        for batch in mail.batches {
            self.buffered += batch.cost();
            self.unstored.push_back(batch);
        }
        for Letter {
            feed: id,
            at,
            message,
        } in mail.letters
        {
            let Some(feed) = self.feeds.get_mut(&id) else {
                continue;
            };
            match message {
                Some(message) if feed.state == State::Following => {
                    self.buffered += cost(&message);
                    feed.messages.push_back((at, message));
                    Self::queue(&mut self.ready, id, feed);
                }
                Some(message) => {
                    self.held += cost(&message);
                    feed.held.push_back((at, message));
                }
                None => {
                    self.subscriber.detach(id);
                    if feed.state == State::Following {
                        feed.from = None;
                        feed.next = feed.next.max(at);
                        self.fall_behind(id);
                    } else {
                        feed.detached = Some(at);
                    }
                }
            }
        }
        Collected {
            lost: mail.lost,
            positions: mail.progress,
            wants_fence: mail.wants_fence,
        }
    }

    fn read_done(&mut self, done: ReadDone) -> Arrival {
        let id = done.feed;
        if self.feeds.get(&id).map(|feed| feed.ticket) != Some(done.ticket) {
            return Arrival::Progress; // unsubscribed meanwhile, or subscribed to more
        }
        let read = match done.result {
            Err(ReadError::Gone) => return Arrival::Gone(id),
            Err(error) => return Arrival::Failed(error),
            Ok(read) => read,
        };
        let nothing = read.messages.is_empty() && read.next <= done.from;
        // What was given early before it could be read goes first.
        let mut collected = Collected::default();
        if read.messages.iter().any(|(_, one)| one.number.is_some()) {
            collected = self.collect();
        }
        let Some(feed) = self.feeds.get_mut(&id) else {
            return collected.into();
        };
        let end = feed.from.unwrap_or(Position(u64::MAX));
        let mailbox = self.subscriber.mailbox();
        for (at, message) in read.messages {
            if at < end && !message.number.is_some_and(|number| mailbox.seen(number)) {
                let message = Arc::new(message.into());
                self.buffered += cost(&message);
                feed.messages.push_back((at, message));
            }
        }
        feed.next = feed.next.max(read.next);
        Self::queue(&mut self.ready, id, feed);
        match feed.from {
            // The follower has read up to there, so there is nothing before it that we have not.
            Some(from) if feed.next >= from || nothing => self.follow(id),
            Some(_) => self.fall_behind(id),
            None => self.join(id, nothing),
        }
        collected.lost += read.lost;
        collected.into()
    }
}

/// What a mailbox told beside messages.
#[derive(Default)]
struct Collected {
    lost: u64,
    positions: bool,
    wants_fence: bool,
}

impl From<Collected> for Arrival {
    fn from(collected: Collected) -> Arrival {
        Arrival::Mail {
            lost: collected.lost,
            positions: collected.positions,
            wants_fence: collected.wants_fence,
        }
    }
}
