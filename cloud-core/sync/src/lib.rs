//! The core's side of sync: enrols edges, lets them in, appends what they send exactly once, and sends them their commands.
//!
//! In the order in which an edge meets them: [`authority`] (certificates), `handle_enrol`, `handle_hello`, `handle_batch`, `downlink`.
//! What is known about edges is in [`registry`]. This crate never opens a batch except to find retained messages, and never
//! changes its bytes: what was compressed for the link is restored first. A connection's lanes are in `lane`, what they bring in
//! `handle_batch` and `handle_gap`, what was reported of gaps is read in `gap_reports`; copies of edges are told apart in `incarnation`.
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod authority;
mod dictionaries;
mod downlink;
mod frontend;
mod gap_reports;
mod handle_batch;
mod handle_enrol;
mod handle_gap;
mod handle_hello;
mod incarnation;
mod lane;
pub mod limits;
mod metrics;
mod pacing;
mod queries;
mod registry;
mod set_aside;
mod stored;
mod time;
mod tokens;

pub use authority::AuthorityError;
pub use frontend::{StartError, SyncFrontend, start};
pub use gap_reports::{GapsError, GapsPage};
pub use handle_gap::{Gap, GapTotals};
pub use queries::QueryError;
pub use registry::{Came, EdgeStatus, RegistryError};
pub use set_aside::SetAside;
pub use stored::{EdgeLane, FencingEvent};
pub use sync_quic::{Timing, TlsListen};
pub use tokens::{NewToken, TokenOptions};
