//! Messages of QoS 0 for who is connected, before they are stored. They go to the backend all the same, and come back in a feed; what of that
//! somebody has got already is known again by its number, which is in the record.
//!
//! Given early is what a session gets that ends with its connection; nothing of it has to be remembered longer. Persistent sessions, shared groups and
//! retained messages have the log.
//!
//! Why nobody gets a message twice. The publisher's task puts a message into a mailbox, and its number into what that mailbox was given
//! (`given.rs`), before the backend has it. So whoever finds its copy in a feed, the follower for the mailbox or its owner that reads by itself,
//! finds it after that, and leaves out what is there. An owner that reads by itself empties its mailbox before it looks at what it has read.
//!
//! Why the messages of one client on one topic keep their order [MQTT-4.6.0-6]. They are in one feed, in order. Those that were given early are in the
//! mailbox in order, and before the copy of any later one; the owner offers them first. What finds no room goes by the log, and is noted in the mailbox:
//! while the owner has not offered that, later ones of the same client and topic go by the log too. What was published before the owner
//! subscribed is noted nowhere, so a mailbox is given nothing early until its owner has passed a fence (`fence.rs`): everything that had its
//! number when the subscription was in the router is stored or refused, and the owner has offered all of it that is for it.
//!
//! Numbers are taken before the router is asked: a publisher whose number is not behind the fence finds the subscription.

use crate::mailbox::{Mailbox, Recipient};
use crate::route_cache::{self, RouteCache};
use mqtt_codec::{QoS, TopicName};
use mqtt_session::{ClientId, Message};
use parking_lot::Mutex;
use router::Router;
use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

/// Who can be given messages of one topic early.
pub(crate) type EarlyRoute = Arc<[Arc<Mailbox>]>;

pub(crate) struct Early {
    numbers: Arc<Numbers>,
    routes: RouteCache<u64, EarlyRoute>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Numbers(Mutex<Counted>);

#[derive(Debug)]
struct Counted {
    next: u64,
    /// The first number of each of those that are with the backend.
    open: BTreeSet<u64>,
}

/// The numbers of messages that go to the backend together; dropped when it has answered.
#[derive(Debug)]
pub(crate) struct Ticket {
    numbers: Arc<Numbers>,
    pub first: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.numbers.0.lock().open.remove(&self.first);
    }
}

impl Early {
    /// `start`: at random, so that records of an earlier process, or of another, do not have the numbers of this one.
    pub fn new(start: u64) -> Early {
        Early {
            numbers: Arc::new(Numbers(Mutex::new(Counted {
                next: start >> 1,
                open: BTreeSet::new(),
            }))),
            routes: RouteCache::default(),
            hasher: RandomState::new(),
        }
    }

    /// At least one number, to be taken before [`Early::route`] is asked.
    pub fn begin(&self, count: u64) -> Ticket {
        let mut counted = self.numbers.0.lock();
        let first = counted.next;
        counted.next += count;
        counted.open.insert(first);
        Ticket {
            numbers: self.numbers.clone(),
            first,
        }
    }

    pub fn next_number(&self) -> u64 {
        self.numbers.0.lock().next
    }

    /// Below this one everything is stored or refused.
    pub fn answered(&self) -> u64 {
        let counted = self.numbers.0.lock();
        counted.open.first().copied().unwrap_or(counted.next)
    }

    pub fn route(&self, router: &Router<Recipient>, topic: &TopicName) -> EarlyRoute {
        self.routes.get(router.generation(), topic, || {
            let mailboxes = route_cache::mailboxes(router, topic);
            mailboxes.filter(|mailbox| mailbox.takes_early()).collect()
        })
    }

    /// What keeps its order: the messages of one client, not of one connection, on one topic.
    pub fn source(&self, client: &ClientId, topic: &TopicName) -> u64 {
        self.hasher.hash_one((client.as_str(), topic.as_str()))
    }

    /// For a message of QoS 0 that is not given early although others of its client may be: those that come after it wait for it.
    pub fn by_log(
        &self,
        router: &Router<Recipient>,
        client: &ClientId,
        message: &mut Message,
    ) -> Option<Ticket> {
        if message.qos != QoS::AtMostOnce {
            return None;
        }
        let ticket = self.begin(1);
        let route = self.route(router, &message.topic);
        if !route.is_empty() {
            message.number = Some(ticket.first);
            let source = self.source(client, &message.topic);
            route
                .iter()
                .for_each(|mailbox| mailbox.note_by_log(source, ticket.first));
        }
        Some(ticket)
    }
}
