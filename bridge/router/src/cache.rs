//! Matches that were found before, as long as the router does not change.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use crate::Router;

/// Bytes of the longest name that is worth remembering. A few thousand of the longest that there can be would be hundreds of megabytes.
pub const LONGEST_CACHED: usize = 256;

/// Remembers what names matched; for one task, which publishes the same names again and again.
#[derive(Debug)]
pub struct MatchCache<T> {
    generation: u64,
    names: HashMap<Arc<str>, Arc<[T]>>,
    limit: usize,
}

impl<T: Clone + Eq + Hash> MatchCache<T> {
    /// A cache of at most `limit` names.
    pub fn new(limit: usize) -> MatchCache<T> {
        MatchCache {
            generation: 0,
            names: HashMap::new(),
            limit,
        }
    }

    /// [`Router::matches`], from memory if the router is what it was.
    pub fn matches(&mut self, router: &Router<T>, name: &str) -> Arc<[T]> {
        let snapshot = router.snapshot();
        if snapshot.generation() != self.generation || self.names.len() >= self.limit {
            // When it is full it begins anew: names that matter come back at once.
            if snapshot.generation() != self.generation || !self.names.contains_key(name) {
                self.names.clear();
            }
            self.generation = snapshot.generation();
        }
        if let Some(found) = self.names.get(name) {
            return found.clone();
        }
        let found: Arc<[T]> = snapshot.matches(name).into();
        if self.limit > 0 && name.len() <= LONGEST_CACHED {
            self.names.insert(name.into(), found.clone());
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dialect;

    #[test]
    fn long_names_are_matched_and_not_remembered() {
        let router = Router::new(Dialect::SLASHED);
        router.insert("a/#", 1).unwrap();
        let mut cache = MatchCache::new(10);
        let name = |len: usize| format!("a/{}", "x".repeat(len - 2));
        for len in [LONGEST_CACHED, LONGEST_CACHED + 1, 60_000] {
            assert_eq!(*cache.matches(&router, &name(len)), [1]);
        }
        let remembered: Vec<usize> = cache.names.keys().map(|name| name.len()).collect();
        assert_eq!(remembered, [LONGEST_CACHED]);
    }
}
