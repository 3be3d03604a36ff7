//! How much each user and each client may do: connections at a time, messages and bytes a second. One vocabulary for all protocols, on
//! the edge and in the core.
//!
//! Who is above a rate is read later; nothing that was taken is dropped. A connection too many is refused. Nothing here knows a protocol or a
//! socket: a front end asks for a [`Share`] when it knows who came, and tells it what it has read.

mod bucket;
pub mod limits;
mod quotas;
mod section;
mod share;

pub use bucket::Bucket;
pub use quotas::{Counts, Exceeded, Quotas};
pub use section::{Each, QuotaSettings, quotas};
pub use share::Share;

use access_rules::Who;

/// One quota. `None` = as much as comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Whom it is about.
    pub who: Who,
    /// Who has the whole of it for himself.
    pub each: Each,
    /// At a time.
    pub connections: Option<usize>,
    /// A second.
    pub messages: Option<u64>,
    /// A second.
    pub bytes: Option<u64>,
}
