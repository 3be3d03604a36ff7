//! Hashes of passwords as they are kept: Argon2id in the PHC form,
//! `$argon2id$v=19$m=9216,t=4,p=1$SALT$HASH` (base64 without padding), as the `argon2` program and most libraries write it.

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use subtle::ConstantTimeEq;

use crate::limits;

/// KiB. With `PASSES` one of the settings that OWASP names; little enough for a gateway.
const MEMORY: u32 = 9216;
const PASSES: u32 = 4;
const SALT: usize = 16;
const HASH: usize = 32;

#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    memory: u32,
    passes: u32,
    lanes: u32,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

fn parse(text: &str) -> Option<PasswordHash> {
    let mut parts = text.strip_prefix("$argon2id$v=19$")?.split('$');
    let (costs, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
    let mut costs = costs.split(',');
    let mut cost = |name: &str| -> Option<u32> {
        let (key, value) = costs.next()?.split_once('=')?;
        (key == name).then(|| value.parse().ok())?
    };
    let (memory, passes, lanes) = (cost("m")?, cost("t")?, cost("p")?);
    let salt = STANDARD_NO_PAD.decode(salt).ok()?;
    let hash = STANDARD_NO_PAD.decode(hash).ok()?;
    let whole = parts.next().is_none() && costs.next().is_none();
    let bounded = memory <= limits::MAX_HASH_MEMORY
        && passes <= limits::MAX_HASH_PASSES
        && (8..=64).contains(&salt.len())
        && (16..=64).contains(&hash.len());
    let parsed = PasswordHash {
        memory,
        passes,
        lanes,
        salt,
        hash,
    };
    (whole && bounded && parsed.params().is_some()).then_some(parsed)
}

impl PasswordHash {
    /// `None`: not of this form, or it would cost more memory or time than a gateway has.
    pub fn parse(text: &str) -> Option<PasswordHash> {
        parse(text)
    }

    /// A hash of this password with a new salt. Takes its time.
    /// `None`: it is too long.
    pub fn of(password: &[u8]) -> Option<PasswordHash> {
        if password.len() > limits::MAX_PASSWORD {
            return None;
        }
        let salt: [u8; SALT] = rand::random();
        let mut made = PasswordHash {
            memory: MEMORY,
            passes: PASSES,
            lanes: 1,
            salt: salt.to_vec(),
            hash: vec![0; HASH],
        };
        made.hash = made.compute(password)?;
        Some(made)
    }

    /// No password's hash, that takes as long to compare with as one that was made here.
    pub fn of_nobody() -> PasswordHash {
        PasswordHash {
            memory: MEMORY,
            passes: PASSES,
            lanes: 1,
            salt: vec![0; SALT],
            hash: vec![0; HASH],
        }
    }

    /// Takes as long as the hash was made to take: not to be called on a thread that others wait for.
    pub fn verify(&self, password: &[u8]) -> bool {
        self.compute(password)
            .is_some_and(|computed| computed.ct_eq(&self.hash).into())
    }

    /// Tells this hash from every other.
    pub(crate) fn bytes(&self) -> (&[u8], &[u8]) {
        (&self.salt, &self.hash)
    }

    fn params(&self) -> Option<Params> {
        Params::new(self.memory, self.passes, self.lanes, Some(self.hash.len())).ok()
    }

    fn compute(&self, password: &[u8]) -> Option<Vec<u8>> {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params()?);
        let mut out = vec![0; self.hash.len()];
        argon2
            .hash_password_into(password, &self.salt, &mut out)
            .ok()?;
        Some(out)
    }
}

impl std::fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let PasswordHash {
            memory,
            passes,
            lanes,
            ..
        } = self;
        let (salt, hash) = (
            STANDARD_NO_PAD.encode(&self.salt),
            STANDARD_NO_PAD.encode(&self.hash),
        );
        write!(
            f,
            "$argon2id$v=19$m={memory},t={passes},p={lanes}${salt}${hash}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `printf %s secret | argon2 somesalt -id -t 2 -k 4096 -p 1 -l 24 -e` (Debian's argon2 0~20171227).
    const FOREIGN: &str =
        "$argon2id$v=19$m=4096,t=2,p=1$c29tZXNhbHQ$7PpJA6lD/l9UVMfH/g/55/CxwrQas528";

    #[test]
    fn a_password_fits_its_hash_and_no_other() {
        let hash = PasswordHash::of(b"secret").unwrap();
        let text = hash.to_string();
        let read = PasswordHash::parse(&text).unwrap();
        assert_eq!(read, hash);
        assert!(read.verify(b"secret"));
        assert!(!read.verify(b"Secret"));
        assert!(!read.verify(b""));
        assert_ne!(
            PasswordHash::of(b"secret").unwrap(),
            hash,
            "a salt of its own"
        );
        assert!(!format!("{hash:?}").contains(&text[40..]));
    }

    #[test]
    fn a_hash_of_the_reference_program_is_understood() {
        let hash = PasswordHash::parse(FOREIGN).unwrap();
        assert!(hash.verify(b"secret"));
        assert!(!hash.verify(b"secreT"));
        assert!(!PasswordHash::of_nobody().verify(b""));
        assert_eq!(hash.to_string(), FOREIGN);
    }

    #[test]
    fn what_is_no_hash_or_costs_too_much_is_refused() {
        for text in [
            "",
            "secret",
            "$7$101$abc$def",
            "$argon2i$v=19$m=4096,t=2,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=4096,t=2$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=4000000,t=2,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=4096,t=2000000,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=4096,t=2,p=1$c29tZXNhbHQ$AAAA",
            "$argon2id$v=19$m=4096,t=2,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA$x",
        ] {
            assert!(PasswordHash::parse(text).is_none(), "{text}");
        }
    }
}
