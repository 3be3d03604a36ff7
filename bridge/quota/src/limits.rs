//! Every limit of this crate.

use std::time::Duration;

/// Quotas of a configuration: each connection is compared with all of them.
pub const MAX_QUOTAS: usize = 1_000;
/// Accounts of who is not connected are looked through when there are so many, and twice as many as there were left the last time.
pub const SWEEP: usize = 1_024;
/// What a bucket can be overdrawn by: so much of its rate. More than that is forgiven, so that no account is kept for longer.
pub const MAX_DEBT: Duration = Duration::from_secs(3_600);
