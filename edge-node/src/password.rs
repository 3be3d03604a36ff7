//! Hashes of passwords as they stand in the configuration.

use credentials::PasswordHash;
use settings::Value;

/// `password-hash` of a `[[user]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashSetting(pub PasswordHash);

impl Value for HashSetting {
    fn parse(text: &str) -> Result<HashSetting, String> {
        PasswordHash::parse(text).map(HashSetting).ok_or_else(|| {
            "expected a hash like $argon2id$v=19$m=9216,t=4,p=1$...; make one with `towline-edge hash-password`".to_owned()
        })
    }
}

/// `towline-edge hash-password`: one line from stdin (not shown where that is a terminal), its hash to stdout.
pub fn hash_from_stdin() -> anyhow::Result<()> {
    let password = credentials::read_password()?;
    let hash = PasswordHash::of(password.as_bytes())
        .ok_or_else(|| anyhow::anyhow!("the password is too long to be hashed"))?;
    println!("{hash}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_hash_is_answered_with_how_to_make_one() {
        let hash = PasswordHash::of(b"secret").unwrap();
        assert_eq!(HashSetting::parse(&hash.to_string()), Ok(HashSetting(hash)));
        assert!(
            HashSetting::parse("secret")
                .unwrap_err()
                .contains("hash-password")
        );
    }
}
