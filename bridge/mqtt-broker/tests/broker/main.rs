//! The broker over a backend in memory, driven by real bytes under virtual time.

mod access;
mod chapters;
mod client;
mod connecting;
mod hostile;
mod memory;
mod publishing;
mod sessions;
mod subscribing;
mod wills;
