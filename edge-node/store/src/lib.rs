//! The edge's store: what is acknowledged to a device is in here, on the disk.
//!
//! Two logs of the same kind, *outbox* (published here, on its way to the core) and *inbox* (from the core, for local
//! subscribers): append-only files with checksums, written by one thread each with group commit. Beside them the *ledger*, on
//! sled: cursors, sessions, retained messages, QoS 2 packet ids. The ledger is never waited for by an acknowledgement; what it
//! has not got yet is read from the segments again after a crash.
//!
//! This crate knows records and batches, and no protocol. It is the only one that names sled.
//!
//! Why a segment log and not sled alone: `docs/design/2026-11-21-first-light.md`.

mod apply;
mod config;
pub mod disk;
mod frame;
mod keeper;
pub mod ledger;
pub mod limits;
mod log;
mod quarantine;
mod recovery;
mod segment;
mod sessions;
mod stats;
mod store;
mod wire;
mod writer;

pub use apply::Retained;
pub use config::Config;
pub use frame::{Frame, Lane, Origin, PacketRef};
pub use log::{End, FrameRead, From, LogId, WriteError};
pub use recovery::OpenError;
pub use segment::{FORMAT_VERSION, Producer};
pub use sessions::{Checkpoint, Session, SessionError};
pub use stats::Stats;
pub use store::{NewMessage, Store};

#[cfg(test)]
mod tests;
