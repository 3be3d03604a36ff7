//! The edge's certificate and key, in one file of the data directory.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use credentials::write_private;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sync_quic::Identity;

use crate::limits;

const FILE: &str = "identity.json";

#[derive(Serialize, Deserialize)]
struct Stored {
    edge: String,
    certificate: String,
    key: String,
    ca: String,
    /// Digest of the token that it was enrolled with.
    #[serde(default)]
    token: Option<String>,
}

/// An identity, and where it comes from.
#[derive(Debug, PartialEq)]
pub struct Enrolled {
    pub identity: Identity,
    /// [`token_digest`] of its token.
    pub token: Option<String>,
}

/// Tells one token from another, and does not say it.
pub fn token_digest(token: &str) -> String {
    hex(token.trim())
}

/// Tells one certificate from another.
pub fn fingerprint(identity: &Identity) -> String {
    hex(&identity.certificate_pem)
}

fn hex(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The identity of an earlier enrolment, if there was one.
pub fn load(dir: &Path) -> Result<Option<Enrolled>> {
    let path = dir.join(FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let stored: Stored = serde_json::from_slice(&text).with_context(|| {
        format!(
            "{} is damaged: remove it and enrol again with a new token",
            path.display()
        )
    })?;
    Ok(Some(Enrolled {
        identity: Identity {
            edge: stored.edge,
            certificate_pem: stored.certificate,
            key_pem: stored.key,
            ca_pem: stored.ca,
        },
        token: stored.token,
    }))
}

/// Keeps the identity that a token gave, readable by the owner only (it holds the private key).
pub fn save(dir: &Path, identity: &Identity, token: &str) -> io::Result<()> {
    let stored = Stored {
        edge: identity.edge.clone(),
        certificate: identity.certificate_pem.clone(),
        key: identity.key_pem.clone(),
        ca: identity.ca_pem.clone(),
        token: Some(token_digest(token)),
    };
    let text = serde_json::to_vec_pretty(&stored).map_err(io::Error::other)?;
    write_private(&dir.join(FILE), &text)
}

/// The host name, as far as an edge may be called that.
pub fn default_name() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name: String = host
        .trim()
        .chars()
        .filter(|c| legal(*c))
        .take(limits::MAX_NAME)
        .collect();
    if name.is_empty() { "edge".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_identity_comes_back_and_is_secret() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path()).unwrap().is_none());
        let identity = Identity {
            edge: "e".into(),
            certificate_pem: "c".into(),
            key_pem: "k".into(),
            ca_pem: "a".into(),
        };
        save(dir.path(), &identity, "tl1.x").unwrap();
        let loaded = load(dir.path()).unwrap().unwrap();
        assert_eq!(loaded.identity, identity);
        assert_eq!(loaded.token, Some(token_digest(" tl1.x\n")));
        assert_ne!(loaded.token, Some(token_digest("tl1.y")));
        let mode = fs::metadata(dir.path().join(FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(
            load(dir.path())
                .unwrap_err()
                .to_string()
                .contains("enrol again")
        );
    }
}
