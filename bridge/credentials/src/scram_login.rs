//! Logins with SCRAM: who is let in by it, and how often it may be tried.

use std::net::IpAddr;
use std::path::Path;

use crate::private_file::kept_secret;
use crate::scram::{ClientFirst, ScramServer};
use crate::{Mechanism, Passwords, ScramError, ScramKeys};

/// What the salts are made from that those without keys are shown ([`Passwords::with_secret`]): of this data directory, made when it is first asked for.
/// Where it can not be kept (a full disk) it is another at the next start, which tells no more than who is a user.
pub fn scram_secret(dir: &Path) -> [u8; 32] {
    kept_secret(&dir.join("scram.secret")).unwrap_or_else(|error| {
        tracing::warn!(%error, "scram.secret can not be kept");
        rand::random()
    })
}

/// An exchange whose client has still to prove that it knows the password.
#[derive(Debug)]
pub struct ScramLogin {
    user: String,
    from: Option<IpAddr>,
    exchange: ScramServer,
}

impl ScramLogin {
    /// Who the client says it is.
    pub fn user(&self) -> &str {
        &self.user
    }
}

impl Passwords {
    /// Answers the client's first message. `keys_of` has the keys of a user; of one who has none, or whom there is not, the answer is as of any other,
    /// at the same cost: it is the proof that fails.
    pub fn begin_scram(
        &self,
        mechanism: Mechanism,
        first: &[u8],
        from: Option<IpAddr>,
        keys_of: impl FnOnce(&str) -> Option<ScramKeys>,
    ) -> Result<(ScramLogin, Vec<u8>), ScramError> {
        let first = ClientFirst::parse(first)?;
        let user = first.user.clone();
        if !self.attempts.may_try(&user, from) {
            return Err(ScramError::TooMany);
        }
        let nobody = ScramKeys::of_nobody(mechanism, &user, &self.secret);
        let keys = keys_of(&user).filter(|keys| keys.mechanism() == mechanism);
        let (exchange, message) = ScramServer::begin(first, keys.unwrap_or(nobody));
        let login = ScramLogin {
            user,
            from,
            exchange,
        };
        Ok((login, message))
    }

    /// Checks the proof, unless too many were wrong since the exchange began: any number of them can have begun before the first was. The
    /// message is the last one to the client.
    pub fn finish_scram(&self, login: ScramLogin, message: &[u8]) -> Result<Vec<u8>, ScramError> {
        // Microseconds each. One after the other, so that no right proof is refused because of others that are looked at beside it.
        let _one_at_a_time = self.proving.lock();
        let attempt = self.attempts.begin(&login.user, login.from);
        let attempt = attempt.ok_or(ScramError::TooMany)?;
        let finished = login.exchange.finish(message);
        match finished {
            Ok(_) => attempt.was_right(),
            Err(ScramError::Wrong) => attempt.was_wrong(),
            // Nothing was compared.
            Err(_) => drop(attempt),
        }
        finished
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PasswordHash, limits};

    const FIRST: &[u8] = b"n,,n=ann,r=abc";

    fn begin(passwords: &Passwords, keys: &ScramKeys) -> (ScramLogin, String) {
        let from = Some([10, 0, 0, 1].into());
        let begun = passwords.begin_scram(keys.mechanism(), FIRST, from, |_| Some(keys.clone()));
        let (login, question) = begun.expect("an exchange");
        assert_eq!(login.user(), "ann");
        (login, String::from_utf8(question).expect("text"))
    }

    /// A last message with a proof of the right form.
    fn guess(question: &str) -> String {
        let nonce = question.split(',').next().expect("a nonce");
        let proof = "A".repeat(43);
        format!("c=biws,{nonce},p={proof}=")
    }

    #[test]
    fn exchanges_that_began_together_are_not_all_looked_at() {
        let passwords = Passwords::new(1, 4, PasswordHash::of_nobody());
        let keys = ScramKeys::of(Mechanism::Sha256, b"pencil");
        let begun: Vec<_> = (0..20).map(|_| begin(&passwords, &keys)).collect();
        let mut answers = begun
            .into_iter()
            .map(|(login, question)| passwords.finish_scram(login, guess(&question).as_bytes()));
        for _ in 0..limits::TRIES_OF_USER_FROM_ADDRESS {
            assert_eq!(answers.next(), Some(Err(ScramError::Wrong)));
        }
        assert!(answers.all(|answer| answer == Err(ScramError::TooMany)));
    }

    #[test]
    fn what_can_not_be_read_is_no_guess() {
        let passwords = Passwords::new(1, 4, PasswordHash::of_nobody());
        let keys = ScramKeys::of(Mechanism::Sha256, b"pencil");
        for _ in 0..=limits::TRIES_OF_USER_FROM_ADDRESS {
            let (login, _) = begin(&passwords, &keys);
            let answer = passwords.finish_scram(login, b"x");
            assert_eq!(answer, Err(ScramError::Malformed));
        }
    }

    /// A salt that stays would else tell who is a user.
    #[test]
    fn somebody_without_keys_is_answered_the_same_with_the_same_secret() {
        let salt = |secret: [u8; 32]| {
            let passwords = Passwords::new(1, 4, PasswordHash::of_nobody()).with_secret(secret);
            let begun = passwords.begin_scram(Mechanism::Sha256, FIRST, None, |_| None);
            let question = String::from_utf8(begun.expect("an exchange").1).expect("text");
            let (_, salt) = question.split_once(",s=").expect("a salt");
            salt.to_owned()
        };
        assert_eq!(salt([1; 32]), salt([1; 32]));
        assert_ne!(salt([1; 32]), salt([2; 32]));
    }
}
