//! Telling connections that their user is gone.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Names that are always kept without a look at who is still connected.
const FEW: usize = 64;

/// What the connections of each user wait for. A name by which nobody is connected any more is forgotten in time: certificates and tokens can name somebody new
/// each time.
#[derive(Default)]
pub struct Revocations {
    users: Mutex<Users>,
}

#[derive(Default)]
struct Users {
    by_name: HashMap<Arc<str>, Vec<Weak<CancellationToken>>>,
    /// How many there were after the last look.
    looked_at: usize,
}

/// Those that somebody holds; with room for as many more, so that the next look is as far away as this one was long.
fn keep_held(tokens: &mut Vec<Weak<CancellationToken>>) {
    tokens.retain(|token| token.strong_count() > 0);
    let room = tokens.len() + 1;
    tokens.shrink_to(tokens.len() + room);
    tokens.reserve_exact(room);
}

impl Users {
    fn forget_the_absent(&mut self) {
        if self.by_name.len() < FEW.max(2 * self.looked_at) {
            return;
        }
        self.by_name.retain(|_, tokens| {
            keep_held(tokens);
            !tokens.is_empty()
        });
        self.looked_at = self.by_name.len();
        self.by_name.shrink_to(FEW.max(2 * self.looked_at));
    }
}

impl Revocations {
    /// For one connection of this user: cancelled when it has to end, if it is held until then.
    pub fn of(&self, user: &str) -> Arc<CancellationToken> {
        let token = Arc::new(CancellationToken::new());
        let mut users = self.users.lock();
        users.forget_the_absent();
        let tokens = users.by_name.entry(user.into()).or_default();
        if tokens.len() == tokens.capacity() {
            keep_held(tokens);
        }
        tokens.push(Arc::downgrade(&token));
        token
    }

    /// Ends what was admitted as this user until now.
    pub fn revoke(&self, user: &str) {
        let tokens = self.users.lock().by_name.remove(user).unwrap_or_default();
        for token in tokens.iter().filter_map(Weak::upgrade) {
            token.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_which_nobody_is_connected_are_forgotten() {
        let revocations = Revocations::default();
        let ann = revocations.of("ann");
        for n in 0..10_000 {
            drop(revocations.of(&format!("device-{n}")));
        }
        let users = revocations.users.lock();
        assert!(users.by_name.len() <= FEW, "{}", users.by_name.len());
        assert!(users.by_name.capacity() <= 4 * FEW);
        drop(users);
        revocations.revoke("ann");
        assert!(ann.is_cancelled());
    }

    #[test]
    fn connections_of_one_name_that_ended_are_forgotten_and_the_others_are_told() {
        let revocations = Revocations::default();
        let mut held = Vec::new();
        for n in 0..10_000 {
            let token = revocations.of("ann");
            if n % 1_000 == 0 {
                held.push(token);
            }
        }
        let tokens = revocations.users.lock().by_name["ann"].len();
        assert!(tokens <= 4 * held.len(), "{tokens}");
        let bob = revocations.of("bob");
        revocations.revoke("ann");
        assert!(held.iter().all(|token| token.is_cancelled()));
        assert!(!bob.is_cancelled());
        assert!(!revocations.of("ann").is_cancelled());
    }
}
