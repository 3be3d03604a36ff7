//! Checks that other people's implementations and ours agree. The checks are in `tests/`; here is what they share.

pub mod raw_kafka;
pub mod seed;
