//! How names and patterns are spelt.

use crate::limits::MAX_LEVELS;

/// How names and patterns are spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dialect {
    /// Between levels; an ASCII character.
    pub separator: u8,
    /// The level that stands for exactly one level.
    pub one: u8,
    /// The level that stands for any number of levels, none included.
    pub many: u8,
    /// `many` may stand anywhere; else only as the last level.
    pub many_anywhere: bool,
    /// A wildcard as first level does not match names that begin with `$`.
    pub hide_dollar: bool,
    /// A wildcard character inside a longer level is an error; else it stands for itself.
    pub whole_level_wildcards: bool,
}

impl Dialect {
    /// `/`, `+`, and `#` at the end only; names that begin with `$` are hidden from leading wildcards.
    pub const SLASHED: Dialect = Dialect {
        separator: b'/',
        one: b'+',
        many: b'#',
        many_anywhere: false,
        hide_dollar: true,
        whole_level_wildcards: true,
    };
    /// `.`, `*`, and `#` anywhere.
    pub const DOTTED: Dialect = Dialect {
        separator: b'.',
        one: b'*',
        many: b'#',
        many_anywhere: true,
        hide_dollar: false,
        whole_level_wildcards: false,
    };
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
    /// Too many levels beside wildcards.
    #[error("a wildcard in a pattern of more than {MAX_LEVELS} levels")]
    TooDeep,
}

/// One level of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level<'a> {
    Text(&'a str),
    One,
    Many,
}

pub(crate) fn parse(dialect: Dialect, pattern: &str) -> Result<Vec<Level<'_>>, PatternError> {
    let mut levels = Vec::new();
    for text in pattern.split(char::from(dialect.separator)) {
        if levels.last() == Some(&Level::Many) && !dialect.many_anywhere {
            return Err(PatternError::ManyNotLast);
        }
        levels.push(match text.as_bytes() {
            [byte] if *byte == dialect.one => Level::One,
            [byte] if *byte == dialect.many => Level::Many,
            bytes
                if dialect.whole_level_wildcards
                    && (bytes.contains(&dialect.one) || bytes.contains(&dialect.many)) =>
            {
                return Err(PatternError::PartialWildcard);
            }
            _ => Level::Text(text),
        });
    }
    // Patterns without wildcards are whole names in a map, of any depth.
    if levels.len() > MAX_LEVELS && !is_exact(&levels) {
        return Err(PatternError::TooDeep);
    }
    Ok(levels)
}

pub(crate) fn is_exact(levels: &[Level<'_>]) -> bool {
    levels.iter().all(|level| matches!(level, Level::Text(_)))
}
