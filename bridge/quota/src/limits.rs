//! Every limit of this crate.

/// Quotas of a configuration: each connection is compared with all of them.
pub const MAX_QUOTAS: usize = 1_000;
/// Accounts of who is not connected are looked through when there are so many, and twice as many as there were left the last time.
pub const SWEEP: usize = 1_024;
