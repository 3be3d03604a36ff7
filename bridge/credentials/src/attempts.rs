//! How often one may be wrong.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use parking_lot::Mutex;

use crate::limits;

/// What wrong passwords are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum By {
    UserFromAddress(String, Option<IpAddr>),
    Address(IpAddr),
    User(String),
}

impl By {
    fn limit(&self) -> u32 {
        match self {
            By::UserFromAddress(..) => limits::TRIES_OF_USER_FROM_ADDRESS,
            By::Address(_) => limits::TRIES_FROM_ADDRESS,
            By::User(_) => limits::TRIES_OF_USER,
        }
    }
}

struct Failed {
    count: u32,
    last: Instant,
}

/// Attempts that failed, of late. Who failed too often is not looked at until a pause is over, so guessing is slow and costs us
/// nothing. Bounded: the oldest is forgotten first.
#[derive(Default)]
pub struct Attempts {
    failed: Mutex<HashMap<By, Failed>>,
}

fn counted_by(user: &str, from: Option<IpAddr>) -> impl Iterator<Item = By> {
    let user: String = user.chars().take(limits::MAX_NAME).collect();
    let pair = By::UserFromAddress(user.clone(), from);
    [Some(pair), from.map(By::Address), Some(By::User(user))]
        .into_iter()
        .flatten()
}

impl Attempts {
    pub fn may_try(&self, user: &str, from: Option<IpAddr>) -> bool {
        let mut failed = self.failed.lock();
        counted_by(user, from).all(|by| match failed.get(&by) {
            Some(one) if one.last.elapsed() >= limits::PAUSE => {
                failed.remove(&by);
                true
            }
            Some(one) => one.count < by.limit(),
            None => true,
        })
    }

    pub fn failed(&self, user: &str, from: Option<IpAddr>) {
        let now = Instant::now();
        let mut failed = self.failed.lock();
        for by in counted_by(user, from) {
            if failed.len() >= limits::REMEMBERED && !failed.contains_key(&by) {
                failed.retain(|_, one| one.last.elapsed() < limits::PAUSE);
                if failed.len() >= limits::REMEMBERED {
                    let oldest = failed.iter().min_by_key(|(_, one)| one.last);
                    if let Some(oldest) = oldest.map(|(by, _)| by.clone()) {
                        failed.remove(&oldest);
                    }
                }
            }
            let one = failed.entry(by).or_insert(Failed {
                count: 0,
                last: now,
            });
            one.count = one.count.saturating_add(1);
            one.last = now;
        }
    }

    /// The right password came: this user from this address begins anew.
    pub fn succeeded(&self, user: &str, from: Option<IpAddr>) {
        let mut failed = self.failed.lock();
        if let Some(pair) = counted_by(user, from).next() {
            failed.remove(&pair);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_an_address_and_everybody_have_their_tries() {
        let attempts = Attempts::default();
        let from = |last: u8| Some(IpAddr::from([10, 0, 0, last]));
        for _ in 0..limits::TRIES_OF_USER_FROM_ADDRESS {
            assert!(attempts.may_try("ann", from(1)));
            attempts.failed("ann", from(1));
        }
        assert!(!attempts.may_try("ann", from(1)));
        assert!(attempts.may_try("ann", from(2)) && attempts.may_try("bob", from(1)));
        attempts.succeeded("ann", from(1));
        assert!(attempts.may_try("ann", from(1)));
        for n in 0..limits::TRIES_FROM_ADDRESS {
            attempts.failed(&format!("user-{n}"), from(3));
        }
        assert!(!attempts.may_try("ann", from(3)));
        for n in 0..limits::TRIES_OF_USER {
            attempts.failed("carl", from(n as u8));
        }
        assert!(!attempts.may_try("carl", from(200)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let attempts = Attempts::default();
        for n in 0..2 * limits::REMEMBERED {
            attempts.failed(&n.to_string(), None);
        }
        assert!(attempts.failed.lock().len() <= limits::REMEMBERED);
    }
}
