//! Every limit of this crate.

/// Most levels of a pattern with wildcards.
pub const MAX_LEVELS: usize = 256;
