//! Every limit of the crate.

use std::time::Duration;

/// Batches of one edge between arrival and commit.
pub const MAX_BATCHES_IN_FLIGHT: usize = 256;
/// Downlink batches of one edge that it has not confirmed yet.
pub const MAX_DOWN_UNCONFIRMED: usize = 32;
/// Bytes of the command stream looked through at a time, for one edge.
pub const DOWN_READ_BYTES: usize = 256 * 1024;
/// Longest life of a token.
pub const MAX_TOKEN_TTL: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// Labels of a token, and so of an edge.
pub const MAX_LABELS: usize = 32;
/// Longest label name or value, in bytes.
pub const MAX_LABEL: usize = 128;
/// Years that an edge's certificate is valid.
pub const EDGE_CERTIFICATE_YEARS: i32 = 10;
