//! Checking passwords, as many at a time as the machine has room for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use ring::hmac;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use crate::{Attempts, PasswordHash, limits};

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    #[error("wrong user name or password")]
    Wrong,
    /// This attempt was not looked at.
    #[error("too many wrong passwords")]
    TooMany,
    #[error("too many passwords are being checked")]
    Busy,
}

/// Checks passwords off the asynchronous threads. An unknown user costs as much as a known one.
pub struct Passwords {
    checking: Arc<Semaphore>,
    waiting: Semaphore,
    /// Checked in place of an unknown user's password, so that the time tells nothing.
    nobody: PasswordHash,
    /// Passwords that were right, as digests under a key that lives as long as this: clients reconnect often, and all at once.
    known: Mutex<HashMap<String, [u8; 32]>>,
    key: hmac::Key,
    pub attempts: Attempts,
}

impl Passwords {
    /// `at_once`: a hash costs its memory and a core for tens of milliseconds. `waiting`: one more is told to come later.
    /// `nobody`: of the same cost as the others' are.
    pub fn new(at_once: usize, waiting: usize, nobody: PasswordHash) -> Passwords {
        Passwords {
            checking: Arc::new(Semaphore::new(at_once.max(1))),
            waiting: Semaphore::new(waiting.max(1)),
            nobody,
            known: Mutex::default(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>()),
            attempts: Attempts::default(),
        }
    }

    /// Of the password together with the hash it was compared with: another password for this user makes another.
    fn digest(&self, hash: &PasswordHash, password: &[u8]) -> [u8; 32] {
        let mut digest = hmac::Context::with_key(&self.key);
        let (salt, hash) = hash.bytes();
        for part in [salt, hash] {
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.update(password);
        let mut out = [0; 32];
        for (to, from) in out.iter_mut().zip(digest.sign().as_ref()) {
            *to = *from;
        }
        out
    }

    /// Is this the password of user `name`, whose hash this is? `None`: there is no such user, or it has no password.
    pub async fn check(
        &self,
        name: &str,
        password: &[u8],
        hash: Option<&PasswordHash>,
        from: Option<IpAddr>,
    ) -> Result<(), CheckError> {
        if name.len() > limits::MAX_NAME || password.len() > limits::MAX_PASSWORD {
            return Err(CheckError::Wrong);
        }
        let digest = self.digest(hash.unwrap_or(&self.nobody), password);
        let was_right = self.known.lock().get(name).copied();
        if hash.is_some() && was_right.is_some_and(|known| known.ct_eq(&digest).into()) {
            return Ok(());
        }
        if !self.attempts.may_try(name, from) {
            return Err(CheckError::TooMany);
        }
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return Err(CheckError::Busy);
        };
        let permit = self.checking.clone().acquire_owned().await;
        let permit = permit.map_err(|_| CheckError::Busy)?;
        let compared = hash.unwrap_or(&self.nobody).clone();
        let password = password.to_vec();
        let right = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            compared.verify(&password)
        });
        let right = right.await.map_err(|_| CheckError::Busy)?;
        if right && hash.is_some() {
            self.attempts.succeeded(name, from);
            self.known.lock().insert(name.to_owned(), digest);
            return Ok(());
        }
        self.attempts.failed(name, from);
        Err(CheckError::Wrong)
    }

    /// The user is gone.
    pub fn forget(&self, name: &str) {
        self.known.lock().remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn right_wrong_unknown_changed_and_too_often() {
        let hash = PasswordHash::of(b"secret").expect("a hash");
        let passwords = Passwords::new(1, 4, PasswordHash::of_nobody());
        let check = async |name: &str, password: &str, hash: Option<&PasswordHash>| {
            passwords.check(name, password.as_bytes(), hash, None).await
        };
        assert_eq!(check("ann", "secret", Some(&hash)).await, Ok(()));
        assert_eq!(
            check("ann", "Secret", Some(&hash)).await,
            Err(CheckError::Wrong)
        );
        assert_eq!(check("bob", "", None).await, Err(CheckError::Wrong));
        let changed = PasswordHash::of(b"other").expect("a hash");
        assert_eq!(
            check("ann", "secret", Some(&changed)).await,
            Err(CheckError::Wrong)
        );
        assert_eq!(check("ann", "other", Some(&changed)).await, Ok(()));
        for _ in 0..limits::TRIES_OF_USER_FROM_ADDRESS {
            assert_eq!(
                check("ann", "guess", Some(&changed)).await,
                Err(CheckError::Wrong)
            );
        }
        assert_eq!(
            check("ann", "guess", Some(&changed)).await,
            Err(CheckError::TooMany)
        );
        // Who was right before stays in, whoever guesses.
        assert_eq!(check("ann", "other", Some(&changed)).await, Ok(()));
    }
}
