//! When an entry that a start needs is damaged and there is no copy of it: the log ends before it. What is taken away is kept beside.

use std::io;
use std::sync::Arc;

use super::files::WalFiles;
use super::frame::{
    FILE_HEADER, FileHeader, Format, PROLOGUE, decode_file_header, encode_file_header,
};
use super::recover::{io_error, look, witness};
use super::spares::new_salt;
use super::{DIRECTORY, first_index, path};
use crate::checkpoint;
use crate::error::OpenError;
use crate::kernel::LOCK;
use crate::limits::RECOVERY_PIECE_BYTES;
use crate::pool::Pool;
use crate::ports::{Disk, DiskFile};
use crate::snapshot::SnapshotHead;

/// The file that takes the place of the damaged one, while it is written.
const NEW: &str = "wal/cut.tmp";
/// Most cuts that are kept beside a log.
const MOST_CUTS: u32 = 10_000;

/// Where a log can be cut, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The first damaged entry: it and all after it are not of the log any more.
    pub index: u64,
    /// The file it is in.
    pub path: String,
    /// Where in the file, in bytes.
    pub position: u64,
    /// What is wrong with it.
    pub reason: String,
    /// The files that hold what is given up.
    pub files: Vec<String>,
    /// What is added to their names, so that they are no files of the log any more.
    pub suffix: String,
}

/// Why a log was not cut.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// A kernel runs in it.
    #[error("the data directory is in use by a running process")]
    Locked,
    /// A cut does not help.
    #[error(
        "{path} is damaged at byte {position} (entry {index}, {reason}), in what a checkpoint builds on: restore that file from a copy, or restore the log from its cold store"
    )]
    BuiltOn {
        /// The file.
        path: String,
        /// Where in the file, in bytes.
        position: u64,
        /// The damaged entry.
        index: u64,
        /// What is wrong.
        reason: String,
    },
    /// Something else keeps the log from opening, or it could not be written.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Looks for damage that a start does not get past, and cuts the log before it, if `really`. `None`: there is none, and nothing was done.
pub fn cut_log(disk: &Arc<dyn Disk>, really: bool) -> Result<Option<Cut>, CutError> {
    let _lock = disk
        .lock(LOCK)
        .map_err(io_error("lock", LOCK))?
        .ok_or(CutError::Locked)?;
    let loaded = checkpoint::load(&**disk, 0)?;
    let pool = Pool::start(0).map_err(OpenError::Thread)?;
    let files = WalFiles::new(disk.clone());
    let looked = look(&**disk, &pool, &loaded.state, &files, loaded.head);
    let looked = looked.map_err(|error| checkpoint::Loaded::blame(loaded.damage, error));
    let Some(cut) = find(&**disk, looked, loaded.head)? else {
        return Ok(None);
    };
    if really {
        cut.make(&**disk, loaded.head.stamp)?;
    }
    Ok(Some(cut))
}

fn find(
    disk: &dyn Disk,
    looked: Result<(), OpenError>,
    head: SnapshotHead,
) -> Result<Option<Cut>, CutError> {
    let (path, position, index, reason) = match looked {
        Ok(()) => return Ok(None),
        Err(OpenError::Corrupt {
            path,
            position,
            index,
            reason,
        }) => (path, position, index, reason),
        Err(error) => return Err(error.into()),
    };
    let name = path.rsplit('/').next().unwrap_or(&path);
    let first = first_index(name).unwrap_or(0);
    let ends_early = first == head.wal_file && position < head.wal_position;
    if first == 0 || index <= head.index || ends_early {
        return Err(CutError::BuiltOn {
            path,
            position,
            index,
            reason,
        });
    }
    let names = disk.list(DIRECTORY).map_err(io_error("list", DIRECTORY))?;
    let mut files: Vec<u64> = names
        .iter()
        .filter_map(|name| first_index(name))
        .filter(|other| *other >= first)
        .collect();
    files.sort_unstable();
    Ok(Some(Cut {
        index,
        path,
        position,
        reason,
        files: files.into_iter().map(super::path).collect(),
        suffix: unused(&names)?,
    }))
}

/// A suffix that no file has yet.
fn unused(names: &[String]) -> Result<String, OpenError> {
    let mut suffixes = (1..MOST_CUTS).map(|number| format!(".cut-{number}"));
    suffixes
        .find(|suffix| !names.iter().any(|name| name.ends_with(suffix)))
        .ok_or_else(|| {
            io_error("find a new name in", DIRECTORY)(io::ErrorKind::AlreadyExists.into())
        })
}

impl Cut {
    /// Whether there are entries in the damaged file that stay.
    fn keeps_some(&self) -> bool {
        self.position > FILE_HEADER as u64
    }

    /// A crash anywhere in it leaves the log as it was, or cut: what stands at its end is then taken for an unfinished write.
    fn make(&self, disk: &dyn Disk, stamp: i64) -> Result<(), OpenError> {
        let failed = |path: &str| io_error("cut the log at", path);
        let new = self.write_new(disk, stamp).map_err(failed(NEW))?;
        if self.keeps_some() {
            // What takes its place comes there in one step, so a copy goes away, before anything else does.
            copy(disk, &self.path, &self.aside(&self.path)).map_err(failed(&self.path))?;
        }
        let replaced = usize::from(self.keeps_some());
        // The newest first: so there is never a gap.
        for path in self.files.iter().skip(replaced).rev() {
            disk.rename(path, &self.aside(path)).map_err(failed(path))?;
            disk.sync_dir(DIRECTORY).map_err(failed(path))?;
        }
        disk.rename(NEW, &new).map_err(failed(&new))?;
        disk.sync_dir(DIRECTORY).map_err(failed(&new))
    }

    /// Where a file goes.
    pub fn aside(&self, path: &str) -> String {
        format!("{path}{}", self.suffix)
    }

    /// Writes what the log ends with from now on; returns its name. Its last entry is one of nothing, which says that those before it were durable:
    /// what is damaged in them is not an unfinished write.
    fn write_new(&self, disk: &dyn Disk, stamp: i64) -> io::Result<String> {
        let names = disk.list(DIRECTORY)?;
        if names.iter().any(|name| NEW.ends_with(name.as_str())) {
            disk.remove(NEW)?;
        }
        let new = disk.create(NEW)?;
        let (path, format, end) = if self.keeps_some() {
            let old = disk.open(&self.path, false)?;
            let format = format_of(&*old, &self.path)?;
            copy_bytes(&*old, &*new, self.position)?;
            (self.path.clone(), format, self.position)
        } else {
            let salt = new_salt();
            new.write_at(0, &[&encode_file_header(salt)])?;
            (path(self.index), Format::V3 { salt }, FILE_HEADER as u64)
        };
        new.write_at(end, &[&witness(format, self.index, stamp)])?;
        new.sync()?;
        Ok(path)
    }
}

fn format_of(file: &dyn DiskFile, path: &str) -> io::Result<Format> {
    let len = file.len()?.min(PROLOGUE as u64);
    let mut prologue = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_at(0, &mut prologue)?;
    let name = path.rsplit('/').next().unwrap_or(path);
    match decode_file_header(&prologue, first_index(name).unwrap_or(0)) {
        FileHeader::Sound(format) => Ok(format),
        _ => Err(io::Error::other("its header is another one now")),
    }
}

fn copy(disk: &dyn Disk, from: &str, to: &str) -> io::Result<()> {
    let (from, to_file) = (disk.open(from, false)?, disk.create(to)?);
    copy_bytes(&*from, &*to_file, from.len()?)?;
    to_file.sync()
}

fn copy_bytes(from: &dyn DiskFile, to: &dyn DiskFile, len: u64) -> io::Result<()> {
    let mut at = 0;
    while at < len {
        let left = usize::try_from(len - at).unwrap_or(usize::MAX);
        let mut piece = vec![0; left.min(RECOVERY_PIECE_BYTES)];
        from.read_at(at, &mut piece)?;
        to.write_at(at, &[&piece])?;
        at += piece.len() as u64;
    }
    Ok(())
}
