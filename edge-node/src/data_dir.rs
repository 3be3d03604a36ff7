//! The data directory: ours, of a format we know, and not in use by another process.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use credentials::{draft_of, write_private};
use store::{Recognised, recognise};

/// Marks a directory as an edge's and holds the number of its layout.
const MARKER: &str = "towline-edge.format";
/// Locked for as long as an edge runs in the directory. Its existence says nothing.
const LOCK: &str = "towline-edge.lock";
/// What a file system puts into its root by itself.
const LOST_AND_FOUND: &str = "lost+found";
/// 2: the values of the ledger have checksums.
const FORMAT: u32 = 2;
/// The format before, which is read: what is written from now on has them, and the rest when it is written again.
const WITHOUT_CHECKSUMS: u64 = 1;

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
        "the data directory {dir} has no {MARKER} that can be read, and its segments have format {found}, this version reads up to {}: it was written by a newer towline-edge; use that version or a later one",
        store::FORMAT_VERSION
    )]
    NewerSegments { dir: PathBuf, found: u16 },
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
    ///
    /// A marker that the flash lost or damaged keeps no edge from starting: what is in the directory says whose it is.
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
        let missing = !marker.exists();
        let known = missing && is_known(&path)?;
        if missing && !known {
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
        let text = match fs::read(&marker) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !known => {
                write_marker(&marker).map_err(io("write", &marker))?;
                return Ok(DataDir { path, _lock: lock });
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(io("read", &marker)(error));
            }
            Err(_) => Vec::new(),
        };
        let number = std::str::from_utf8(&text).map(|text| text.trim().parse::<u64>());
        match number {
            Ok(Ok(found)) if found == u64::from(FORMAT) => {}
            Ok(Ok(WITHOUT_CHECKSUMS)) => {
                // Before there is something in it that an older version does not read.
                raise_marker(&marker).map_err(io("write", &marker))?;
            }
            Ok(Ok(found)) if found > u64::from(FORMAT) => {
                return Err(DataDirError::Newer { dir: path, found });
            }
            _ => {
                // Its name says whose directory it is; of which format that is, what is stored.
                if !known && let Recognised::Newer(found) = recognise(&path) {
                    return Err(DataDirError::NewerSegments { dir: path, found });
                }
                tracing::warn!(marker = %marker.display(), missing, "the marker of the data directory was lost or damaged: it is restored");
                // Without it the next start does the same.
                if let Err(error) = write_marker(&marker) {
                    tracing::warn!(marker = %marker.display(), %error, "the marker can not be written");
                }
            }
        }
        Ok(DataDir { path, _lock: lock })
    }
}

fn write_marker(marker: &Path) -> io::Result<()> {
    write_private(marker, format!("{FORMAT}\n").as_bytes())
}

/// Says in a marker of an earlier format that this one has been here. A file system that is full to the last block has no room for another file, and is
/// no reason not to start: there the number is written over. It is one digit, so that it is the one or the other whenever the power goes.
fn raise_marker(marker: &Path) -> io::Result<()> {
    let Err(error) = write_marker(marker) else {
        return Ok(());
    };
    let file = OpenOptions::new().read(true).write(true).open(marker)?;
    let mut digit = [0];
    file.read_exact_at(&mut digit, 0)?;
    let number = FORMAT.to_string();
    if !digit[0].is_ascii_digit() || number.len() != digit.len() {
        return Err(error);
    }
    file.write_all_at(number.as_bytes(), 0)?;
    file.sync_all()
}

/// Whether a directory without a marker is a towline-edge's all the same, by what is stored in it.
fn is_known(dir: &Path) -> Result<bool, DataDirError> {
    match recognise(dir) {
        Recognised::Ours => Ok(true),
        Recognised::Newer(found) => Err(DataDirError::NewerSegments {
            dir: dir.to_owned(),
            found,
        }),
        // Segments by name only, beside a ledger of sled: nobody else has both.
        Recognised::Unreadable => Ok(dir.join("ledger/conf").exists()),
        Recognised::Nothing => Ok(false),
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
    use store::{Config, Store};

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
    fn an_earlier_format_is_taken_over_where_no_file_can_be_made() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path();
        drop(DataDir::open(path).unwrap());
        let marker = path.join(MARKER);
        fs::write(&marker, "1\n").unwrap();
        // In the way of another file.
        fs::create_dir(draft_of(&marker)).unwrap();
        drop(DataDir::open(path).unwrap());
        assert_eq!(fs::read_to_string(&marker).unwrap(), "2\n");
    }

    #[test]
    fn newer_and_damaged_markers_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let marker = root.path().join(MARKER);
        for (text, newer) in [
            (&b"3"[..], true),
            (b"1\n", false),
            (b"999\n", true),
            (b"", false),
            (b"x1", false),
            (b"0", false),
            (b"\xff1\n", false),
        ] {
            fs::write(&marker, text).unwrap();
            let opened = DataDir::open(root.path());
            let refused = matches!(opened, Err(DataDirError::Newer { .. }));
            assert_eq!(refused, newer, "{text:?}: {opened:?}");
            assert_eq!(opened.is_err(), newer, "{text:?}: {opened:?}");
            let left = fs::read(&marker).unwrap();
            assert_eq!(left, if newer { text } else { b"2\n" });
        }
    }

    #[test]
    fn a_lost_marker_is_restored_where_there_is_a_store_of_this_format() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path();
        let marker = path.join(MARKER);
        drop(DataDir::open(path).unwrap());
        Store::open_in(path, Config::new(1)).unwrap().close();
        fs::remove_file(&marker).unwrap();
        drop(DataDir::open(path).unwrap());
        assert_eq!(fs::read(&marker).unwrap(), b"2\n");

        // Without a header that can be read, the ledger beside the segments says it.
        let segments: Vec<_> = segments(&path.join("store"));
        for segment in &segments {
            fs::write(segment, "damaged").unwrap();
        }
        fs::remove_file(&marker).unwrap();
        drop(DataDir::open(path).unwrap());

        // A newer program's is refused, whatever became of the marker.
        let newer = [&b"TOWLSEG\n"[..], &9_u16.to_be_bytes(), &[0; 64]].concat();
        fs::write(&segments[0], newer).unwrap();
        fs::write(&marker, "").unwrap();
        for _ in 0..2 {
            let error = DataDir::open(path).unwrap_err();
            assert!(error.to_string().contains("format 9"), "{error}");
            let _ = fs::remove_file(&marker);
        }
        assert!(!marker.exists());
        fs::remove_dir_all(path.join("store")).unwrap();
        let error = DataDir::open(path).unwrap_err();
        assert!(matches!(error, DataDirError::Foreign { .. }), "{error}");
    }

    fn segments(dir: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(segments(&path));
            } else if path.extension().is_some_and(|end| end == "seg") {
                found.push(path);
            }
        }
        found
    }
}
