//! The administrator's credential of a core or an edge. `admin.credentials` has the secret, for whoever administers it; the process itself goes by
//! `admin.hash`, so the former can be moved to where it is needed. To replace a secret: stop it, delete both.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ::credentials::write_private;
use admin_api::Credentials;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngExt;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const CREDENTIALS: &str = "admin.credentials";
const HASH: &str = "admin.hash";
/// Random bytes of a secret: a slow hash would add nothing to that.
const SECRET_BYTES: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot {what} {path}: {error}")]
    Io {
        what: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    #[error(
        "{0} is damaged: delete it and {CREDENTIALS}, and a new credential is made at the next start"
    )]
    Damaged(PathBuf),
}

/// SHA-256 of the administrator's secret.
#[derive(Clone)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    fn of(secret: &str) -> SecretHash {
        SecretHash(Sha256::digest(secret.as_bytes()).into())
    }

    /// Takes as long for a wrong secret as for a nearly right one.
    pub fn matches(&self, secret: &str) -> bool {
        SecretHash::of(secret).0.ct_eq(&self.0).into()
    }
}

/// Makes the credential at the first start; later brings the address in it up to date where it still lies in `data_dir`. `listens`: where
/// the admin listener is bound.
pub fn open(data_dir: &Path, listens: SocketAddr) -> Result<SecretHash, CredentialsError> {
    open_for(data_dir, &format!("http://{}", reachable(listens)))
}

/// The address by which this machine reaches one of its own listeners.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

fn open_for(data_dir: &Path, url: &str) -> Result<SecretHash, CredentialsError> {
    let hash_path = data_dir.join(HASH);
    let credentials_path = data_dir.join(CREDENTIALS);
    let write = |path: &Path, text: &str| {
        let failed = |error| CredentialsError::Io {
            what: "write",
            path: path.to_owned(),
            error,
        };
        write_private(path, text.as_bytes()).map_err(failed)
    };
    match fs::read_to_string(&hash_path) {
        Ok(text) => {
            let bytes = URL_SAFE_NO_PAD
                .decode(text.trim())
                .ok()
                .and_then(|bytes| bytes.try_into().ok());
            let hash = SecretHash(bytes.ok_or(CredentialsError::Damaged(hash_path))?);
            let stored = fs::read_to_string(&credentials_path).ok();
            if let Some(stored) = stored.and_then(|text| toml::from_str::<Credentials>(&text).ok())
                && stored.url != url
                && hash.matches(&stored.secret)
            {
                write(&credentials_path, &text_of(url, &stored.secret))?;
            }
            Ok(hash)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret = URL_SAFE_NO_PAD.encode(rand::rng().random::<[u8; SECRET_BYTES]>());
            let hash = SecretHash::of(&secret);
            // The hash last: a crash in between makes a new secret, never a hash whose secret nobody has.
            write(&credentials_path, &text_of(url, &secret))?;
            write(&hash_path, &URL_SAFE_NO_PAD.encode(hash.0))?;
            Ok(hash)
        }
        Err(error) => Err(CredentialsError::Io {
            what: "read",
            path: hash_path,
            error,
        }),
    }
}

fn text_of(url: &str, secret: &str) -> String {
    // Both are URL-safe text: nothing to escape.
    format!(
        "# Whoever has this file administers what made it: towline --credentials FILE ...\nurl = \"{url}\"\nsecret = \"{secret}\"\n"
    )
}

/// Readable by its owner only, from the moment it exists; replaced in one step.
#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn stored(dir: &Path) -> Credentials {
        toml::from_str(&fs::read_to_string(dir.join(CREDENTIALS)).unwrap()).unwrap()
    }

    #[test]
    fn the_secret_stays_and_the_address_follows() {
        let dir = tempfile::tempdir().unwrap();
        let hash = open_for(dir.path(), "http://127.0.0.1:1").unwrap();
        let first = stored(dir.path());
        assert!(hash.matches(&first.secret));
        assert!(!hash.matches("") && !hash.matches(&first.secret[1..]));
        let mode = fs::metadata(dir.path().join(CREDENTIALS))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);

        let hash = open_for(dir.path(), "http://127.0.0.1:2").unwrap();
        let second = stored(dir.path());
        assert_eq!(
            (second.url.as_str(), &second.secret),
            ("http://127.0.0.1:2", &first.secret)
        );
        assert!(hash.matches(&first.secret));
    }

    #[test]
    fn a_credential_that_was_moved_away_still_counts() {
        let dir = tempfile::tempdir().unwrap();
        open_for(dir.path(), "http://a").unwrap();
        let secret = stored(dir.path()).secret;
        fs::remove_file(dir.path().join(CREDENTIALS)).unwrap();
        assert!(open_for(dir.path(), "http://a").unwrap().matches(&secret));
        assert!(!dir.path().join(CREDENTIALS).exists());
    }
}
