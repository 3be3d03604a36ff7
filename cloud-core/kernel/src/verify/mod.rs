//! Verification: reading everything that is stored, and naming the records that a damaged place holds. A running kernel does it step by
//! step ([`Kernel::scrub`](crate::Kernel::scrub)), a directory that nobody has open as a whole ([`directory`]). Nothing is changed.

mod damage;
mod directory;
mod scrub;
mod segment;

pub use damage::{Damage, DamagedRecords};
pub use directory::{DirectoryError, Seen, directory};
pub use scrub::{Scrub, ScrubError, Step};
