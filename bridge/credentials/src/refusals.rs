//! What the log is told of refusals that come again and again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use parking_lot::Mutex;

use crate::limits;

/// Of each user one line a minute: a client whose token has expired, or whose password was changed, comes back as fast as it can, for days. Bounded:
/// what comes in ever new names is told of [`limits::REFUSALS_TOLD`] names a minute, and of all others together once. Those without a name do not count
/// among them.
#[derive(Default)]
pub struct Refusals {
    users: Mutex<Told>,
    addresses: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    of: HashMap<String, Last>,
    others: Option<Last>,
}

struct Last {
    at: Instant,
    left_out: u64,
}

impl Last {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.at) >= limits::REFUSALS_EVERY
    }

    fn tell(&mut self, now: Instant) -> Option<u64> {
        if !self.is_over(now) {
            self.left_out += 1;
            return None;
        }
        self.at = now;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl Told {
    fn tell(&mut self, whom: &str, now: Instant) -> Option<u64> {
        if let Some(last) = self.of.get_mut(whom) {
            return last.tell(now);
        }
        if self.of.len() >= limits::REFUSALS_TOLD {
            self.of.retain(|_, last| !last.is_over(now));
        }
        let last = Last {
            at: now,
            left_out: 0,
        };
        if self.of.len() < limits::REFUSALS_TOLD {
            self.of.insert(whom.to_owned(), last);
        } else if let Some(others) = &mut self.others {
            return others.tell(now);
        } else {
            self.others = Some(last);
        }
        Some(0)
    }
}

impl Refusals {
    /// Is this one told? With the number of those about the same user that were not, since the last. Without a name there is only the address to tell
    /// clients apart by.
    pub fn tell(&self, user: &str, from: Option<IpAddr>) -> Option<u64> {
        let now = Instant::now();
        match (user, from) {
            ("", Some(address)) => self.addresses.lock().tell(&address.to_string(), now),
            _ => {
                let name = user.get(..user.floor_char_boundary(limits::MAX_NAME))?;
                self.users.lock().tell(name, now)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_for_each_user() {
        let mut told = Told::default();
        let start = Instant::now();
        let later = |times: u32| start + limits::REFUSALS_EVERY * times;
        assert_eq!(told.tell("ann", start), Some(0));
        for _ in 0..20 {
            assert_eq!(told.tell("ann", start), None);
        }
        assert_eq!(told.tell("bob", start), Some(0));
        assert_eq!(told.tell("ann", later(1)), Some(20));
        assert_eq!(told.tell("ann", later(1)), None);
        assert_eq!(told.tell("ann", later(3)), Some(1));
        // Ever new names: ann is remembered, and of those that find no room the first is told.
        let new = 2 * limits::REFUSALS_TOLD;
        let lines = (0..new).filter(|n| told.tell(&n.to_string(), later(3)).is_some());
        assert_eq!(lines.count(), limits::REFUSALS_TOLD);
        for n in 0..limits::REFUSALS_TOLD {
            told.tell(&n.to_string(), later(4));
        }
        let left_out = new - limits::REFUSALS_TOLD;
        assert_eq!(told.tell("one more", later(4)), Some(left_out as u64));
        assert_eq!(told.tell("and one", later(4)), None);
        assert_eq!(told.tell("new", later(5)), Some(0));
        assert_eq!(told.of.len(), 1);
    }
}
