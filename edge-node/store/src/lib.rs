//! The edge's store: what is acknowledged to a device is in here, on the disk.
//!
//! Logs of one kind: the *outbox* has one for each lane (published here, on its way to the core), the *inbox* is one (from the core,
//! for local subscribers). Append-only files with checksums, written by one thread each with group commit. Beside them the *ledger*,
//! on sled: cursors, gaps, sessions, retained messages, QoS 2 packet ids. The ledger is never waited for by an acknowledgement; what
//! it has not got yet is read from the segments again after a crash.
//!
//! This crate knows records and batches, and no protocol. It is the only one that names sled.
//!
//! Why a segment log and not sled alone: `docs/design/2026-11-21-first-light.md`.

mod apply;
mod boots;
mod bound;
mod config;
mod delayed;
pub mod disk;
mod evict;
mod frame;
mod gap;
mod hand;
mod item;
mod keeper;
mod landing;
mod lanes;
pub mod ledger;
pub mod limits;
mod log;
mod progress;
mod quarantine;
mod recognise;
mod recovery;
mod retained;
mod segment;
mod sessions;
mod space;
mod stats;
mod store;
mod wills;
mod wire;
mod writer;

pub use apply::Retained;
pub use config::{Config, Eviction, LOCAL, LaneConfig, is_lane_name};
pub use delayed::{Delayed, DelayedDue, DelayedKey};
pub use frame::{Frame, Lane, Origin, PacketRef, View};
pub use gap::{Gap, GapReason};
pub use log::{End, FrameRead, From, LogId, WriteError};
pub use progress::{Progress, Unwritten};
pub use recognise::{Recognised, recognise};
pub use recovery::OpenError;
pub use segment::{FORMAT_VERSION, Producer};
pub use sessions::{Checkpoint, Session, SessionError};
pub use space::{RESERVE, lacks_room};
pub use stats::{LaneStats, Stats};
pub use store::{LaneInfo, NewDelayed, NewMessage, Now, OutboxRead, Store};
pub use wills::{WillRef, WillRest};

#[cfg(test)]
mod tests;
