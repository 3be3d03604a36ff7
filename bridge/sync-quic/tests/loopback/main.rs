//! A real edge and a real core over QUIC on loopback.

mod core;
mod refused;
mod talk;
