//! Names and patterns to targets: a map for patterns without wildcards, a trie for the others, in a snapshot that changes replace.
//! Knows no protocol: how names and patterns are spelt is a [`Dialect`].

mod cache;
pub mod limits;
mod pattern;
mod targets;
mod trie;

use std::hash::Hash;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rpds::HashTrieMapSync;

pub use cache::{LARGEST_CACHED_PART, LONGEST_CACHED, MatchCache};
pub use pattern::{Dialect, PatternError};

use pattern::parse;
use targets::Targets;
use trie::Node;

/// Patterns and their targets. Changes make a new snapshot; matching never waits for a change.
pub struct Router<T> {
    dialect: Dialect,
    snapshot: ArcSwap<RouterSnapshot<T>>,
    /// Changes are made one after the other.
    changes: Mutex<()>,
}

/// What the router was at one generation.
pub struct RouterSnapshot<T> {
    dialect: Dialect,
    generation: u64,
    /// Patterns without wildcards. A change copies the path to what it changes; the rest is shared with the snapshots before.
    exact: HashTrieMapSync<Arc<str>, Targets<T>>,
    patterns: Node<T>,
}

impl<T: Clone + Eq + Hash> Router<T> {
    /// A router without patterns.
    pub fn new(dialect: Dialect) -> Router<T> {
        let snapshot = RouterSnapshot {
            dialect,
            generation: 0,
            exact: HashTrieMapSync::default(),
            patterns: Node::default(),
        };
        Router {
            dialect,
            snapshot: ArcSwap::from_pointee(snapshot),
            changes: Mutex::new(()),
        }
    }

    /// Adds a target to a pattern; the same pair again changes nothing. Returns the generation that has it.
    pub fn insert(&self, pattern: &str, target: T) -> Result<u64, PatternError> {
        let levels = parse(self.dialect, pattern)?;
        let _one = self.changes.lock();
        let now = self.snapshot.load_full();
        let mut next = now.clone_shallow();
        let added = if pattern::is_exact(&levels) {
            match next.exact.get_mut(pattern) {
                Some(targets) => targets.insert(target),
                None => {
                    next.exact.insert_mut(pattern.into(), Targets::One(target));
                    true
                }
            }
        } else {
            next.patterns.insert(&levels, target)
        };
        Ok(self.publish(next, added))
    }

    /// Takes a target off a pattern; false when it was not there.
    pub fn remove(&self, pattern: &str, target: &T) -> bool {
        let Ok(levels) = parse(self.dialect, pattern) else {
            return false;
        };
        let _one = self.changes.lock();
        let mut next = self.snapshot.load_full().clone_shallow();
        let removed = if pattern::is_exact(&levels) {
            let Some(targets) = next.exact.get_mut(pattern) else {
                return false;
            };
            let removed = targets.remove(target);
            if targets.is_empty() {
                next.exact.remove_mut(pattern);
            }
            removed
        } else {
            next.patterns.remove(&levels, target)
        };
        self.publish(next, removed);
        removed
    }

    fn publish(&self, mut next: RouterSnapshot<T>, changed: bool) -> u64 {
        if changed {
            next.generation += 1;
            let generation = next.generation;
            self.snapshot.store(Arc::new(next));
            return generation;
        }
        next.generation
    }

    /// Moves with every change.
    pub fn generation(&self) -> u64 {
        self.snapshot.load().generation
    }

    /// What the router is now.
    pub fn snapshot(&self) -> Arc<RouterSnapshot<T>> {
        self.snapshot.load_full()
    }

    /// Targets whose pattern matches `name`; a target with several matching patterns comes once for each.
    pub fn matches(&self, name: &str) -> Vec<T> {
        self.snapshot.load().matches(name)
    }
}

impl<T: Clone + Eq + Hash> RouterSnapshot<T> {
    /// Moves with every change of the router.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// See [`Router::matches`].
    pub fn matches(&self, name: &str) -> Vec<T> {
        let mut found = Vec::new();
        if let Some(targets) = self.exact.get(name) {
            targets.collect(&mut found);
        }
        let hidden = self.dialect.hide_dollar && name.starts_with('$');
        let levels: smallvec::SmallVec<[&str; 16]> =
            name.split(char::from(self.dialect.separator)).collect();
        self.patterns.collect(&levels, hidden, &mut found);
        found
    }

    /// Copies what a change may touch last: pointers.
    fn clone_shallow(&self) -> RouterSnapshot<T> {
        RouterSnapshot {
            dialect: self.dialect,
            generation: self.generation,
            exact: self.exact.clone(),
            patterns: self.patterns.clone(),
        }
    }
}

impl<T> std::fmt::Debug for Router<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router")
            .field("dialect", &self.dialect)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
