//! The wall clock, for token expiry and "last seen"; nothing on the data path depends on it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970; 0 on a machine whose clock is before that.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|elapsed| i64::try_from(elapsed.as_millis()).ok())
        .unwrap_or(0)
}

/// The year of the wall clock, good enough for the end of a certificate.
pub(crate) fn year(now_ms: i64) -> i32 {
    const YEAR_MS: i64 = 31_556_952_000;
    i32::try_from(1970 + now_ms / YEAR_MS).unwrap_or(9000)
}
