//! The subscriptions of one session, and what a message on a feed means to them.

use crate::{FeedId, Message, Position, limits};
use mqtt_codec::{QoS, SubscriptionOptions, TopicFilter, TopicName, filter_matches};

#[derive(Clone, Debug, PartialEq)]
pub struct Subscription {
    pub options: SubscriptionOptions,
    pub identifier: Option<u32>,
    /// Where it begins on feeds that the session was reading already, perhaps from further back. Forgotten when passed.
    pub starts: Vec<(FeedId, Position)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subscriptions {
    /// In the order of the filters. Mostly there is one, for which a tree would have room for eleven.
    all: Vec<(TopicFilter, Subscription)>,
    /// The filters of `all` that are not plain topics.
    wildcards: Vec<TopicFilter>,
}

/// The filters that a session has at one moment, for whoever reads for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Sorted.
    plain: Vec<TopicFilter>,
    wildcards: Vec<TopicFilter>,
    /// There are too many to ask.
    all: bool,
}

impl Filters {
    /// Can a message on this topic be for the session?
    pub fn match_topic(&self, topic: &str) -> bool {
        if self.all {
            return true;
        }
        let plain = self.plain.binary_search_by(|one| one.as_str().cmp(topic));
        let mut wildcards = self.wildcards.iter();
        plain.is_ok() || wildcards.any(|filter| filter_matches(filter.as_str(), topic))
    }
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
    fn place(&self, filter: &str) -> Result<usize, usize> {
        self.all
            .binary_search_by(|(other, _)| other.as_str().cmp(filter))
    }

    fn find(&self, filter: &str) -> Option<&Subscription> {
        let place = self.place(filter).ok()?;
        self.all.get(place).map(|(_, subscription)| subscription)
    }

    /// Returns whether there was one with this filter, which is replaced [MQTT-3.8.4-3].
    pub fn insert(&mut self, filter: TopicFilter, subscription: Subscription) -> bool {
        match self.place(filter.as_str()) {
            Ok(place) => {
                if let Some((_, old)) = self.all.get_mut(place) {
                    *old = subscription;
                }
                true
            }
            Err(place) => {
                if filter.has_wildcard() {
                    self.wildcards.push(filter.clone());
                }
                if self.all.is_empty() {
                    self.all.reserve_exact(1);
                }
                self.all.insert(place, (filter, subscription));
                false
            }
        }
    }

    pub fn remove(&mut self, filter: &TopicFilter) -> bool {
        self.wildcards.retain(|other| other != filter);
        match self.place(filter.as_str()) {
            Ok(place) => {
                self.all.remove(place);
                true
            }
            Err(_) => false,
        }
    }

    pub fn get(&self, filter: &TopicFilter) -> Option<&Subscription> {
        self.find(filter.as_str())
    }

    /// In the order of their filters.
    pub fn iter(&self) -> impl Iterator<Item = (&TopicFilter, &Subscription)> {
        let all = self.all.iter();
        all.map(|(filter, subscription)| (filter, subscription))
    }

    /// All of them as they are now.
    pub fn filters(&self) -> Filters {
        if self.wildcards.len() > limits::ASKED_WILDCARDS {
            return Filters {
                all: true,
                ..Filters::default()
            };
        }
        let plain = self.iter().map(|(filter, _)| filter);
        Filters {
            plain: plain.filter(|one| !one.has_wildcard()).cloned().collect(),
            wildcards: self.wildcards.clone(),
            all: false,
        }
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn matching<'a>(&'a self, topic: &'a TopicName) -> impl Iterator<Item = &'a Subscription> {
        let exact = self.find(topic.as_str());
        let wild = self.wildcards.iter().filter(|filter| filter.matches(topic));
        exact
            .into_iter()
            .chain(wild.filter_map(|filter| self.get(filter)))
    }

    /// `None` = nobody wants it. `client` is what marks the session's own messages.
    pub fn matches(
        &self,
        feed: FeedId,
        at: Position,
        message: &Message,
        client: u64,
    ) -> Option<Match> {
        let mut result: Option<Match> = None;
        for subscription in self.matching(&message.topic) {
            let own = message.origin == Some(client);
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

    /// Must a message on this topic say whose it is, so that it does not come back?
    pub fn no_local_matches(&self, topic: &TopicName) -> bool {
        self.matching(topic)
            .any(|subscription| subscription.options.no_local)
    }

    /// The session has read the feed up to here.
    pub fn passed(&mut self, feed: FeedId, position: Position) {
        for (_, subscription) in &mut self.all {
            subscription
                .starts
                .retain(|(id, start)| *id != feed || position < *start);
        }
    }

    pub fn has_starts(&self) -> bool {
        self.all
            .iter()
            .any(|(_, subscription)| !subscription.starts.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(identifier: u32) -> Subscription {
        Subscription {
            options: SubscriptionOptions::default(),
            identifier: Some(identifier),
            starts: Vec::new(),
        }
    }

    fn identifiers(all: &Subscriptions, topic: &str) -> Vec<u32> {
        let topic = TopicName::new(topic).unwrap();
        let mut found: Vec<u32> = all
            .matching(&topic)
            .filter_map(|one| one.identifier)
            .collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn each_filter_is_there_once_whatever_the_order_in_which_they_come() {
        let filter = |text: &str| TopicFilter::new(text).unwrap();
        let mut all = Subscriptions::default();
        for (n, text) in ["m", "z/+", "a", "#", "m/n"].iter().enumerate() {
            assert!(!all.insert(filter(text), subscription(n as u32)));
        }
        assert!(all.insert(filter("a"), subscription(7)));
        assert_eq!(all.len(), 5);
        let order: Vec<&str> = all.iter().map(|(filter, _)| filter.as_str()).collect();
        assert_eq!(order, ["#", "a", "m", "m/n", "z/+"]);
        assert_eq!(identifiers(&all, "a"), [3, 7]);
        assert_eq!(identifiers(&all, "z/1"), [1, 3]);
        assert!(all.remove(&filter("#")) && !all.remove(&filter("#")));
        assert_eq!(identifiers(&all, "z/1"), [1]);
        assert_eq!(identifiers(&all, "b"), Vec::<u32>::new());
        let filters = all.filters();
        for topic in ["a", "m", "m/n", "z/1"] {
            assert!(filters.match_topic(topic), "{topic}");
        }
        for topic in ["b", "m/", "m/n/o", "z", "z/1/2", "", "$SYS/a"] {
            assert!(!filters.match_topic(topic), "{topic}");
        }
        assert!(all.get(&filter("#")).is_none());
    }

    #[test]
    fn with_too_many_wildcards_every_topic_can_match() {
        let mut all = Subscriptions::default();
        for n in 0..limits::ASKED_WILDCARDS {
            let filter = TopicFilter::new(&format!("a/{n}/+")).unwrap();
            all.insert(filter, subscription(1));
        }
        assert!(all.filters().match_topic("a/7/x"));
        assert!(!all.filters().match_topic("b"));
        let one_more = TopicFilter::new("a/x/+").unwrap();
        all.insert(one_more.clone(), subscription(1));
        assert!(all.filters().match_topic("b"));
        assert!(all.remove(&one_more));
        assert!(!all.filters().match_topic("b"));
    }
}
