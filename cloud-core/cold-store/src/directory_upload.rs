//! Writing a large file of a directory store.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use kernel::ports::cold::{ColdError, ColdFuture, MIN_PART_BYTES, Upload};
use kernel::ports::{private_file, write_in_pieces};
use uuid::Uuid;

use crate::directory::{Shared, blocking, sync_directory};
use crate::error::Call;

/// Where objects are while they are written. No key begins with a dot.
const UPLOADS: &str = ".uploads";

/// A file that is being written. It is locked as long as its writer lives, and removed when the writer lets go of it: an object that is
/// done has another name.
pub(crate) struct Staged {
    pub file: File,
    pub path: PathBuf,
}

impl Staged {
    pub fn create(shared: &Shared) -> io::Result<Staged> {
        let directory = shared.root.join(UPLOADS);
        shared.durable_directory(&directory)?;
        loop {
            let path = directory.join(Uuid::new_v4().to_string());
            let file = private_file()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)?;
            file.lock()?;
            // Between the creation and the lock, a core that starts may have taken it for abandoned.
            if file.metadata()?.nlink() > 0 {
                return Ok(Staged { file, path });
            }
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::debug!(path = %self.path.display(), %error, "an unfinished object stays until the next start");
        }
    }
}

/// Removes what writers left that are no more.
pub(crate) fn remove_abandoned(shared: &Shared) -> io::Result<()> {
    let entries = match fs::read_dir(shared.root.join(UPLOADS)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            file => file?,
        };
        match file.try_lock() {
            Ok(()) => match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            },
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(())
}

/// What is done to the file, one step at a time, on a thread that may block.
struct Writing {
    shared: Arc<Shared>,
    key: String,
    /// `None` when it was given up.
    staged: Option<Staged>,
    path: PathBuf,
    /// Durable bytes: parts that were written and synced.
    written: u64,
    /// The last part was smaller than [`MIN_PART_BYTES`], so none may follow.
    ended: bool,
    stage: Stage,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Writing,
    /// The size could not be made durable: nobody knows what is on the disk.
    Broken,
    /// It has its name, which may not be durable yet.
    Named,
}

pub(crate) struct DirectoryUpload {
    /// `None` while a step is under way, and for ever when its caller went away in the middle of it.
    writing: Option<Writing>,
}

impl DirectoryUpload {
    pub fn begin(shared: Arc<Shared>, key: String, path: PathBuf) -> io::Result<DirectoryUpload> {
        let staged = Some(Staged::create(&shared)?);
        let writing = Writing {
            shared,
            key,
            staged,
            path,
            written: 0,
            ended: false,
            stage: Stage::Writing,
        };
        Ok(DirectoryUpload {
            writing: Some(writing),
        })
    }

    fn step(
        &mut self,
        step: impl FnOnce(&mut Writing) -> Result<(), ColdError> + Send + 'static,
    ) -> ColdFuture<'_, ()> {
        let taken = self.writing.take();
        Box::pin(async move {
            let Some(mut writing) = taken else {
                return Err(ColdError::Refused(
                    "a step of the upload was interrupted; it has to be begun anew".to_owned(),
                ));
            };
            let (writing, result) = blocking(move || {
                let result = step(&mut writing);
                Ok((writing, result))
            })
            .await?;
            self.writing = Some(writing);
            result
        })
    }
}

impl Writing {
    fn call(&self) -> Call<'_> {
        Call {
            verb: "write",
            key: &self.key,
            location: &self.shared.location,
        }
    }

    /// Synced part by part. So a part that failed can be written again as if nothing had been (after a failed fdatasync only what was written
    /// since the last one is in doubt, and all of that is written again), and the device gets its work in small helpings, between which
    /// the log's own syncs have their turn.
    fn part(&mut self, parts: &[Bytes]) -> Result<(), ColdError> {
        let Some(staged) = self
            .staged
            .as_ref()
            .filter(|_| self.stage == Stage::Writing)
        else {
            return Err(self.call().refused("the upload has ended"));
        };
        if self.ended {
            return Err(self
                .call()
                .refused("a part of less than 5 MiB must be the last"));
        }
        let bytes = parts.iter().map(|part| part.len() as u64).sum::<u64>();
        let slices: Vec<&[u8]> = parts.iter().map(|part| &part[..]).collect();
        let written = write_in_pieces(&staged.file, self.written, &slices);
        match written.and_then(|()| staged.file.sync_data()) {
            Ok(()) => {
                self.ended = bytes < MIN_PART_BYTES as u64;
                self.written += bytes;
                Ok(())
            }
            Err(error) => Err(self.shared.failed("write", &self.key, &error)),
        }
    }

    fn finish(&mut self) -> Result<(), ColdError> {
        match (&self.stage, &self.staged) {
            (Stage::Writing, Some(staged)) => {
                // A part that failed may have left bytes behind the last good one.
                let synced = staged
                    .file
                    .set_len(self.written)
                    .and_then(|()| staged.file.sync_all());
                if let Err(error) = synced {
                    self.stage = Stage::Broken;
                    return Err(self.call().refused(format_args!(
                        "{error}. Nobody knows what is on the disk; the object has to be written anew"
                    )));
                }
                fs::rename(&staged.path, &self.path).map_err(|error| match error.kind() {
                    // Somebody has removed the file that was being written.
                    ErrorKind::NotFound => self
                        .call()
                        .refused(format_args!("{error}. The object has to be written anew")),
                    _ => self.shared.failed("name", &self.key, &error),
                })?;
                self.stage = Stage::Named;
            }
            (Stage::Named, _) => {}
            _ => {
                return Err(self
                    .call()
                    .refused("the upload has failed; the object has to be written anew"));
            }
        }
        self.path
            .parent()
            .map_or(Ok(()), sync_directory)
            .map_err(|error| self.shared.failed("name", &self.key, &error))
    }
}

impl Upload for DirectoryUpload {
    fn part(&mut self, bytes: Vec<Bytes>) -> ColdFuture<'_, ()> {
        self.step(move |writing| writing.part(&bytes))
    }

    fn finish(&mut self) -> ColdFuture<'_, ()> {
        self.step(Writing::finish)
    }

    fn abort(&mut self) -> ColdFuture<'_, ()> {
        self.step(|writing| {
            writing.staged = None;
            Ok(())
        })
    }
}
