//! Objects as files of a directory.
//!
//! Why not the directory store of object_store (0.14): its parts cannot be repeated after an error (the place of the next part moves even when
//! one fails), its end cannot be repeated at all, a directory that was made but not synced before a crash is taken for durable after it,
//! and what a killed process was writing stays for ever. Here:
//!
//! * an object is written beside (`.uploads/`), synced, and then given its name; that name is synced before anybody hears of it;
//! * every directory on the way is synced the first time this process uses it, whoever made it;
//! * files of writers that are no more are found by their missing lock and removed at the next start;
//! * what is made is for its owner only, whoever may enter the directory: it is as secret as the log was.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use kernel::ports::cold::{ALONE_BYTES, ColdError, ColdFuture, ColdObject, ColdStore, Upload};
use kernel::ports::private_below;

use crate::directory_upload::{self, DirectoryUpload, Staged};
use crate::error::{Call, OpenError};

/// A directory of the file system. Clones are the same store.
#[derive(Clone)]
pub(crate) struct DirectoryStore {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub root: PathBuf,
    pub location: String,
    /// Directories whose own names are known to be durable.
    durable: Mutex<HashSet<PathBuf>>,
}

impl DirectoryStore {
    pub fn open(root: PathBuf) -> Result<DirectoryStore, OpenError> {
        let shared = Shared {
            location: format!("file://{}", root.display()),
            root,
            durable: Mutex::new(HashSet::new()),
        };
        let opened = shared
            .durable_directory(&shared.root)
            .and_then(|()| directory_upload::remove_abandoned(&shared));
        match opened {
            Ok(()) => Ok(DirectoryStore {
                shared: Arc::new(shared),
            }),
            Err(source) => Err(OpenError::Directory {
                path: shared.root.display().to_string(),
                source,
            }),
        }
    }

    /// Runs what blocks on a thread that may block; in place where there is no runtime.
    fn run<T: Send + 'static>(
        &self,
        verb: &'static str,
        key: &str,
        job: impl FnOnce(&Shared, &Path) -> io::Result<T> + Send + 'static,
    ) -> ColdFuture<'static, T> {
        let shared = self.shared.clone();
        let key = key.to_owned();
        Box::pin(async move {
            let path = match shared.path(&key) {
                Some(path) => path,
                None => return Err(ColdError::Refused(format!("{key} is no key of an object"))),
            };
            blocking(move || job(&shared, &path).map_err(|e| shared.failed(verb, &key, &e))).await
        })
    }
}

/// Runs a job where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, ColdError> + Send + 'static,
) -> Result<T, ColdError> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(job).await.unwrap_or_else(|_| {
            Err(ColdError::Unavailable(
                "the process is ending, nothing more is read or written".to_owned(),
            ))
        }),
        Err(_) => job(),
    }
}

impl Shared {
    /// The file of a key; `None` for keys that would lead elsewhere.
    fn path(&self, key: &str) -> Option<PathBuf> {
        let sound =
            |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['\0', '\\']);
        key.split('/').all(sound).then(|| self.root.join(key))
    }

    pub fn failed(&self, verb: &'static str, key: &str, error: &io::Error) -> ColdError {
        let call = Call {
            verb,
            key,
            location: &self.location,
        };
        match error.kind() {
            ErrorKind::NotFound => ColdError::NotFound(key.to_owned()),
            ErrorKind::AlreadyExists => ColdError::Exists(key.to_owned()),
            ErrorKind::InvalidInput => call.refused(error),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => call.unavailable(format_args!(
                "{error}. Make room, or choose another cold-url"
            )),
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => call.refused(
                format_args!("{error}. The core has to be allowed to write there"),
            ),
            _ => call.unavailable(error),
        }
    }

    /// Makes a directory below the root (or the root), and sees to it that its name and those of its parents are durable.
    pub fn durable_directory(&self, directory: &Path) -> io::Result<()> {
        let known = |path: &Path| {
            let durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
            durable.contains(path)
        };
        if known(directory) {
            return Ok(());
        }
        private_below(&self.root, directory)?;
        // One that another process made a moment ago may not be durable yet, so all are synced, once in the life of this process.
        for above in directory.ancestors() {
            if known(above) {
                break;
            }
            let Some(parent) = above.parent().filter(|p| !p.as_os_str().is_empty()) else {
                break;
            };
            match sync_directory(parent) {
                Ok(()) => {}
                // Directories above ours may be closed to us; those have been there for long.
                Err(error)
                    if error.kind() == ErrorKind::PermissionDenied
                        && !parent.starts_with(&self.root) =>
                {
                    break;
                }
                Err(error) => return Err(error),
            }
            let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
            durable.insert(above.to_owned());
        }
        Ok(())
    }
}

pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn refuse(reason: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, reason)
}

fn read(path: &Path, range: &Range<u64>) -> io::Result<Bytes> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    // Checked before memory is taken for it.
    if range.start > range.end || range.end > size {
        return Err(refuse(format!("it has {size} bytes, not {range:?}")));
    }
    let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    if range.end - range.start <= ALONE_BYTES {
        // The system would read megabytes ahead, on some machines. Only advice: without it nothing fails.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random);
    }
    let mut buffer = Vec::with_capacity(length);
    file.seek(SeekFrom::Start(range.start))?;
    file.take(range.end - range.start)
        .read_to_end(&mut buffer)?;
    if buffer.len() < length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(buffer.into())
}

fn walk(root: &Path, directory: &Path, found: &mut Vec<ColdObject>) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let metadata = match entry.metadata() {
            // Deleted meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        let path = entry.path();
        if metadata.is_dir() {
            walk(root, &path, found)?;
            continue;
        }
        // Names that are no text, and files that are no plain files, are none of ours.
        let key = path.strip_prefix(root).ok().and_then(Path::to_str);
        if let Some(key) = key.filter(|_| metadata.is_file()) {
            let written = metadata.modified()?.duration_since(UNIX_EPOCH);
            found.push(ColdObject {
                key: key.to_owned(),
                bytes: metadata.len(),
                written_at: written.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)),
            });
        }
    }
    Ok(())
}

impl ColdStore for DirectoryStore {
    fn create(&self, key: &str, bytes: Bytes) -> ColdFuture<'_, ()> {
        self.run("create", key, move |shared, path| {
            let parent = path.parent().unwrap_or(&shared.root);
            shared.durable_directory(parent)?;
            let staged = Staged::create(shared)?;
            staged.file.write_all_at(&bytes, 0)?;
            staged.file.sync_all()?;
            match fs::hard_link(&staged.path, path) {
                // Whoever hears of it may build on it, so its name has to be durable even where another made it.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    sync_directory(parent)?;
                    Err(error)
                }
                linked => linked.and_then(|()| sync_directory(parent)),
            }
        })
    }

    fn upload(&self, key: &str) -> ColdFuture<'_, Box<dyn Upload>> {
        let shared = self.shared.clone();
        let name = key.to_owned();
        self.run("begin", key, move |_, path| {
            shared.durable_directory(path.parent().unwrap_or(&shared.root))?;
            let upload = DirectoryUpload::begin(shared, name, path.to_owned())?;
            Ok(Box::new(upload) as Box<dyn Upload>)
        })
    }

    fn get(&self, key: &str, range: Range<u64>) -> ColdFuture<'_, Bytes> {
        self.run("read", key, move |_, path| read(path, &range))
    }

    fn size(&self, key: &str) -> ColdFuture<'_, u64> {
        self.run("look up", key, |_, path| {
            let metadata = fs::metadata(path)?;
            if metadata.is_file() {
                Ok(metadata.len())
            } else {
                Err(ErrorKind::NotFound.into())
            }
        })
    }

    fn list(&self, prefix: &str) -> ColdFuture<'_, Vec<ColdObject>> {
        if prefix.is_empty() {
            let shared = self.shared.clone();
            return Box::pin(blocking(move || {
                let mut found = Vec::new();
                walk(&shared.root, &shared.root, &mut found)
                    .map_err(|error| shared.failed("list", "", &error))?;
                Ok(found)
            }));
        }
        self.run("list", prefix.trim_end_matches('/'), |shared, path| {
            let mut found = Vec::new();
            walk(&shared.root, path, &mut found)?;
            Ok(found)
        })
    }

    fn delete(&self, key: &str) -> ColdFuture<'_, ()> {
        self.run("delete", key, |_, path| match fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        })
    }

    fn is_local(&self) -> bool {
        true
    }

    fn location(&self) -> String {
        self.shared.location.clone()
    }
}
