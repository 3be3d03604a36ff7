//! Whether the threads that write get on with it: what a watchdog wants to know.

use std::sync::Arc;

/// One thread at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Pieces of work it has finished since the start, well or badly.
    pub(crate) done: u64,
    /// It has work, in its hands or waiting.
    pub(crate) working: bool,
}

/// What was accepted for one log and is not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwritten {
    /// The lane's name, or `inbox`.
    pub log: Arc<str>,
    /// Messages, nearly all of them.
    pub items: u64,
    pub bytes: u64,
}

impl Progress {
    /// It has finished something since.
    pub fn has_moved_since(&self, earlier: &Progress) -> bool {
        self.done != earlier.done
    }

    /// It had work at both moments and finished nothing in between: it hangs in the disk, or is no more.
    pub fn is_stuck_since(&self, earlier: &Progress) -> bool {
        self.working && earlier.working && self.done == earlier.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuck_is_work_on_both_sides_and_nothing_done() {
        let at = |done, working| Progress { done, working };
        let table = [
            (at(3, true), at(3, true), true),
            (at(3, true), at(4, true), false),
            (at(3, false), at(3, false), false),
            (at(3, false), at(3, true), false),
            (at(3, true), at(4, false), false),
        ];
        for (earlier, later, stuck) in table {
            assert_eq!(
                later.is_stuck_since(&earlier),
                stuck,
                "{earlier:?} {later:?}"
            );
        }
    }
}
