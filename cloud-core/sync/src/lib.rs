//! The core's side of sync: enrols edges, lets them in, appends what they send exactly once, and sends them their commands.
//!
//! In the order in which an edge meets them: [`authority`] (certificates), `handle_enrol`, `handle_hello`, `handle_batch`, `downlink`.
//! What is known about edges is in [`registry`]. This crate never opens a batch except to find retained messages, and never
//! changes its bytes.
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod authority;
mod downlink;
mod frontend;
mod handle_batch;
mod handle_enrol;
mod handle_hello;
pub mod limits;
mod metrics;
mod registry;
mod time;
mod tokens;

pub use authority::AuthorityError;
pub use frontend::{StartError, SyncFrontend, start};
pub use registry::{EdgeStatus, RegistryError};
pub use sync_quic::{Timing, TlsListen};
pub use tokens::{NewToken, TokenOptions};
