//! Who gets what is published to a topic: asked of a router once, and remembered for as long as nobody subscribes or unsubscribes.

use crate::limits;
use crate::mailbox::{Mailbox, Recipient};
use mqtt_codec::TopicName;
use parking_lot::RwLock;
use router::{LONGEST_CACHED, Router};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// `G`: what the routers call their generation; `R`: what is remembered for a topic, cheap to clone.
#[derive(Debug, Default)]
pub(crate) struct RouteCache<G, R>(RwLock<Routes<G, R>>);

#[derive(Debug, Default)]
struct Routes<G, R> {
    generation: G,
    topics: HashMap<TopicName, R>,
}

impl<G: Copy + PartialEq, R: Clone> RouteCache<G, R> {
    /// `generation` is asked before, and `find` asks the routers after that: what is found is at least as new.
    pub fn get(&self, generation: G, topic: &TopicName, find: impl FnOnce() -> R) -> R {
        {
            let routes = self.0.read();
            if routes.generation == generation
                && let Some(route) = routes.topics.get(topic)
            {
                return route.clone();
            }
        }
        let route = find();
        if topic.as_str().len() > LONGEST_CACHED {
            return route;
        }
        let mut routes = self.0.write();
        if routes.generation != generation || routes.topics.len() >= limits::CACHED_TOPICS {
            routes.topics.clear();
            routes.generation = generation;
        }
        routes.topics.insert(topic.clone(), route.clone());
        route
    }
}

/// Each of them once: several filters of one connection can match, and its session looks at all of them.
pub(crate) fn mailboxes(
    router: &Router<Recipient>,
    topic: &TopicName,
) -> impl Iterator<Item = Arc<Mailbox>> {
    let mut seen = HashSet::new();
    let matching = router.matches(topic.as_str()).into_iter();
    matching
        .map(|Recipient(mailbox)| mailbox)
        .filter(move |mailbox| seen.insert(mailbox.id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_topics_are_found_and_not_remembered() {
        let cache: RouteCache<u64, usize> = RouteCache::default();
        for len in [LONGEST_CACHED, LONGEST_CACHED + 1, 60_000] {
            let topic = TopicName::new(&"x".repeat(len)).unwrap();
            assert_eq!(cache.get(1, &topic, || len), len);
        }
        let remembered: Vec<usize> = cache.0.read().topics.values().copied().collect();
        assert_eq!(remembered, [LONGEST_CACHED]);
    }
}
