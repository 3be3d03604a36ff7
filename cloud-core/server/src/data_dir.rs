//! The data directory: ours, of a format we know, and not in use by another process.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kernel::ports::{private_directory, private_file};
use serde::{Deserialize, Serialize};

use crate::cluster_id;

/// Marks a directory as a core's. Written once, at the first start.
const MARKER: &str = "towline-core.toml";
const MARKER_DRAFT: &str = "towline-core.toml.new";
/// Locked for as long as a core runs in the directory. Its existence says nothing.
const LOCK: &str = "towline-core.lock";
/// What a file system puts into its root by itself.
const LOST_AND_FOUND: &str = "lost+found";
/// The layout of the directory. A directory with a higher number was written by a later version.
const FORMAT: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("cannot {what} {path}: {error}")]
    Io {
        what: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    #[error(
        "the data directory {0} is in use by another towline-core: stop that one, or give another --data-dir"
    )]
    Locked(PathBuf),
    #[error(
        "the data directory {dir} is not empty and not a towline-core's (it has {found:?} and no {MARKER}): give an empty or new one with --data-dir"
    )]
    Foreign { dir: PathBuf, found: String },
    #[error(
        "the data directory {dir} has format {found}, this version reads up to {FORMAT}: it was written by a newer towline-core; use that version or a later one"
    )]
    Newer { dir: PathBuf, found: u32 },
    #[error("{path} is damaged ({reason}): restore it from a backup of the data directory")]
    Damaged { path: PathBuf, reason: String },
}

/// The content of the marker.
#[derive(Serialize, Deserialize)]
struct Marker {
    format: u32,
    cluster_id: String,
}

/// The format alone, which later versions keep where it is.
#[derive(Deserialize)]
struct MarkerFormat {
    format: u32,
}

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    /// Absolute.
    pub path: PathBuf,
    pub cluster_id: String,
    _lock: File,
}

impl DataDir {
    /// Opens the directory, or makes it, for its owner only. Nothing is changed in one that is refused.
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |error| DataDirError::Io { what, path, error }
        };
        let path = std::path::absolute(path).map_err(io("find", path))?;
        private_directory(&path).map_err(io("make the data directory", &path))?;
        if !path.join(MARKER).exists() {
            refuse_foreign(&path)?;
        }
        let lock_path = path.join(LOCK);
        let lock = private_file()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(io("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::Locked(path)),
            Err(TryLockError::Error(error)) => return Err(io("lock", &lock_path)(error)),
        }
        let marker_path = path.join(MARKER);
        let cluster_id = match fs::read_to_string(&marker_path) {
            Ok(text) => read_marker(&path, &text)?.cluster_id,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let cluster_id = cluster_id::new();
                write_marker(&path, &cluster_id).map_err(io("write", &marker_path))?;
                cluster_id
            }
            Err(error) => return Err(io("read", &marker_path)(error)),
        };
        if let Some(open) = open_to_others(&path) {
            tracing::warn!(
                data_dir = %path.display(),
                open = %open.display(),
                "other users of the system can read messages and keys of passwords in the data directory, as an earlier version or a copy left it: chmod -R go= closes it"
            );
        }
        Ok(DataDir {
            path,
            cluster_id,
            _lock: lock,
        })
    }
}

/// A part of the directory that others than its owner can enter, if they can enter the directory. New ones are closed; those of earlier versions were not,
/// and are left as they are: somebody may have opened them on purpose.
fn open_to_others(dir: &Path) -> Option<PathBuf> {
    let lets_others = |path: &Path| {
        fs::metadata(path)
            .is_ok_and(|found| found.is_dir() && found.permissions().mode() & 0o011 != 0)
    };
    if !lets_others(dir) {
        return None;
    }
    let mut entries = fs::read_dir(dir).ok()?.flatten();
    entries
        .find(|entry| lets_others(&entry.path()))
        .map(|entry| entry.path())
}

fn refuse_foreign(dir: &Path) -> Result<(), DataDirError> {
    let io = |error| DataDirError::Io {
        what: "list",
        path: dir.to_owned(),
        error,
    };
    for entry in fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        if ![LOCK, MARKER_DRAFT, LOST_AND_FOUND]
            .iter()
            .any(|ours| name == **ours)
        {
            let found = name.to_string_lossy().into_owned();
            return Err(DataDirError::Foreign {
                dir: dir.to_owned(),
                found,
            });
        }
    }
    Ok(())
}

fn read_marker(dir: &Path, text: &str) -> Result<Marker, DataDirError> {
    let damaged = |error: toml::de::Error| DataDirError::Damaged {
        path: dir.join(MARKER),
        reason: error.message().to_owned(),
    };
    let MarkerFormat { format } = toml::from_str(text).map_err(damaged)?;
    if format > FORMAT {
        return Err(DataDirError::Newer {
            dir: dir.to_owned(),
            found: format,
        });
    }
    toml::from_str(text).map_err(damaged)
}

fn write_marker(dir: &Path, cluster_id: &str) -> io::Result<()> {
    let marker = Marker {
        format: FORMAT,
        cluster_id: cluster_id.to_owned(),
    };
    let text = toml::to_string(&marker).map_err(io::Error::other)?;
    let draft = dir.join(MARKER_DRAFT);
    let mut file = private_file()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, dir.join(MARKER))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_is_made_and_is_the_same_ever_after() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/data");
        let first = DataDir::open(&path).unwrap().cluster_id;
        assert_eq!(first.len(), 22);
        assert_eq!(DataDir::open(&path).unwrap().cluster_id, first);
    }

    #[test]
    fn a_new_one_is_for_its_owner_only_and_an_open_one_is_said() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data");
        let data_dir = DataDir::open(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        for file in [MARKER, LOCK] {
            assert_eq!(mode(&path.join(file)), 0o600, "{file}");
        }
        drop(data_dir);

        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let wal = path.join("wal");
        fs::create_dir(&wal).unwrap();
        for (outer, inner, open) in [
            (0o755, 0o755, true),
            (0o750, 0o750, true),
            // Nobody gets that far, or there is nothing to be read.
            (0o700, 0o755, false),
            (0o755, 0o700, false),
        ] {
            set(&path, outer);
            set(&wal, inner);
            assert_eq!(
                open_to_others(&path),
                open.then(|| wal.clone()),
                "{outer:o} {inner:o}"
            );
            DataDir::open(&path).unwrap();
            assert_eq!((mode(&path), mode(&wal)), (outer, inner));
        }
    }

    #[test]
    fn a_locked_one_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let _open = DataDir::open(root.path()).unwrap();
        let error = DataDir::open(root.path()).unwrap_err();
        assert!(matches!(error, DataDirError::Locked(_)), "{error}");
    }

    #[test]
    fn a_foreign_one_is_refused_and_not_touched() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("thesis.doc"), "x").unwrap();
        let error = DataDir::open(root.path()).unwrap_err();
        assert!(error.to_string().contains("thesis.doc"), "{error}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_newer_one_is_refused_whatever_else_its_marker_says() {
        let root = tempfile::tempdir().unwrap();
        fs::write(
            root.path().join(MARKER),
            "format = 2\nshape = \"unknown\"\n",
        )
        .unwrap();
        let error = DataDir::open(root.path()).unwrap_err();
        assert!(
            matches!(error, DataDirError::Newer { found: 2, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_damaged_marker_is_said() {
        let root = tempfile::tempdir().unwrap();
        for text in ["", "format = \"x\"", "format = 1\n", "\u{0}"] {
            fs::write(root.path().join(MARKER), text).unwrap();
            let error = DataDir::open(root.path()).unwrap_err();
            assert!(
                matches!(error, DataDirError::Damaged { .. }),
                "{text:?}: {error}"
            );
        }
    }
}
