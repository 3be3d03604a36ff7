//! Every limit of this crate.

use std::time::Duration;

/// Wrong passwords of one user from one source, after which the next is looked at only when [`PAUSE`] is over.
pub const TRIES_OF_USER_FROM_ADDRESS: u32 = 5;
/// The same of all users from one source, and of one user from all of them.
pub const TRIES_FROM_ADDRESS: u32 = 50;
pub const TRIES_OF_USER: u32 = 100;
/// Counted from the last wrong one.
pub const PAUSE: Duration = Duration::from_secs(30);
/// Whose wrong passwords are remembered: so many users, as many sources, and as many users from a source.
pub const REMEMBERED: usize = 4096;
/// How often the log says that somebody was refused, for each user.
pub const REFUSALS_EVERY: Duration = Duration::from_secs(60);
/// Users of whom it says so in that time.
pub const REFUSALS_TOLD: usize = 1024;
/// Longest user name that is looked at, in bytes.
pub const MAX_NAME: usize = 256;
/// Longest password, in bytes.
pub const MAX_PASSWORD: usize = 1024;
/// What a hash may cost: KiB of memory, and passes over it.
pub const MAX_HASH_MEMORY: u32 = 32 * 1024;
pub const MAX_HASH_PASSES: u32 = 16;
/// Longest message of a SCRAM exchange, in bytes.
pub const MAX_SCRAM_MESSAGE: usize = 4096;
/// Rounds of PBKDF2 of keys that are made here (RFC 7677 asks for 4096 at least). The client computes them at each login.
pub const SCRAM_ITERATIONS: u32 = 8192;
