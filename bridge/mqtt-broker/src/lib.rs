//! The MQTT broker over a [`Backend`]: one task a connection, a session registry, wills, the delivery loop.

pub mod backend;
pub mod convert;

pub use backend::Backend;
