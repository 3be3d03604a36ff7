//! Every limit of this crate.

/// Most levels of a name or pattern.
pub const MAX_LEVELS: usize = 256;
