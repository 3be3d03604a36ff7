//! A real edge and a real core on loopback.

mod core;
mod fleet;
mod link;
mod mux;

mod rate;
mod refused;
mod relay;
mod talk;
