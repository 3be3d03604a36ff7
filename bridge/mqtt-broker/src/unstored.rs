//! Topics that are never stored (`persist = "never"`): who gets what is published to them, and what is remembered of them while the process lives.

use crate::backend::{ClientId, Message, PublishError, SharedMessage};
use crate::extra::{PersistRules, RetainedLimits};
use crate::limits;
use crate::mailbox::{Mailbox, Recipient};
use crate::route_cache::{self, RouteCache, Targets};
use crate::unstored_groups::{Group, Groups};
use mqtt_codec::{PacketId, TopicFilter, TopicName};
use parking_lot::Mutex;
use router::Router;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tokio::time::Instant;

/// Who gets what is published to one topic, at one generation of the routers.
#[derive(Debug)]
pub(crate) struct Route {
    pub mailboxes: Vec<Arc<Mailbox>>,
    /// One member of each gets it.
    pub groups: Vec<Arc<Group>>,
}

impl Targets for Option<Arc<Route>> {
    fn targets(&self) -> usize {
        let route = self.as_ref();
        route.map_or(0, |route| route.mailboxes.len() + route.groups.len())
    }
}

pub(crate) struct Unstored {
    rules: PersistRules,
    is_used: bool,
    pub groups: Groups,
    /// `None` = the topic is stored.
    routes: RouteCache<(u64, u64), Option<Arc<Route>>>,
    pub retained: Retained,
    /// QoS 2 packet ids that clients have not released, of persistent sessions whose client is away.
    unreleased: Mutex<HashMap<ClientId, BTreeSet<PacketId>>>,
}

impl Unstored {
    pub fn new(rules: PersistRules, limits: RetainedLimits) -> Unstored {
        Unstored {
            is_used: rules.can_be_unstored(),
            rules,
            groups: Groups::default(),
            routes: RouteCache::default(),
            retained: Retained::new(limits),
            unreleased: Mutex::default(),
        }
    }

    /// Is there a rule that says never?
    pub fn is_used(&self) -> bool {
        self.is_used
    }

    pub fn is_stored(&self, topic: &TopicName) -> bool {
        self.rules.is_stored(topic)
    }

    /// `None` = messages on this topic are stored.
    pub fn route(&self, router: &Router<Recipient>, topic: &TopicName) -> Option<Arc<Route>> {
        if !self.is_used {
            return None;
        }
        let groups = self.groups.router();
        let generations = (router.generation(), groups.generation());
        self.routes.get(generations, topic, || {
            let find = || Route {
                mailboxes: route_cache::mailboxes(router, topic).collect(),
                groups: groups.matches(topic.as_str()),
            };
            (!self.is_stored(topic)).then(|| Arc::new(find()))
        })
    }

    /// Keeps them for the next connection of the session.
    pub fn keep_unreleased(&self, client: &ClientId, ids: BTreeSet<PacketId>) {
        if !ids.is_empty() {
            self.unreleased.lock().insert(client.clone(), ids);
        }
    }

    pub fn take_unreleased(&self, client: &ClientId) -> BTreeSet<PacketId> {
        self.unreleased.lock().remove(client).unwrap_or_default()
    }
}

/// The retained messages of topics that are not stored: gone with the process. They have their own number, of which there can be as many as
/// of the stored ones, and their own bound in bytes.
#[derive(Debug)]
pub(crate) struct Retained {
    limits: RetainedLimits,
    all: Mutex<RetainedMessages>,
}

#[derive(Debug, Default)]
struct RetainedMessages {
    topics: BTreeMap<TopicName, Arc<SharedMessage>>,
    bytes: usize,
    /// When one more found no room, and those were looked for that have expired.
    looked: Option<Instant>,
}

impl RetainedMessages {
    fn drop_expired(&mut self, now_ms: i64) {
        self.topics.retain(|_, message| {
            let expired = message.is_expired(now_ms);
            if expired {
                self.bytes -= retained_cost(message);
            }
            !expired
        });
    }
}

fn retained_cost(message: &SharedMessage) -> usize {
    message.size() + limits::RETAINED_OVERHEAD
}

impl Retained {
    fn new(limits: RetainedLimits) -> Retained {
        Retained {
            limits,
            all: Mutex::default(),
        }
    }

    /// An empty payload deletes it [MQTT-3.3.1-6].
    pub fn set(&self, message: &Arc<SharedMessage>, now_ms: i64) -> Result<(), PublishError> {
        let mut all = self.all.lock();
        if message.payload.is_empty() {
            if let Some(old) = all.topics.remove(&message.topic) {
                all.bytes -= retained_cost(&old);
            }
            return Ok(());
        }
        self.limits.check_size(&message.payload)?;
        if let Err(refused) = self.check_room(&all, message) {
            let now = Instant::now();
            let looked = all.looked.filter(|at| now - *at < limits::UNSTORED_LOOK);
            if looked.is_some() {
                return Err(refused);
            }
            all.looked = Some(now);
            all.drop_expired(now_ms);
            self.check_room(&all, message)?;
        }
        let copy = Arc::new(message.detached().into());
        all.bytes += retained_cost(&copy);
        if let Some(old) = all.topics.insert(message.topic.clone(), copy) {
            all.bytes -= retained_cost(&old);
        }
        Ok(())
    }

    fn check_room(
        &self,
        all: &RetainedMessages,
        message: &SharedMessage,
    ) -> Result<(), PublishError> {
        let before = all.topics.get(&message.topic);
        if before.is_none() && all.topics.len() >= self.limits.messages {
            return Err(self.limits.too_many());
        }
        let before = before.map_or(0, |message| retained_cost(message));
        let limit = limits::UNSTORED_RETAINED_BYTES;
        if all.bytes - before + retained_cost(message) > limit {
            let text = format!(
                "the retained messages of topics that are not stored are {limit} bytes already"
            );
            return Err(PublishError::QuotaExceeded(text));
        }
        Ok(())
    }

    pub fn matching(&self, filter: &TopicFilter, now_ms: i64) -> Vec<Message> {
        let mut all = self.all.lock();
        all.drop_expired(now_ms);
        let matching = all.topics.values();
        let matching = matching.filter(|message| filter.matches(&message.topic));
        matching.map(|message| Message::clone(message)).collect()
    }

    pub fn len(&self) -> usize {
        self.all.lock().topics.len()
    }
}
