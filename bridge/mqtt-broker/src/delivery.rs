//! From the feeds to the session: what was read and not yet offered, what is being read, what is waited for.

use crate::backend::{Backend, FeedId, FeedRead, Message, Position, ReadError};
use crate::limits;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use mqtt_session::{Offer, Session, SharedMessage};
use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Something may be there: read when there is room.
    Behind,
    Reading,
    /// Read up to the end: waits for more.
    AtEnd,
}

struct Feed {
    /// Tells a read for this feed from one for an earlier life of it in this connection.
    ticket: u64,
    state: State,
    messages: VecDeque<(Position, Arc<SharedMessage>)>,
    next: Position,
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
    Lost(u64),
    Gone(FeedId),
    Failed(ReadError),
    /// Data, or another set of feeds.
    Woken,
}

pub(crate) struct Delivery<B> {
    backend: Arc<B>,
    feeds: BTreeMap<FeedId, Feed>,
    buffered: usize,
    tickets: u64,
    reads: FuturesUnordered<BoxFuture<'static, ReadDone>>,
    wait: Option<BoxFuture<'static, Vec<FeedId>>>,
    /// The set of waiting feeds is not the one `wait` was made for.
    wait_is_stale: bool,
}

impl<B: Backend> Delivery<B> {
    pub fn new(backend: Arc<B>) -> Delivery<B> {
        Delivery {
            backend,
            feeds: BTreeMap::new(),
            buffered: 0,
            tickets: 0,
            reads: FuturesUnordered::new(),
            wait: None,
            wait_is_stale: true,
        }
    }

    /// Follows the session's set of feeds.
    pub fn sync(&mut self, session: &Session) {
        let wanted = session.feeds();
        let buffered = &mut self.buffered;
        self.feeds.retain(|id, feed| {
            let keep = wanted.contains_key(id);
            if !keep {
                *buffered -= feed
                    .messages
                    .iter()
                    .map(|(_, message)| cost(message))
                    .sum::<usize>();
            }
            keep
        });
        for (id, position) in wanted {
            self.tickets += 1;
            let ticket = self.tickets;
            self.feeds.entry(*id).or_insert_with(|| Feed {
                ticket,
                state: State::Behind,
                messages: VecDeque::new(),
                next: *position,
            });
        }
        self.wait_is_stale = true;
    }

    /// Is something read that was not taken?
    pub fn waits(&self) -> bool {
        self.buffered > 0
    }

    /// Offers up to `limits::OFFERS_PER_TURN` messages, feed by feed. `true` = there is more that could be offered at once.
    pub fn offer(&mut self, session: &mut Session, now_ms: i64) -> bool {
        let mut budget = limits::OFFERS_PER_TURN;
        let mut progress = false;
        for (id, feed) in &mut self.feeds {
            if feed.messages.is_empty() {
                // What was read held nothing for MQTT, or nothing is left of it.
                session.advance(*id, feed.next);
                continue;
            }
            let share = budget.min(64);
            for _ in 0..share {
                let Some((at, message)) = feed.messages.front() else {
                    break;
                };
                if session.offer(*id, *at, message, now_ms) == Offer::Full {
                    break;
                }
                progress = true;
                budget -= 1;
                self.buffered = self.buffered.saturating_sub(cost(message));
                feed.messages.pop_front();
            }
            if budget == 0 {
                break;
            }
        }
        progress
    }

    /// Begins the reads and the wait that are due.
    pub fn begin(&mut self, generation: u64, has_subscriptions: bool) {
        for (id, feed) in &mut self.feeds {
            if self.buffered >= limits::MAX_FEED_BUFFER
                || self.reads.len() >= limits::MAX_FEED_READS
            {
                break;
            }
            if feed.state == State::Behind && feed.messages.is_empty() {
                feed.state = State::Reading;
                let (backend, feed, ticket, from) =
                    (self.backend.clone(), *id, feed.ticket, feed.next);
                self.reads.push(Box::pin(async move {
                    let result = backend.read(feed, from, limits::FEED_READ).await;
                    ReadDone {
                        feed,
                        ticket,
                        from,
                        result,
                    }
                }));
            }
        }
        if !has_subscriptions {
            self.wait = None;
        } else if self.wait_is_stale || self.wait.is_none() {
            let at_end = self
                .feeds
                .iter()
                .filter(|(_, feed)| feed.state == State::AtEnd);
            let positions: Vec<(FeedId, Position)> =
                at_end.map(|(id, feed)| (*id, feed.next)).collect();
            let backend = self.backend.clone();
            self.wait = Some(Box::pin(async move {
                backend.wait(&positions, generation).await
            }));
            self.wait_is_stale = false;
        }
    }

    /// The next thing that happens. Can be dropped and called again without loss.
    pub async fn next(&mut self) -> Arrival {
        let woken = async {
            match &mut self.wait {
                Some(wait) => wait.await,
                None => pending().await,
            }
        };
        let done = tokio::select! {
            Some(done) = self.reads.next(), if !self.reads.is_empty() => Ok(done),
            moved = woken => Err(moved),
        };
        match done {
            Ok(done) => self.read_done(done),
            Err(moved) => {
                self.wait = None;
                // Only these are read: a session may have thousands of feeds, of which few move.
                for id in moved {
                    if let Some(feed) = self.feeds.get_mut(&id)
                        && feed.state == State::AtEnd
                    {
                        feed.state = State::Behind;
                    }
                }
                Arrival::Woken
            }
        }
    }

    fn read_done(&mut self, done: ReadDone) -> Arrival {
        let Some(feed) = self
            .feeds
            .get_mut(&done.feed)
            .filter(|feed| feed.ticket == done.ticket)
        else {
            return Arrival::Progress; // unsubscribed meanwhile
        };
        match done.result {
            Err(ReadError::Gone) => Arrival::Gone(done.feed),
            Err(error) => Arrival::Failed(error),
            Ok(read) => {
                let nothing = read.messages.is_empty() && read.next <= done.from;
                feed.state = if nothing { State::AtEnd } else { State::Behind };
                self.wait_is_stale |= nothing;
                feed.next = feed.next.max(read.next);
                for (at, message) in read.messages {
                    self.buffered += cost(&message);
                    feed.messages.push_back((at, Arc::new(message.into())));
                }
                if read.lost > 0 {
                    Arrival::Lost(read.lost)
                } else {
                    Arrival::Progress
                }
            }
        }
    }
}

/// What a buffered message counts, bytes.
fn cost(message: &Message) -> usize {
    message.payload.len() + message.topic.as_str().len() + 128
}
