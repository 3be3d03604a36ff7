//! The Kafka front end.

pub mod limits;
pub mod wire;
