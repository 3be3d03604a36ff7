//! Names and patterns to targets: a map for patterns without wildcards, a trie for the others, in a snapshot that changes replace.

mod pattern;
mod trie;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

pub use pattern::{Dialect, PatternError};

use pattern::{Level, parse};
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
    /// Shards of the exact patterns, by hash: a change copies one of them.
    exact: Vec<Shard<T>>,
    patterns: Node<T>,
}

type Shard<T> = Arc<HashMap<Arc<str>, Vec<T>>>;

/// Shards of the exact map.
const SHARDS: usize = 256;

impl<T: Clone + PartialEq> Router<T> {
    /// A router without patterns.
    pub fn new(dialect: Dialect) -> Router<T> {
        let snapshot = RouterSnapshot {
            dialect,
            generation: 0,
            exact: vec![Arc::default(); SHARDS],
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
            let targets = next.shard_mut(pattern).entry(pattern.into()).or_default();
            let new = !targets.contains(&target);
            if new {
                targets.push(target);
            }
            new
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
            let shard = next.shard_mut(pattern);
            let Some(targets) = shard.get_mut(pattern) else {
                return false;
            };
            let before = targets.len();
            targets.retain(|t| t != target);
            let removed = targets.len() < before;
            if targets.is_empty() {
                shard.remove(pattern);
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

impl<T: Clone + PartialEq> RouterSnapshot<T> {
    /// Moves with every change of the router.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// See [`Router::matches`].
    pub fn matches(&self, name: &str) -> Vec<T> {
        let mut found = self
            .exact
            .get(shard_of(name))
            .and_then(|shard| shard.get(name))
            .cloned()
            .unwrap_or_default();
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

    fn shard_mut(&mut self, name: &str) -> &mut HashMap<Arc<str>, Vec<T>> {
        // There are always SHARDS of them, and the place is a remainder.
        let place = shard_of(name);
        if self.exact.len() <= place {
            self.exact.resize_with(place + 1, Arc::default);
        }
        Arc::make_mut(&mut self.exact[place])
    }
}

fn shard_of(name: &str) -> usize {
    crc32c::crc32c(name.as_bytes()) as usize % SHARDS
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
