//! Every limit of this crate, by name.

use std::time::Duration;

/// How long to wait for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one attempt may take before its bytes are counted.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long one attempt to put the parts of an upload together may take: both Amazon and Google say "several minutes".
pub const FINISH_TIMEOUT: Duration = Duration::from_secs(180);
/// Slowest link that is lived with, in bytes per second: an attempt may take longer by its bytes at this rate.
pub const SLOWEST_BYTES_PER_SECOND: u64 = 128 * 1024;
/// Attempts at one request; whoever asked hears of the failure then, and may ask again.
pub const ATTEMPTS: u32 = 5;
/// Pause after the first failed attempt; doubles with each, and is shortened by chance down to half.
pub const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between two attempts.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Idle connections kept to one host.
pub const IDLE_CONNECTIONS: usize = 16;
/// Most parts of one upload: S3's limit.
pub const MAX_PARTS: usize = 10_000;
/// Longest text of an error that is taken over from a store, in bytes.
pub const MAX_ERROR_BYTES: usize = 512;
