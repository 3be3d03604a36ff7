//! What a mailbox was given early, and what it will get by the log that later messages must not overtake: see `early.rs`.

use crate::limits;
use std::collections::{BTreeMap, HashMap};

#[derive(Debug, Default)]
pub(crate) struct Given {
    /// Numbers of what was given and has not come back in a feed: ranges, the end of each (not in it) and its first.
    unseen: BTreeMap<u64, u64>,
    count: usize,
    /// Mostly there is nothing.
    by_log: Option<Box<ByLog>>,
    /// Its owner has passed a fence since it subscribed.
    open: bool,
    /// Since the owner began to wait for a fence everything that went by the log is in `by_log`.
    complete: bool,
}

#[derive(Debug, Default)]
struct ByLog {
    /// Of a client and topic, the last number that goes by the log and was not offered.
    numbers: HashMap<u64, u64>,
    /// The same, by the number.
    sources: HashMap<u64, u64>,
}

impl Given {
    pub fn is_empty(&self) -> bool {
        self.unseen.is_empty() && self.by_log.is_none()
    }

    pub fn has_by_log(&self) -> bool {
        self.by_log.is_some()
    }

    /// Has it room for the numbers, and does nothing of the source go by the log?
    pub fn can_take(&self, source: u64, count: usize) -> bool {
        self.open && self.count + count <= limits::GIVEN_EARLY && !self.goes_by_log(source)
    }

    fn goes_by_log(&self, source: u64) -> bool {
        let by_log = self.by_log.as_ref();
        by_log.is_some_and(|by_log| by_log.numbers.contains_key(&source))
    }

    /// What is put into the mailbox now.
    pub fn take(&mut self, first: u64, count: u64) {
        self.unseen.insert(first + count, first);
        self.count += count as usize;
    }

    /// A copy was found in a feed. `true` = it was given early, and is left out.
    pub fn seen(&mut self, number: u64) -> bool {
        let Some((end, first)) = self.unseen.range_mut(number.saturating_add(1)..).next() else {
            return false;
        };
        let (end, start) = (*end, *first);
        if number < start {
            return false;
        }
        self.count -= 1;
        if number + 1 == end {
            self.unseen.remove(&end);
        } else {
            *first = number + 1;
        }
        if start < number {
            // Somebody who reads by himself comes to those before it later.
            self.unseen.insert(number, start);
        }
        true
    }

    /// Later messages of the source wait until this one was offered. `false` = there are too many such sources: nothing is given early until the
    /// next fence.
    pub fn note_by_log(&mut self, source: u64, number: u64) -> bool {
        let known = self.goes_by_log(source);
        let by_log = self.by_log.get_or_insert_default();
        if by_log.numbers.len() >= limits::GIVEN_EARLY && !known {
            self.by_log = None;
            self.close();
            return false;
        }
        if let Some(before) = by_log.numbers.insert(source, number) {
            by_log.sources.remove(&before);
        }
        by_log.sources.insert(number, source);
        true
    }

    /// What came by the log was offered.
    pub fn offered(&mut self, number: u64) {
        if let Some(by_log) = &mut self.by_log
            && let Some(source) = by_log.sources.remove(&number)
        {
            by_log.numbers.remove(&source);
        }
        self.drop_empty();
    }

    fn drop_empty(&mut self) {
        let empty = |by_log: &ByLog| by_log.numbers.is_empty();
        self.by_log.take_if(|by_log| empty(by_log));
    }

    /// Nothing more is given early, until the next fence.
    pub fn close(&mut self) {
        self.open = false;
        self.complete = false;
    }

    /// The owner begins to wait for a fence.
    pub fn begin_fence(&mut self) {
        self.complete = true;
    }

    /// The owner has offered everything below this number that it will ever get. `false` = it must wait for another fence.
    pub fn pass_fence(&mut self, below: u64) -> bool {
        let later = self.unseen.split_off(&below.saturating_add(1));
        self.unseen = later;
        if let Some(mut first) = self.unseen.first_entry() {
            let from = first.get_mut();
            *from = below.max(*from);
        }
        let left = self.unseen.iter().map(|(end, first)| end - first);
        self.count = left.sum::<u64>() as usize;
        if let Some(by_log) = &mut self.by_log {
            by_log.numbers.retain(|_, number| *number >= below);
            by_log.sources.retain(|number, _| *number >= below);
        }
        self.drop_empty();
        self.open |= self.complete;
        self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn open() -> Given {
        let mut given = Given::default();
        given.begin_fence();
        assert!(given.pass_fence(0));
        given
    }

    #[test]
    fn each_number_is_left_out_once_in_whatever_order_the_copies_come() {
        let mut given = open();
        given.take(10, 5);
        given.take(20, 1);
        given.take(15, 3); // next to another one
        for (number, expected) in [
            (9, false),
            (12, true),
            (12, false),
            (10, true),
            (14, true),
            (15, true),
            (17, true),
            (18, false),
            (19, false),
            (20, true),
            (11, true),
            (13, true),
            (16, true),
            (16, false),
            (u64::MAX, false),
        ] {
            assert_eq!(given.seen(number), expected, "{number}");
        }
        assert!(given.is_empty());
        assert_eq!(given.count, 0);
    }

    #[test]
    fn as_a_set_would() {
        let mut seed = 1u64;
        let mut random = |end: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % end
        };
        for _ in 0..200 {
            let (mut given, mut set, mut next) = (open(), BTreeSet::new(), 100);
            for _ in 0..200 {
                match random(8) {
                    0 => {
                        let count = 1 + random(10);
                        given.take(next, count);
                        set.extend(next..next + count);
                        next += count + random(2);
                    }
                    1 if random(10) == 0 => {
                        let below = 90 + random(next - 80);
                        given.pass_fence(below);
                        set = set.split_off(&below);
                    }
                    _ => {
                        let number = 95 + random(next - 90);
                        assert_eq!(given.seen(number), set.remove(&number), "{number}");
                    }
                }
                assert_eq!(given.count, set.len());
            }
        }
    }

    #[test]
    fn a_source_that_goes_by_the_log_does_until_its_last_was_offered() {
        let mut given = open();
        assert!(given.can_take(1, 1));
        assert!(given.note_by_log(1, 5));
        assert!(given.note_by_log(1, 6));
        assert!(!given.can_take(1, 1) && given.can_take(2, 1));
        given.offered(5);
        assert!(!given.can_take(1, 1), "the later one was not");
        given.offered(6);
        assert!(given.can_take(1, 1));
        // Or will never come.
        assert!(given.note_by_log(1, 7));
        assert!(given.pass_fence(7) && !given.can_take(1, 1));
        assert!(given.pass_fence(8) && given.can_take(1, 1) && given.is_empty());
    }

    #[test]
    fn it_is_bounded() {
        let mut given = open();
        let most = limits::GIVEN_EARLY as u64;
        given.take(0, most - 1);
        assert!(given.can_take(1, 1) && !given.can_take(1, 2));
        given.take(most - 1, 1);
        assert!(!given.can_take(1, 1));
        assert!(given.seen(7) && given.can_take(1, 1));
        given.pass_fence(most);
        // So are the sources; who has too many forgets them and must wait for a fence that begins later.
        given.begin_fence();
        for source in 0..most {
            assert!(given.note_by_log(source, most + source));
        }
        assert!(given.note_by_log(0, 2 * most));
        assert!(!given.note_by_log(most, 2 * most + 1));
        assert!(!given.can_take(1, 1) && !given.has_by_log());
        assert!(!given.pass_fence(3 * most));
        given.begin_fence();
        assert!(given.pass_fence(3 * most) && given.can_take(1, 1));
    }

    #[test]
    fn who_subscribes_again_waits_for_a_fence_that_begins_after_that() {
        let mut given = Given::default();
        assert!(!given.can_take(1, 1));
        given.begin_fence();
        given.close();
        assert!(!given.pass_fence(5));
        given.begin_fence();
        assert!(given.pass_fence(5) && given.can_take(1, 1));
    }
}
