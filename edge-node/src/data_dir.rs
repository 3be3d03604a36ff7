//! The data directory: ours, of a format we know, and not in use by another process.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use credentials::{draft_of, write_private};

/// Marks a directory as an edge's and holds the number of its layout.
const MARKER: &str = "towline-edge.format";
/// Locked for as long as an edge runs in the directory. Its existence says nothing.
const LOCK: &str = "towline-edge.lock";
/// What a file system puts into its root by itself.
const LOST_AND_FOUND: &str = "lost+found";
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
        "the data directory {0} is locked: it is in use by another towline-edge. Stop that one, or give another --data-dir"
    )]
    Locked(PathBuf),
    #[error(
        "the data directory {dir} is not empty and not a towline-edge's (it has {found:?} and no {MARKER}): give an empty or new one with --data-dir"
    )]
    Foreign { dir: PathBuf, found: String },
    #[error(
        "the data directory {dir} has format {found}, this version reads up to {FORMAT}: it was written by a newer towline-edge; use that version or a later one"
    )]
    Newer { dir: PathBuf, found: u64 },
    #[error(
        "{path} is damaged: it should hold the number {FORMAT}. Restore it, everything else may be whole"
    )]
    Damaged { path: PathBuf },
}

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    /// Absolute.
    pub path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens the directory, or makes it (mode 0700). Nothing is changed in one that is refused.
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |error| DataDirError::Io { what, path, error }
        };
        let path = std::path::absolute(path).map_err(io("find", path))?;
        let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.exists()).collect();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(io("make the data directory", &path))?;
        // What is acknowledged in it is not to go with its name in a power cut.
        for parent in missing.iter().filter_map(|dir| dir.parent()) {
            File::open(parent)
                .and_then(|parent| parent.sync_all())
                .map_err(io("sync", parent))?;
        }
        let marker = path.join(MARKER);
        if !marker.exists() {
            refuse_foreign(&path)?;
        }
        let lock_path = path.join(LOCK);
        let lock = OpenOptions::new()
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
        match fs::read_to_string(&marker) {
            Ok(text) => match text.trim().parse::<u64>() {
                Ok(found) if found == u64::from(FORMAT) => {}
                Ok(found) if found > u64::from(FORMAT) => {
                    return Err(DataDirError::Newer { dir: path, found });
                }
                _ => return Err(DataDirError::Damaged { path: marker }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_private(&marker, format!("{FORMAT}\n").as_bytes())
                    .map_err(io("write", &marker))?;
            }
            Err(error) => return Err(io("read", &marker)(error)),
        }
        Ok(DataDir { path, _lock: lock })
    }
}

fn refuse_foreign(dir: &Path) -> Result<(), DataDirError> {
    let io = |error| DataDirError::Io {
        what: "list",
        path: dir.to_owned(),
        error,
    };
    let draft = draft_of(&dir.join(MARKER));
    for entry in fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let ours = [LOCK, LOST_AND_FOUND];
        if !ours.iter().any(|ours| name == **ours) && dir.join(&name) != draft {
            let found = name.to_string_lossy().into_owned();
            return Err(DataDirError::Foreign {
                dir: dir.to_owned(),
                found,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_again_when_it_is_free_and_not_while_it_is_in_use() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/data");
        let open = DataDir::open(&path).unwrap();
        let error = DataDir::open(&path).unwrap_err();
        assert!(matches!(error, DataDirError::Locked(_)), "{error}");
        drop(open);
        DataDir::open(&path).unwrap();
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
    fn newer_and_damaged_markers_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        for (text, newer) in [
            ("2", true),
            ("999\n", true),
            ("", false),
            ("x1", false),
            ("0", false),
        ] {
            fs::write(root.path().join(MARKER), text).unwrap();
            let error = DataDir::open(root.path()).unwrap_err();
            assert_eq!(
                matches!(error, DataDirError::Newer { .. }),
                newer,
                "{text:?}: {error}"
            );
        }
    }
}
