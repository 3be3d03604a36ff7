//! What the log is told of refusals that come again and again.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use parking_lot::Mutex;

use crate::limits;

/// Of each user one line a minute: a client whose token has expired, or whose password was changed, comes back as fast as it can, for days. Bounded:
/// what comes in ever new names is told of [`limits::REFUSALS_TOLD`] names a minute.
#[derive(Default)]
pub struct Refusals(Mutex<HashMap<String, Told>>);

struct Told {
    at: Instant,
    left_out: u64,
}

impl Refusals {
    /// Is this one told? With the number of those about the same user that were not, since the last. Without a name there is only the address to tell
    /// clients apart by.
    pub fn tell(&self, user: &str, from: Option<IpAddr>) -> Option<u64> {
        let whom = match (user, from) {
            ("", Some(address)) => Cow::from(address.to_string()),
            _ => Cow::from(user.get(..user.floor_char_boundary(limits::MAX_NAME))?),
        };
        self.tell_at(&whom, Instant::now())
    }

    fn tell_at(&self, whom: &str, now: Instant) -> Option<u64> {
        let is_over = |told: &Told| now.duration_since(told.at) >= limits::REFUSALS_EVERY;
        let mut all = self.0.lock();
        if let Some(told) = all.get_mut(whom) {
            if !is_over(told) {
                told.left_out += 1;
                return None;
            }
            told.at = now;
            return Some(std::mem::take(&mut told.left_out));
        }
        if all.len() >= limits::REFUSALS_TOLD {
            all.retain(|_, told| !is_over(told));
            if all.len() >= limits::REFUSALS_TOLD {
                return None;
            }
        }
        let told = Told {
            at: now,
            left_out: 0,
        };
        all.insert(whom.to_owned(), told);
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_for_each_user() {
        let refusals = Refusals::default();
        let start = Instant::now();
        let later = |times: u32| start + limits::REFUSALS_EVERY * times;
        assert_eq!(refusals.tell_at("ann", start), Some(0));
        for _ in 0..20 {
            assert_eq!(refusals.tell_at("ann", start), None);
        }
        assert_eq!(refusals.tell_at("bob", start), Some(0));
        assert_eq!(refusals.tell_at("ann", later(1)), Some(20));
        assert_eq!(refusals.tell_at("ann", later(1)), None);
        assert_eq!(refusals.tell_at("ann", later(3)), Some(1));
        // Ever new names.
        let told = (0..2 * limits::REFUSALS_TOLD)
            .filter(|n| refusals.tell_at(&n.to_string(), later(3)).is_some());
        assert_eq!(told.count(), limits::REFUSALS_TOLD - 1, "ann is remembered");
        assert_eq!(refusals.tell_at("new", later(4)), Some(0));
        assert_eq!(refusals.0.lock().len(), 1);
    }
}
