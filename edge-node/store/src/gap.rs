//! A hole in a lane, and what the core is told of it.

use record::StreamName;

use crate::frame::Lane;
use crate::log::End;

/// Why messages are missing. The number is part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum GapReason {
    /// The lane's bound on bytes.
    EvictedBytes = 1,
    /// The lane's bound on age.
    EvictedAge = 2,
    /// Damage on the disk: they were there and can not be read.
    Damaged = 3,
    /// The core will never take them; they are in the quarantine.
    Refused = 4,
    /// The disk does not have what it said it had.
    Lost = 5,
    /// Of a copy of this edge that was fenced; they are in the quarantine.
    Fenced = 6,
}

impl GapReason {
    /// The word that reports use.
    pub fn as_str(self) -> &'static str {
        match self {
            GapReason::EvictedBytes => "evicted-bytes",
            GapReason::EvictedAge => "evicted-age",
            GapReason::Damaged => "damaged",
            GapReason::Refused => "refused",
            GapReason::Lost => "lost",
            GapReason::Fenced => "fenced",
        }
    }
}

/// Entries `first..next` of a lane are not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub lane: Lane,
    pub reason: GapReason,
    /// Number of the first entry that is missing.
    pub first: u64,
    /// Where reading goes on.
    pub next: End,
    /// Messages that are missing, as far as that is known.
    pub records: u64,
    /// About how many bytes of the outbox they were.
    pub bytes: u64,
    /// Between which times they were stamped, in milliseconds since 1970, about; -1 = not known.
    pub first_time: i64,
    pub last_time: i64,
    /// Under which id (that of the lane) and epoch what follows was written.
    pub producer_id: i64,
    pub epoch: i16,
    /// The next sequence of each stream in that epoch. One that is not named begins at 0, or has nothing missing.
    pub sequences: Vec<(StreamName, i32)>,
}
