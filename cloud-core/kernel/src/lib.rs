//! The kernel of the core: one durable log, and what can be built on a log without knowing who speaks to it.
//!
//! It offers streams of partitions (append, read, watermarks), cursors (committed positions of a named group), queues (sparse
//! acknowledgement state over logs) and tables (small opaque values). Names and patterns to targets: `bridge/router`.
//! It knows no protocol, opens no socket and reads no clock: disk and time enter through [`ports`].
//!
//! The life of a write: [`Kernel::write`] encodes an [`Entry`] on the caller's thread and queues it; the writer thread drains the
//! queue into one vectored write and one fdatasync, applies the entries in order to the state, and only then completes the callers.
//! What is applied depends on the entries alone, never on the clock or on chance, so replaying the log gives the same state.

#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod checkpoint;
mod codec;
mod cold;
mod compaction;
mod config;
mod entry;
mod entry_codec;
mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod inspect;
mod kernel;
pub mod limits;
mod pool;
pub mod ports;
mod queue;
pub mod segment;
mod snapshot;
mod state;
mod stats;
mod stream;
mod stream_config;
pub mod verify;
mod wal;

pub use cold::{ColdCacheStats, RestoreError, Restored, restore};
pub use config::KernelConfig;
pub use entry::{
    Appended, Command, CursorName, CursorPosition, Entry, Outcome, QueueSettled, SequenceRule,
};
pub use error::{
    AlterStreamError, AppendError, ColdTierError, CreateStreamError, DeleteStreamError, OpenError,
    QueueError, ReadError, TrimError, WriteError,
};
pub use kernel::{
    AbortedTransaction, Kernel, OpenTransaction, Read, Stepper, TableRows, TierBytes, Watch,
    Watermarks,
};
pub use ports::Ports;
pub use queue::{
    Acquired, DEAD_COUNT, DEAD_POSITION, DEAD_QUEUE, DEAD_REASON, DEAD_STREAM, DeadReason,
    DeliveryId, HolderId, Queue, QueueLimits, QueueName, QueueSource, Selector, Verdict,
};
pub use segment::{Compacted, SegmentId, SegmentMeta, SegmentPart};
pub use stats::{KernelStats, QueueStats};
pub use stream::{PartitionId, Stream, StreamId, StreamSpec};
pub use stream_config::{
    CLEANUP_POLICY, DELETE_RETENTION_MS, DURABILITY, Durability, MIN_CLEANABLE_DIRTY_RATIO,
    MIN_COMPACTION_LAG_MS, RETENTION_BYTES, RETENTION_MS, RETENTION_SETTLED, STREAM_SETTINGS,
    SettingValues, StreamSetting,
};
pub use wal::cut::{Cut, CutError, cut_log};
