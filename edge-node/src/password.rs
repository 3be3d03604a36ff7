//! What is kept of passwords as it stands in the configuration.

use credentials::{Mechanism, PasswordHash, ScramKeys};
use settings::Value;

/// `password-hash` of a `[[user]]`: the hash that a password is compared with, and behind it, for clients that prove theirs without sending it, the
/// keys of SCRAM, of each mechanism at most one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretsSetting {
    pub hash: PasswordHash,
    pub scram: Vec<ScramKeys>,
}

impl SecretsSetting {
    /// Takes its time. `None`: the password is too long.
    fn of(password: &[u8]) -> Option<SecretsSetting> {
        Some(SecretsSetting {
            hash: PasswordHash::of(password)?,
            scram: Mechanism::ALL
                .map(|mechanism| ScramKeys::of(mechanism, password))
                .into(),
        })
    }

    pub fn keys(&self, mechanism: Mechanism) -> Option<&ScramKeys> {
        self.scram.iter().find(|keys| keys.mechanism() == mechanism)
    }
}

impl std::fmt::Display for SecretsSetting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.hash.fmt(f)?;
        self.scram.iter().try_for_each(|keys| write!(f, " {keys}"))
    }
}

fn parse(text: &str) -> Option<SecretsSetting> {
    let mut parts = text.split_ascii_whitespace();
    let mut secrets = SecretsSetting {
        hash: PasswordHash::parse(parts.next()?)?,
        scram: Vec::new(),
    };
    for part in parts {
        let keys = ScramKeys::parse(part)?;
        if secrets.keys(keys.mechanism()).is_some() {
            return None;
        }
        secrets.scram.push(keys);
    }
    Some(secrets)
}

impl Value for SecretsSetting {
    fn parse(text: &str) -> Result<SecretsSetting, String> {
        parse(text).ok_or_else(|| {
            "expected a hash like $argon2id$v=19$m=9216,t=4,p=1$..., and perhaps keys of SCRAM behind it; make them with `towline-edge hash-password`".to_owned()
        })
    }
}

/// `towline-edge hash-password`: one line from stdin (not shown where that is a terminal), what is kept of it to stdout.
pub fn hash_from_stdin() -> anyhow::Result<()> {
    let password = credentials::read_password()?;
    let secrets = SecretsSetting::of(password.as_bytes())
        .ok_or_else(|| anyhow::anyhow!("the password is too long to be hashed"))?;
    println!("{secrets}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_and_so_is_a_hash_alone() {
        let secrets = SecretsSetting::of(b"secret").unwrap();
        let text = secrets.to_string();
        assert_eq!(SecretsSetting::parse(&text).as_ref(), Ok(&secrets));
        for mechanism in Mechanism::ALL {
            assert!(secrets.keys(mechanism).is_some());
        }
        let alone = SecretsSetting::parse(&secrets.hash.to_string()).unwrap();
        assert_eq!((alone.hash, alone.scram), (secrets.hash, Vec::new()));
    }

    #[test]
    fn what_is_no_hash_is_answered_with_how_to_make_one() {
        let secrets = SecretsSetting::of(b"secret").unwrap();
        let (hash, keys) = (secrets.hash.to_string(), secrets.scram[0].to_string());
        for wrong in [
            "secret".to_owned(),
            String::new(),
            keys.clone(),
            format!("{hash} secret"),
            format!("{hash} {keys} {keys}"),
        ] {
            let error = SecretsSetting::parse(&wrong).unwrap_err();
            assert!(error.contains("hash-password"), "{wrong}");
        }
    }
}
