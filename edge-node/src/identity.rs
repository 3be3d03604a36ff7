//! The edge's certificate and key, in one file of the data directory.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use credentials::write_private;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sync_quic::Identity;

use crate::limits;

const FILE: &str = "identity.json";
/// Where one is put that is damaged, until there is another. It may still hold the key.
pub const BROKEN: &str = "identity.json.broken";

#[derive(Serialize, Deserialize)]
struct Stored {
    edge: String,
    certificate: String,
    key: String,
    ca: String,
    /// Digest of the token that it was enrolled with.
    #[serde(default)]
    token: Option<String>,
    /// Digest of all the rest: a flipped bit in a certificate or a name is read without an error. Those of earlier versions have none.
    #[serde(default)]
    check: Option<String>,
}

impl Stored {
    fn digest(&self) -> String {
        let token = self.token.as_deref().unwrap_or_default();
        let parts = [&self.edge, &self.certificate, &self.key, &self.ca, token];
        hex(&parts.map(|part| format!("{} {part}", part.len())).concat())
    }
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

/// What an earlier enrolment left.
#[derive(Debug, PartialEq)]
pub enum Found {
    /// There was none.
    Nothing,
    Enrolled(Enrolled),
    /// There was one that can not be used, in words for the link. A new enrolment is the way out.
    Damaged(String),
    /// There is one that may be whole, and this process may not read it.
    Forbidden(String),
}

/// Reads the identity, at the start. A damaged one is set aside and keeps nothing else from going on.
pub fn load(dir: &Path) -> Found {
    let path = dir.join(FILE);
    let reason = match read(&path) {
        Ok(enrolled) => return Found::Enrolled(enrolled),
        Err(Unusable::Missing) if !dir.join(BROKEN).exists() => return Found::Nothing,
        Err(Unusable::Missing) => {
            return Found::Damaged(damaged(&path, "it was damaged at a start before"));
        }
        Err(Unusable::Forbidden(error)) => {
            let reason = format!("cannot read {}: {error}", path.display());
            tracing::error!("{reason}; devices are served without the core");
            return Found::Forbidden(reason);
        }
        Err(Unusable::Damaged(reason)) => reason,
    };
    let broken = dir.join(BROKEN);
    let set_aside = fs::rename(&path, &broken)
        .and_then(|()| fs::set_permissions(&broken, Permissions::from_mode(0o600)));
    let mut reason = damaged(&path, &reason);
    if let Err(error) = set_aside {
        // It is found again at the next start, and an enrolment writes over it.
        reason += &format!(" (setting it aside failed: {error})");
    }
    tracing::error!("{reason}; devices are served without the core");
    Found::Damaged(reason)
}

fn damaged(path: &Path, reason: &str) -> String {
    format!(
        "the identity {} is damaged ({reason}) and set aside as {BROKEN}: enrol again with a token",
        path.display()
    )
}

enum Unusable {
    Missing,
    Forbidden(io::Error),
    Damaged(String),
}

fn read(path: &Path) -> Result<Enrolled, Unusable> {
    let text = fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unusable::Missing,
        io::ErrorKind::PermissionDenied => Unusable::Forbidden(error),
        _ => Unusable::Damaged(error.to_string()),
    })?;
    // Without the parser's words: they may quote what stands there, and the key does.
    let stored: Stored = serde_json::from_slice(&text)
        .map_err(|error| Unusable::Damaged(format!("it ends or errs in line {}", error.line())))?;
    let checked = stored.check.as_ref();
    if checked.is_some_and(|check| *check != stored.digest()) {
        return Err(Unusable::Damaged("its checksum does not fit".into()));
    }
    let identity = Identity {
        edge: stored.edge,
        certificate_pem: stored.certificate,
        key_pem: stored.key,
        ca_pem: stored.ca,
    };
    identity
        .check()
        .map_err(|error| Unusable::Damaged(error.to_string()))?;
    Ok(Enrolled {
        identity,
        token: stored.token,
    })
}

/// Keeps the identity that a token gave, readable by the owner only (it holds the private key).
pub fn save(dir: &Path, identity: &Identity, token: &str) -> io::Result<()> {
    let mut stored = Stored {
        edge: identity.edge.clone(),
        certificate: identity.certificate_pem.clone(),
        key: identity.key_pem.clone(),
        ca: identity.ca_pem.clone(),
        token: Some(token_digest(token)),
        check: None,
    };
    stored.check = Some(stored.digest());
    let text = serde_json::to_vec_pretty(&stored).map_err(io::Error::other)?;
    write_private(&dir.join(FILE), &text)?;
    // Its key is of no more use, and what is left of it would be named as the reason when there is no identity.
    match fs::remove_file(dir.join(BROKEN)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
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

    fn enrolled() -> Identity {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        let certificate = parameters.self_signed(&key).unwrap().pem();
        Identity {
            edge: "e".into(),
            ca_pem: certificate.clone(),
            certificate_pem: certificate,
            key_pem: key.serialize_pem(),
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn an_identity_comes_back_and_is_secret() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()), Found::Nothing);
        let identity = enrolled();
        save(dir.path(), &identity, "tl1.x").unwrap();
        let Found::Enrolled(loaded) = load(dir.path()) else {
            panic!("not loaded");
        };
        assert_eq!(loaded.identity, identity);
        assert_eq!(loaded.token, Some(token_digest(" tl1.x\n")));
        assert_ne!(loaded.token, Some(token_digest("tl1.y")));
        let path = dir.path().join(FILE);
        assert_eq!(mode(&path), 0o600);

        // One of an earlier version has no checksum.
        let mut text: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        text.as_object_mut().unwrap().remove("check").unwrap();
        fs::write(&path, text.to_string()).unwrap();
        assert_eq!(load(dir.path()), Found::Enrolled(loaded));
    }

    #[test]
    fn a_damaged_one_is_set_aside_until_there_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let (path, broken) = (dir.path().join(FILE), dir.path().join(BROKEN));
        let identity = enrolled();
        for damage in ["", "{", "{}", "\u{0}\u{0}"] {
            save(dir.path(), &identity, "tl1.x").unwrap();
            assert!(!broken.exists());
            fs::write(&path, damage).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
            // The next start has the same reason, though there is only what was set aside.
            for _ in 0..2 {
                let Found::Damaged(reason) = load(dir.path()) else {
                    panic!("{damage:?} is not noticed");
                };
                assert!(reason.contains(BROKEN) && reason.contains("enrol again"));
                assert!(!path.exists());
                assert_eq!(mode(&broken), 0o600);
            }
        }
        // What can not be read as a file at all.
        fs::remove_file(&broken).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(load(dir.path()), Found::Damaged(_)));
    }

    #[test]
    fn no_flipped_byte_is_taken_for_another_identity() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        save(dir.path(), &enrolled(), "tl1.x").unwrap();
        let (whole, before) = (fs::read(&path).unwrap(), load(dir.path()));
        let mut damaged = 0;
        for _ in 0..500 {
            let (at, flip) = (
                rand::random_range(0..whole.len()),
                rand::random_range(1..=255),
            );
            let mut text = whole.clone();
            text[at] ^= flip;
            fs::write(&path, text).unwrap();
            match load(dir.path()) {
                Found::Damaged(_) => damaged += 1,
                // White space, or the name of the checksum.
                found => assert_eq!(found, before, "byte {at} ^ {flip}"),
            }
            let _ = fs::remove_file(dir.path().join(BROKEN));
        }
        assert!(damaged > 400, "{damaged}");
    }
}
