//! Who gets what is published to a topic: asked of a router once, and remembered for as long as nobody subscribes or unsubscribes.

use crate::limits;
use crate::mailbox::{Mailbox, Recipient};
use mqtt_codec::TopicName;
use parking_lot::RwLock;
use router::{LARGEST_CACHED_PART, LONGEST_CACHED, Router};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What a cache counts, beside topics.
pub(crate) trait Targets {
    /// Of how many mailboxes and groups it keeps a pointer.
    fn targets(&self) -> usize;
}

impl Targets for Arc<[Arc<Mailbox>]> {
    fn targets(&self) -> usize {
        self.len()
    }
}

/// `G`: what the routers call their generation; `R`: what is remembered for a topic, cheap to clone.
#[derive(Debug, Default)]
pub(crate) struct RouteCache<G, R>(RwLock<Routes<G, R>>);

#[derive(Debug, Default)]
struct Routes<G, R> {
    generation: G,
    topics: HashMap<TopicName, R>,
    /// Of all topics together.
    targets: usize,
}

impl<G: Copy + PartialEq, R: Clone + Targets> RouteCache<G, R> {
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
        let targets = route.targets();
        let too_many = targets > limits::CACHED_TARGETS / LARGEST_CACHED_PART;
        if topic.as_str().len() > LONGEST_CACHED || too_many {
            return route;
        }
        let mut routes = self.0.write();
        if routes.generation != generation
            || routes.topics.len() >= limits::CACHED_TOPICS
            || routes.targets + targets > limits::CACHED_TARGETS
        {
            routes.topics.clear();
            routes.targets = 0;
            routes.generation = generation;
        }
        routes.targets += targets;
        if let Some(before) = routes.topics.insert(topic.clone(), route.clone()) {
            // Somebody else has found it at the same time.
            routes.targets -= before.targets();
        }
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

    impl Targets for usize {
        fn targets(&self) -> usize {
            *self
        }
    }

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

    #[test]
    fn what_is_remembered_has_a_bound_in_targets() {
        let cache: RouteCache<u64, usize> = RouteCache::default();
        let largest = limits::CACHED_TARGETS / LARGEST_CACHED_PART;
        for n in 0..5_000 {
            let topic = TopicName::new(&format!("t/{n}")).unwrap();
            // Now and then one of as many as may be, and one that has too many.
            let targets = match n % 100 {
                0 => largest,
                1 => largest + 1,
                _ => 1_000,
            };
            let generation = n / 2_000;
            assert_eq!(cache.get(generation, &topic, || targets), targets);
            let found_again = cache.get(generation, &topic, || 0);
            assert_eq!(found_again, if targets > largest { 0 } else { targets });
            let routes = cache.0.read();
            let remembered: usize = routes.topics.values().sum();
            assert_eq!(routes.targets, remembered);
            assert!(remembered <= limits::CACHED_TARGETS, "after {n} topics");
        }
    }

    #[test]
    fn what_two_find_at_once_is_counted_once() {
        let cache: RouteCache<u64, usize> = RouteCache::default();
        let topic = TopicName::new("t").unwrap();
        cache.get(1, &topic, || cache.get(1, &topic, || 7));
        assert_eq!(cache.0.read().targets, 7);
    }
}
