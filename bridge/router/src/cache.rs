//! Matches that were found before, as long as the router does not change.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use crate::Router;

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
        if self.limit > 0 {
            self.names.insert(name.into(), found.clone());
        }
        found
    }
}
