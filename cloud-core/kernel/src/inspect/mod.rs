//! Files of the log for people: what recovery and readers decode, without a log to open. Nothing here writes.

mod segment;
mod wal;

pub use segment::SegmentFile;
pub(crate) use segment::verify_chunk;
pub use wal::{WalDamage, WalFile, WalFrame, WalItem, WalRest};

use crate::segment::SegmentError;
use crate::wal as log;

/// Why a file cannot be taken apart at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// A newer version wrote it.
    #[error("it has format {found}; this version reads up to {supported}")]
    NewerVersion {
        /// The version in the file.
        found: u32,
        /// The newest this version reads.
        supported: u32,
    },
    /// It is something else.
    #[error("it does not begin like {0}")]
    Foreign(&'static str),
    /// What says how to read the rest is damaged.
    #[error("{0} is damaged")]
    Damaged(&'static str),
    /// The same, of a segment.
    #[error(transparent)]
    Segment(SegmentError),
}

/// First index of a WAL file, by its name; `None` for a name that is none of ours.
pub fn wal_first_index(name: &str) -> Option<u64> {
    log::first_index(name)
}

/// First index of the WAL file after the one of that name, when `names` are the files beside it. A file that has one after it is whole.
pub fn wal_file_after<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<u64> {
    let this = log::first_index(name)?;
    names
        .filter_map(log::first_index)
        .filter(|first| *first > this)
        .min()
}
