//! Consumer groups, the classic protocol: who is a member, who reads what, and the positions they have committed.
//!
//! [`state`] is the machine, without a clock or a socket. [`coordinator`] keeps one for each group and turns its deadlines
//! into timers. Positions are the kernel's cursors and durable; membership is in memory: after a restart members are told
//! that they are unknown, and join again.

mod coordinator;
mod cursor;
mod member;
mod state;
pub mod subscription;

pub use coordinator::Coordinator;
pub use cursor::Position;
pub use member::JoinRequest;
pub use state::{Caller, GroupState, Joined, Phase, Synced};
