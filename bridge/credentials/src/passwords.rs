//! Checking passwords, as many at a time as the machine has room for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use ring::hmac;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use crate::places::Places;
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
    waiting: Places,
    /// Checked in place of an unknown user's password, so that the time tells nothing.
    nobody: PasswordHash,
    /// Passwords that were right, as digests under a key that lives as long as this: clients reconnect often, and all at once.
    known: Mutex<HashMap<String, [u8; 32]>>,
    key: hmac::Key,
    pub attempts: Attempts,
    /// Makes the salts that those without SCRAM keys are shown.
    pub(crate) secret: [u8; 32],
    pub(crate) proving: Mutex<()>,
}

impl Passwords {
    /// `at_once`: a hash costs its memory and a core for tens of milliseconds. `waiting`: one more is told to come later, and from one source
    /// before that.
    /// `nobody`: of the same cost as the others' are.
    pub fn new(at_once: usize, waiting: usize, nobody: PasswordHash) -> Passwords {
        Passwords {
            checking: Arc::new(Semaphore::new(at_once.max(1))),
            waiting: Places::new(waiting.max(1)),
            nobody,
            known: Mutex::default(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>()),
            attempts: Attempts::default(),
            secret: rand::random(),
            proving: Mutex::default(),
        }
    }

    /// One that outlives the process: salts that stay over a restart would else be those of users.
    pub fn with_secret(self, secret: [u8; 32]) -> Passwords {
        Passwords { secret, ..self }
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

    fn was_right(&self, name: &str, digest: &[u8; 32]) -> bool {
        let known = self.known.lock().get(name).copied();
        known.is_some_and(|known| known.ct_eq(digest).into())
    }

    /// Is this the password of user `name`, whose hash this is? `None`: there is no such user, or it has no password. `from` is the source of the
    /// client.
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
        if hash.is_some() && self.was_right(name, &digest) {
            return Ok(());
        }
        if !self.attempts.may_try(name, from) {
            return Err(CheckError::TooMany);
        }
        let _waiting = self.waiting.enter(from).ok_or(CheckError::Busy)?;
        let permit = self.checking.clone().acquire_owned().await;
        let permit = permit.map_err(|_| CheckError::Busy)?;
        // Others were looked at while this one waited: many devices of one user, or many guesses.
        if hash.is_some() && self.was_right(name, &digest) {
            return Ok(());
        }
        let attempt = self.attempts.begin(name, from);
        let attempt = attempt.ok_or(CheckError::TooMany)?;
        let compared = hash.unwrap_or(&self.nobody).clone();
        let password = password.to_vec();
        let right = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            compared.verify(&password)
        });
        let right = right.await.map_err(|_| CheckError::Busy)?;
        if right && hash.is_some() {
            attempt.was_right();
            self.known.lock().insert(name.to_owned(), digest);
            return Ok(());
        }
        attempt.was_wrong();
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

    /// Cheap to compare with, and nobody's.
    const CHEAP: &str = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA";

    #[tokio::test]
    async fn guesses_that_wait_together_are_not_all_looked_at() {
        let hash = PasswordHash::parse(CHEAP).expect("a hash");
        let passwords = Arc::new(Passwords::new(2, 64, hash.clone()));
        let mut guessing = tokio::task::JoinSet::new();
        for n in 0..20 {
            let (passwords, hash) = (passwords.clone(), hash.clone());
            let guess = format!("guess-{n}");
            let from = Some([10, 0, 0, 1].into());
            guessing.spawn(async move {
                let checked = passwords.check("ann", guess.as_bytes(), Some(&hash), from);
                checked.await
            });
        }
        let answers = guessing.join_all().await;
        let wrong = answers.iter().filter(|one| **one == Err(CheckError::Wrong));
        let tries = limits::TRIES_OF_USER_FROM_ADDRESS as usize;
        assert_eq!(wrong.count(), tries, "{answers:?}");
        let left_out = answers
            .iter()
            .filter(|one| **one == Err(CheckError::TooMany));
        assert_eq!(left_out.count(), answers.len() - tries);
    }

    /// The hash of one is looked at, and the others have the same: each would else cost as much.
    #[tokio::test]
    async fn who_waited_while_the_same_password_was_right_is_in() {
        let hash = PasswordHash::of(b"secret").expect("a hash");
        let passwords = Passwords::new(1, 64, PasswordHash::of_nobody());
        let first = passwords.checking.clone().acquire_owned().await;
        let mut second = std::pin::pin!(passwords.check("ann", b"secret", Some(&hash), None));
        let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(second.as_mut().poll(cx)));
        assert!(polled.await.is_pending());
        let digest = passwords.digest(&hash, b"secret");
        passwords.known.lock().insert("ann".to_owned(), digest);
        drop(first);
        let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(second.as_mut().poll(cx)));
        assert_eq!(
            polled.await,
            std::task::Poll::Ready(Ok(())),
            "nothing is compared"
        );
    }
}
