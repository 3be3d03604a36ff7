//! The subscriptions of one session, and what a message on a feed means to them.

use crate::{FeedId, Message, Position};
use mqtt_codec::{QoS, SubscriptionOptions, TopicFilter, TopicName};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub struct Subscription {
    pub options: SubscriptionOptions,
    pub identifier: Option<u32>,
    /// Where it begins on feeds that the session was reading already, perhaps from further back. Forgotten when passed.
    pub starts: Vec<(FeedId, Position)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subscriptions {
    /// In boxes: a node of the map has room for eleven, mostly there is one.
    all: BTreeMap<TopicFilter, Box<Subscription>>,
    /// The filters of `all` that are not plain topics.
    wildcards: Vec<TopicFilter>,
}

/// What all subscriptions that match a message say together: it is delivered once (section 3.3.4).
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    /// The highest granted.
    pub qos: QoS,
    pub retain_as_published: bool,
    pub identifiers: Vec<u32>,
}

impl Subscriptions {
    /// Returns whether there was one with this filter, which is replaced [MQTT-3.8.4-3].
    pub fn insert(&mut self, filter: TopicFilter, subscription: Subscription) -> bool {
        let existed = self.all.insert(filter.clone(), Box::new(subscription));
        let existed = existed.is_some();
        if !existed && filter.has_wildcard() {
            self.wildcards.push(filter);
        }
        existed
    }

    pub fn remove(&mut self, filter: &TopicFilter) -> bool {
        self.wildcards.retain(|other| other != filter);
        self.all.remove(filter).is_some()
    }

    pub fn get(&self, filter: &TopicFilter) -> Option<&Subscription> {
        self.all.get(filter).map(Box::as_ref)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&TopicFilter, &Subscription)> {
        self.all
            .iter()
            .map(|(filter, subscription)| (filter, &**subscription))
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn matching<'a>(&'a self, topic: &'a TopicName) -> impl Iterator<Item = &'a Subscription> {
        let exact = self.all.get(topic.as_str());
        let wild = self.wildcards.iter().filter(|filter| filter.matches(topic));
        exact
            .into_iter()
            .chain(wild.filter_map(|filter| self.all.get(filter)))
            .map(Box::as_ref)
    }

    /// `None` = nobody wants it. `tag` is the session's own.
    pub fn matches(
        &self,
        feed: FeedId,
        at: Position,
        message: &Message,
        tag: u64,
    ) -> Option<Match> {
        let mut result: Option<Match> = None;
        for subscription in self.matching(&message.topic) {
            let own = message.origin == Some(tag);
            let before = subscription
                .starts
                .iter()
                .any(|(id, start)| *id == feed && at < *start);
            if before || (own && subscription.options.no_local) {
                continue;
            }
            let options = subscription.options;
            let all = result.get_or_insert(Match {
                qos: options.qos,
                retain_as_published: false,
                identifiers: Vec::new(),
            });
            all.qos = all.qos.max(options.qos);
            all.retain_as_published |= options.retain_as_published;
            all.identifiers.extend(subscription.identifier);
        }
        result
    }

    /// Must a message on this topic carry the session's tag, so that it does not come back?
    pub fn no_local_matches(&self, topic: &TopicName) -> bool {
        self.matching(topic)
            .any(|subscription| subscription.options.no_local)
    }

    /// The session has read the feed up to here.
    pub fn passed(&mut self, feed: FeedId, position: Position) {
        for subscription in self.all.values_mut() {
            subscription
                .starts
                .retain(|(id, start)| *id != feed || position < *start);
        }
    }

    pub fn has_starts(&self) -> bool {
        self.all
            .values()
            .any(|subscription| !subscription.starts.is_empty())
    }
}
