//! Files with secrets.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What [`write_private`] writes first, beside the file.
#[must_use]
pub fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Writes a file as a whole or not at all, readable by its owner only; on the disk when it returns.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = draft_of(path);
    // One that a crash left behind may be readable by others.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// The secret in this file; where there is none, or it is damaged, a new one that is there from now on.
pub(crate) fn kept_secret(path: &Path) -> io::Result<[u8; 32]> {
    match fs::read(path) {
        Ok(bytes) => {
            if let Ok(secret) = bytes.try_into() {
                return Ok(secret);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let secret: [u8; 32] = rand::random();
    write_private(path, &secret)?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_was_open_to_others_is_not_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        for open in [path.clone(), draft_of(&path)] {
            fs::write(&open, "old").unwrap();
            fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
        }
        write_private(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(!draft_of(&path).exists());
    }

    #[test]
    fn a_secret_stays_until_its_file_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let made = kept_secret(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(kept_secret(&path).unwrap(), made);
        fs::write(&path, &made[..7]).unwrap();
        let new = kept_secret(&path).unwrap();
        assert_ne!(new, made);
        assert_eq!(kept_secret(&path).unwrap(), new);
    }
}
