//! Telling connections that their user is gone.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// One token a user that is or was connected; a connection holds a child of it.
#[derive(Default)]
pub struct Revocations {
    users: Mutex<HashMap<Arc<str>, CancellationToken>>,
}

impl Revocations {
    /// For one connection of this user.
    pub fn of(&self, user: &str) -> CancellationToken {
        let mut users = self.users.lock();
        match users.get(user) {
            Some(token) => token.child_token(),
            None => {
                let token = CancellationToken::new();
                let child = token.child_token();
                users.insert(user.into(), token);
                child
            }
        }
    }

    /// Ends what was admitted as this user until now.
    pub fn revoke(&self, user: &str) {
        if let Some(token) = self.users.lock().remove(user) {
            token.cancel();
        }
    }
}
