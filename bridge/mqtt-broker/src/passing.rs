//! Messages that are not stored, from one publisher into the mailboxes of who is connected: what is read together is put together, and a
//! mailbox that is full holds the publisher back for a while instead of losing messages.

use crate::backend::{Message, PublishError, SharedMessage};
use crate::limits;
use crate::mailbox::{Batch, Full, Mailbox, Refusal};
use crate::metrics::Metrics;
use crate::unstored::{Retained, Route};
use crate::unstored_groups::Group;
use mqtt_codec::{QoS, TopicName};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// What has no room yet.
#[derive(Debug)]
struct Waiting {
    mailbox: Arc<Mailbox>,
    batch: Batch,
}

/// Where the messages of one publisher are until they are in the mailboxes.
#[derive(Debug)]
pub(crate) struct Passing {
    /// Of the publisher itself: it can not wait for its own client while it does not listen to it.
    own: Option<u64>,
    /// Messages one after the other that go to the same mailboxes.
    run: Vec<Arc<SharedMessage>>,
    route: Option<(TopicName, Arc<Route>)>,
    waiting: Vec<Waiting>,
    until: Instant,
    room: Arc<Notify>,
}

impl Passing {
    pub fn new(own: Option<u64>) -> Passing {
        Passing {
            own,
            run: Vec::new(),
            route: None,
            waiting: Vec::new(),
            until: Instant::now(),
            room: Arc::default(),
        }
    }

    /// The route of the last message, if it is of this topic: valid until [`Passing::flush`].
    pub fn route(&self, topic: &TopicName) -> Option<&Arc<Route>> {
        let (known, route) = self.route.as_ref()?;
        (known == topic).then_some(route)
    }

    /// A message that is not stored, towards who is connected, and to be kept if it is retained.
    pub fn publish(
        &mut self,
        message: Message,
        route: Arc<Route>,
        retained: &Retained,
        metrics: &Metrics,
        now_ms: i64,
    ) -> Result<(), PublishError> {
        let message: Arc<SharedMessage> = Arc::new(message.into());
        if message.retain {
            retained.set(&message, now_ms)?;
        }
        self.push(message, route, metrics);
        Ok(())
    }

    /// To be flushed when there is nothing more at hand.
    fn push(&mut self, message: Arc<SharedMessage>, route: Arc<Route>, metrics: &Metrics) {
        let same = self.route.as_ref();
        let same = same.is_some_and(|(_, known)| Arc::ptr_eq(known, &route));
        if !same || self.run.len() >= limits::PASSING_RUN {
            self.flush(metrics);
            self.route = Some((message.topic.clone(), route));
        }
        self.run.push(message);
    }

    /// Puts what was pushed into the mailboxes. What finds no room waits: see [`Passing::waits`].
    pub fn flush(&mut self, metrics: &Metrics) {
        let Some((_, route)) = self.route.take() else {
            return;
        };
        let run = std::mem::take(&mut self.run);
        for group in &route.groups {
            for (mailbox, messages) in group.deal(&run) {
                self.put(&mailbox, messages.into(), Some(group), metrics);
            }
        }
        if !route.mailboxes.is_empty() {
            let run: Arc<[Arc<SharedMessage>]> = run.into();
            for mailbox in &route.mailboxes {
                self.put(mailbox, run.clone(), None, metrics);
            }
        }
    }

    fn put(
        &mut self,
        mailbox: &Arc<Mailbox>,
        messages: Arc<[Arc<SharedMessage>]>,
        group: Option<&Arc<Group>>,
        metrics: &Metrics,
    ) {
        let was_idle = self.waiting.is_empty();
        self.put_behind(mailbox, Batch::new(messages, group.cloned()), metrics);
        if was_idle && !self.waiting.is_empty() {
            self.until = Instant::now() + limits::ROOM_WAIT;
        }
    }

    /// Behind what waits already, if something does.
    fn put_behind(&mut self, mailbox: &Arc<Mailbox>, batch: Batch, metrics: &Metrics) {
        let mut waiting = self.waiting.iter();
        if waiting.any(|one| one.mailbox.id() == mailbox.id()) {
            self.waiting.push(Waiting {
                mailbox: mailbox.clone(),
                batch,
            });
        } else {
            self.try_put(mailbox, batch, metrics);
        }
    }

    /// What a member of a group was given and did not get, to the others.
    pub fn give_back(
        &mut self,
        group: &Arc<Group>,
        messages: &[Arc<SharedMessage>],
        metrics: &Metrics,
    ) {
        let dealt = group.deal(messages);
        if dealt.is_empty() {
            Metrics::add(&metrics.unstored_dropped, messages.len() as u64);
        }
        for (mailbox, messages) in dealt {
            self.put(&mailbox, messages.into(), Some(group), metrics);
        }
    }

    fn try_put(&mut self, mailbox: &Arc<Mailbox>, batch: Batch, metrics: &Metrics) {
        let Err(Refusal { batch, full }) = mailbox.put_batch(batch, &self.room) else {
            return;
        };
        let Some(full) = full else {
            // Its owner has left the group before.
            if let Some(group) = batch.group() {
                self.give_back(group, batch.rest(), metrics);
            }
            return;
        };
        let all = batch.len();
        let left = if self.own == Some(mailbox.id()) || mailbox.is_given_up() {
            None
        } else if full == Full::ForNow {
            Some(batch)
        } else if mailbox.wants_all() {
            // Who waits for its client loses what nobody promised to bring.
            batch.filter(|message| message.qos != QoS::AtMostOnce)
        } else {
            None
        };
        let kept = left.as_ref().map_or(0, Batch::len);
        if kept < all {
            Metrics::add(&metrics.unstored_dropped, (all - kept) as u64);
        }
        if let Some(batch) = left {
            self.waiting.push(Waiting {
                mailbox: mailbox.clone(),
                batch,
            });
        }
    }

    /// Nothing more is to be pushed until it does not.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Until when it does, at most.
    pub fn deadline(&self) -> Option<Instant> {
        self.waits().then_some(self.until)
    }

    /// There may be room. Can be dropped without loss.
    pub async fn room(&self) {
        self.room.notified().await;
    }

    /// Puts what fits now.
    pub fn retry(&mut self, metrics: &Metrics) {
        for Waiting { mailbox, batch } in std::mem::take(&mut self.waiting) {
            self.put_behind(&mailbox, batch, metrics);
        }
    }

    /// It has waited long enough: who did not make room is not waited for again before it does.
    pub fn give_up(&mut self, metrics: &Metrics) {
        for Waiting { mailbox, batch } in self.waiting.drain(..) {
            mailbox.give_up();
            Metrics::add(&metrics.unstored_dropped, batch.len() as u64);
        }
    }

    /// All that was pushed is in the mailboxes, or given up.
    pub async fn settle(&mut self, metrics: &Metrics) {
        self.flush(metrics);
        while self.waits() {
            let room = self.room.clone();
            match timeout_at(self.until, room.notified()).await {
                Ok(()) => self.retry(metrics),
                Err(_) => self.give_up(metrics),
            }
        }
    }
}
