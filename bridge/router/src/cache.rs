//! Matches that were found before, as long as the router does not change.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use crate::Router;

/// Bytes of the longest name that is worth remembering. A few thousand of the longest that there can be would be hundreds of megabytes.
pub const LONGEST_CACHED: usize = 256;

/// Of the targets that there is room for, the part that one name may have. Were it more, a few such names would push out all others, again and again;
/// and to give something to so many takes longer than to find them.
pub const LARGEST_CACHED_PART: usize = 16;

/// Remembers what names matched; for one task, which publishes the same names again and again.
#[derive(Debug)]
pub struct MatchCache<T> {
    generation: u64,
    names: HashMap<Arc<str>, Arc<[T]>>,
    /// Of all names together.
    targets: usize,
    most_names: usize,
    most_targets: usize,
}

impl<T: Clone + Eq + Hash> MatchCache<T> {
    /// A cache of at most so many names, with at most so many targets together: a name that everybody wants costs as much as many that few want.
    pub fn new(most_names: usize, most_targets: usize) -> MatchCache<T> {
        MatchCache {
            generation: 0,
            names: HashMap::new(),
            targets: 0,
            most_names,
            most_targets,
        }
    }

    /// [`Router::matches`], from memory if the router is what it was.
    pub fn matches(&mut self, router: &Router<T>, name: &str) -> Arc<[T]> {
        let snapshot = router.snapshot();
        if snapshot.generation() != self.generation {
            self.forget();
            self.generation = snapshot.generation();
        }
        if let Some(found) = self.names.get(name) {
            return found.clone();
        }
        let found: Arc<[T]> = snapshot.matches(name).into();
        self.remember(name, &found);
        found
    }

    fn remember(&mut self, name: &str, found: &Arc<[T]>) {
        let too_many = found.len() > self.most_targets / LARGEST_CACHED_PART;
        if self.most_names == 0 || name.len() > LONGEST_CACHED || too_many {
            return;
        }
        if self.names.len() >= self.most_names || self.targets + found.len() > self.most_targets {
            // When it is full it begins anew: names that matter come back at once.
            self.forget();
        }
        self.targets += found.len();
        self.names.insert(name.into(), found.clone());
    }

    fn forget(&mut self) {
        self.names.clear();
        self.targets = 0;
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
        let mut cache = MatchCache::new(10, 1_000);
        let name = |len: usize| format!("a/{}", "x".repeat(len - 2));
        for len in [LONGEST_CACHED, LONGEST_CACHED + 1, 60_000] {
            assert_eq!(*cache.matches(&router, &name(len)), [1]);
        }
        let remembered: Vec<usize> = cache.names.keys().map(|name| name.len()).collect();
        assert_eq!(remembered, [LONGEST_CACHED]);
    }

    fn remembered(cache: &MatchCache<usize>) -> usize {
        cache.names.values().map(|found| found.len()).sum()
    }

    #[test]
    fn what_is_remembered_has_a_bound_in_targets() {
        const MOST: usize = 1 << 20;
        let router = Router::new(Dialect::SLASHED);
        for target in 0..1_000 {
            router.insert("#", target).unwrap();
        }
        router.insert("few/7", 1_000).unwrap();
        let mut cache = MatchCache::new(8_192, MOST);
        for n in 0..3_000 {
            let name = format!("few/{n}");
            let found = cache.matches(&router, &name);
            assert_eq!(found.len(), 1_000 + usize::from(n == 7));
            assert!(Arc::ptr_eq(&found, &cache.matches(&router, &name)));
            assert!(remembered(&cache) <= MOST, "after {n} names");
            assert_eq!(cache.targets, remembered(&cache));
        }
        assert!(cache.names.len() > 500, "it begins anew only when full");
        let last: Vec<usize> = cache.matches(&router, "few/7").to_vec();
        let mut expected = router.matches("few/7");
        assert_eq!(last, expected);
        router.remove("#", &3);
        expected.retain(|target| *target != 3);
        assert_eq!(*cache.matches(&router, "few/7"), *expected);
        assert_eq!(cache.targets, remembered(&cache));
    }

    #[test]
    fn a_name_with_too_many_targets_pushes_nothing_out() {
        const MOST: usize = 160;
        let router = Router::new(Dialect::SLASHED);
        for target in 0..11 {
            router.insert("many", target).unwrap();
        }
        router.insert("few", 0).unwrap();
        let mut cache = MatchCache::new(10, MOST);
        for name in ["few", "many", "few"] {
            assert_eq!(*cache.matches(&router, name), *router.matches(name));
        }
        assert_eq!(remembered(&cache), 1);
        router.remove("many", &10);
        cache.matches(&router, "many");
        assert_eq!(remembered(&cache), MOST / LARGEST_CACHED_PART);
    }
}
