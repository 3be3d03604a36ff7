//! The retained messages of a connection's subscriptions: which ones are due is in the session (`mqtt_session`, `retained.rs`), so that a connection that
//! ends loses none of them. They are read when it is their turn, so that the client gets the newest.
//!
//! A retained message is the newest of its topic, and older ones can be on their way: a session that was away, or is slow, subscribes once more, or with
//! another filter that overlaps. Sent at once it would come before them [MQTT-4.6.0-5]. So it waits until the client has had what the feeds of the filter
//! held then. Otherwise retained messages go first, and the feeds wait for them.

use crate::backend::{Backend, FeedId, Position, SharedMessage, StorageError};
use crate::connection::{Connection, End};
use crate::limits;
use mqtt_codec::TopicFilter;
use mqtt_session::Offer;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

#[derive(Default)]
pub(crate) struct Retained {
    /// What was read and is to be offered.
    sending: Option<Box<Sending>>,
    /// Subscriptions whose retained messages wait, or waited and were not read yet.
    behind: BTreeMap<TopicFilter, Behind>,
}

#[derive(Default)]
struct Behind {
    /// Up to where, in which feeds.
    ends: Vec<(FeedId, Position)>,
    /// How often these were asked for.
    looks: u8,
}

struct Sending {
    filter: TopicFilter,
    messages: VecDeque<Arc<SharedMessage>>,
}

impl Retained {
    /// Until then nothing else is offered.
    pub fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// The subscription is another one now, or none.
    pub fn forget(&mut self, filter: &TopicFilter) {
        self.behind.remove(filter);
        if self.behind.is_empty() {
            // An empty one keeps a node with room for eleven: a kilobyte of every idle connection.
            self.behind = BTreeMap::new();
        }
        let others = self.sending.take();
        self.sending = others.filter(|now| now.filter != *filter);
    }
}

impl<B: Backend, S: AsyncRead + AsyncWrite + Send + 'static> Connection<B, S> {
    /// A SUBSCRIBE wants the retained messages of this filter, from the beginning.
    pub(crate) fn begin_retained(&mut self, filter: &TopicFilter) {
        self.retained.forget(filter);
        let now_ms = self.broker.backend.now_ms();
        // They are of now: who comes back is told them with the next ones.
        for value in self.broker.sys.matching(filter) {
            self.session.offer_value(filter, &value, now_ms);
        }
    }

    /// The oldest subscription whose retained messages may be read now: nothing that is older is on its way to it.
    pub(crate) fn next_retained(&mut self) -> Result<Option<TopicFilter>, End> {
        if self.retained.is_sending() {
            return Ok(None);
        }
        let due = self.session.retained_due().take(limits::RETAINED_BEHIND);
        let due: Vec<TopicFilter> = due.map(|(filter, _)| filter.clone()).collect();
        for filter in due {
            if !self.is_behind(&filter)? {
                return Ok(Some(filter));
            }
        }
        Ok(None)
    }

    /// Of this subscription, and while there are none of one, of the next.
    pub(crate) async fn read_retained(&mut self, filter: TopicFilter) -> Result<(), End> {
        self.shared.stop();
        let mut next = Some(filter);
        while let Some(filter) = next {
            self.read_one(filter).await?;
            next = self.next_retained()?;
        }
        Ok(())
    }

    /// What has come while it waited is on its way, too: it looks again, and so on. Not for ever: a client that never catches up gets them nevertheless.
    fn is_behind(&mut self, filter: &TopicFilter) -> Result<bool, End> {
        let mut behind = self.retained.behind.remove(filter).unwrap_or_default();
        let mut waits = self.has_below(&mut behind.ends);
        if !waits && behind.looks < limits::RETAINED_LOOKS {
            behind.looks += 1;
            behind.ends = self.ends_now(filter)?;
            waits = self.has_below(&mut behind.ends);
        }
        // Where nothing waits at the first look, as nearly always, nothing is to be remembered.
        if waits || behind.looks > 1 {
            self.retained.behind.insert(filter.clone(), behind);
        }
        Ok(waits)
    }

    fn has_below(&self, ends: &mut Vec<(FeedId, Position)>) -> bool {
        while let Some((feed, end)) = ends.last()
            && !self.delivery.is_below(&self.session, *feed, *end)
        {
            ends.pop();
        }
        !ends.is_empty()
    }

    fn ends_now(&mut self, filter: &TopicFilter) -> Result<Vec<(FeedId, Position)>, End> {
        // What is in the mailbox counts. Where there is no room for it, more than enough waits without it.
        if self.delivery.has_room() {
            let arrival = self.delivery.take_mail();
            self.arrived(arrival)?;
        }
        Ok(self.broker.backend.feeds_for(filter))
    }

    async fn read_one(&mut self, filter: TopicFilter) -> Result<(), StorageError> {
        let mut messages = self.broker.retained(&filter).await?;
        let given = self
            .session
            .retained_due()
            .find(|(other, _)| **other == filter);
        if let Some((_, Some(given))) = given {
            messages.retain(|message| message.topic > *given);
        }
        messages.sort_unstable_by(|a, b| a.topic.cmp(&b.topic));
        let messages = messages.into_iter().map(|message| Arc::new(message.into()));
        let messages: VecDeque<_> = messages.collect();
        if messages.is_empty() {
            self.retained.forget(&filter);
            self.session.retained_given(&filter);
        } else {
            self.retained.sending = Some(Box::new(Sending { filter, messages }));
            // While these are sent more comes: the others look again.
            self.retained.behind.clear();
        }
        Ok(())
    }

    /// `true` = something was offered.
    pub(crate) fn offer_retained(&mut self, now_ms: i64) -> bool {
        let mut offered = false;
        for _ in 0..limits::OFFERS_PER_TURN {
            let Some(Sending { filter, messages }) = self.retained.sending.as_deref_mut() else {
                break;
            };
            let Some(message) = messages.front() else {
                self.session.retained_given(filter);
                self.retained.sending = None;
                break;
            };
            if self.session.offer_retained(filter, message, now_ms) == Offer::Full {
                break;
            }
            offered = true;
            messages.pop_front();
        }
        offered
    }
}
