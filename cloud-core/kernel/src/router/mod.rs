//! Names and patterns to targets.

use std::sync::Arc;

/// How names and patterns are spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dialect {
    /// Between levels.
    pub separator: u8,
    /// The level that stands for exactly one level.
    pub one: u8,
    /// The level that stands for any number of levels, none included.
    pub many: u8,
    /// `many` may stand anywhere; else only as the last level.
    pub many_anywhere: bool,
    /// A wildcard as first level does not match names that begin with `$`.
    pub hide_dollar: bool,
}

impl Dialect {
    /// `/`, `+`, and `#` at the end only; names that begin with `$` are hidden from leading wildcards.
    pub const SLASHED: Dialect = Dialect { separator: b'/', one: b'+', many: b'#', many_anywhere: false, hide_dollar: true };
    /// `.`, `*`, and `#` anywhere.
    pub const DOTTED: Dialect = Dialect { separator: b'.', one: b'*', many: b'#', many_anywhere: true, hide_dollar: false };
}

/// Why a pattern is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// `many` stands where the dialect does not allow it.
    #[error("a wildcard for many levels must be the last level")]
    ManyNotLast,
    /// A wildcard shares its level with other characters.
    #[error("a wildcard must be a whole level")]
    PartialWildcard,
    /// Too many levels.
    #[error("more than {} levels", crate::limits::MAX_ROUTER_LEVELS)]
    TooDeep,
}

/// Patterns and their targets. Changes make a new snapshot; matching never waits for a change.
pub struct Router<T> {
    _targets: std::marker::PhantomData<T>,
}

/// What the router was at one generation.
pub struct RouterSnapshot<T> {
    _targets: std::marker::PhantomData<T>,
}

#[allow(clippy::todo)]
impl<T: Clone + PartialEq + Send + Sync + 'static> Router<T> {
    /// A router without patterns.
    pub fn new(dialect: Dialect) -> Router<T> {
        let _ = dialect;
        todo!()
    }
    /// Adds a target to a pattern; the same pair again changes nothing. Returns the generation that has it.
    pub fn insert(&self, pattern: &str, target: T) -> Result<u64, PatternError> {
        let _ = (pattern, target);
        todo!()
    }
    /// Takes a target off a pattern; false when it was not there.
    pub fn remove(&self, pattern: &str, target: &T) -> bool {
        let _ = (pattern, target);
        todo!()
    }
    /// Moves with every change.
    pub fn generation(&self) -> u64 {
        todo!()
    }
    /// What the router is now.
    pub fn snapshot(&self) -> Arc<RouterSnapshot<T>> {
        todo!()
    }
    /// Targets whose pattern matches `name`; a target with several matching patterns comes once for each.
    pub fn matches(&self, name: &str) -> Vec<T> {
        let _ = name;
        todo!()
    }
}
