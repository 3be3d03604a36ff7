//! A reserve on the disk: a file that is there to be deleted when the file system is full, so that the ledger can still be written, gaps
//! noted, and the outbox drained. While it is missing, no new messages are taken.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::disk::{Disk, RealDisk};
use crate::limits;

pub(crate) struct Space {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    full: AtomicBool,
}

/// The name of the reserve in the store's directory.
pub const RESERVE: &str = "reserve";
const DRAFT: &str = "reserve.new";

/// Has the file system of a data directory less room than a store may need to open?
#[must_use]
pub fn lacks_room(data_dir: &Path) -> bool {
    lacks_room_on(&RealDisk, data_dir)
}

fn lacks_room_on(disk: &dyn Disk, dir: &Path) -> bool {
    let needed = limits::RESERVE as u64 + limits::LEDGER_ROOM;
    disk.room(dir).is_ok_and(|room| room < needed)
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl Space {
    /// Makes the reserve if it is not there, or gives it up if there is hardly room. A file system without room for it is full from the start.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> io::Result<Space> {
        let space = Space {
            disk,
            dir: dir.to_owned(),
            full: AtomicBool::new(true),
        };
        let names = space.disk.list(dir)?;
        if names.iter().any(|name| name == RESERVE) {
            space.full.store(false, Ordering::Relaxed);
            space.look_ahead();
        } else {
            space.try_again();
        }
        Ok(space)
    }

    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// May the ledger grow by so much and still have the room that it needs?
    pub fn has_room(&self, bytes: usize) -> bool {
        !self.is_full() && self.has_room_of_ledger(bytes)
    }

    /// [`Space::has_room`], of what the reserve left when it was given up.
    pub fn has_room_of_ledger(&self, bytes: usize) -> bool {
        // A row is written again when others are.
        let needed = limits::LEDGER_ROOM + 2 * bytes as u64;
        self.disk.room(&self.dir).is_ok_and(|room| room >= needed)
    }

    /// Gives up the reserve before the ledger finds no room: sled takes nothing any more after an error of its file.
    pub fn look_ahead(&self) {
        let room = self.disk.room(&self.dir);
        if room.is_ok_and(|room| room < limits::LEDGER_ROOM) {
            self.run_out();
        }
    }

    /// The file system is full: gives up the reserve.
    pub fn run_out(&self) {
        if self.full.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::error!(
            "the file system is full: new messages are refused until there is room again"
        );
        if let Err(error) = self.disk.remove(&self.dir.join(RESERVE)) {
            tracing::warn!(%error, "the reserve can not be deleted");
        }
    }

    /// Makes the reserve again, if the file system was full and is not any more.
    pub fn try_again(&self) {
        if !self.is_full() || lacks_room_on(&*self.disk, &self.dir) {
            return;
        }
        match self.make() {
            Ok(()) => {
                self.full.store(false, Ordering::Relaxed);
                tracing::info!("there is room on the file system");
            }
            Err(error) => {
                tracing::debug!(%error, "there is no room for the reserve");
                // Whatever of it is there only takes room.
                let _ = self.disk.remove(&self.dir.join(DRAFT));
            }
        }
    }

    fn make(&self) -> io::Result<()> {
        let draft = self.dir.join(DRAFT);
        let file = match self.disk.create(&draft) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.remove(&draft)?;
                self.disk.create(&draft)?
            }
            result => result?,
        };
        let chunk = vec![0; limits::RESERVE_CHUNK];
        for _ in 0..limits::RESERVE / limits::RESERVE_CHUNK {
            file.append(&chunk)?;
        }
        file.sync()?;
        self.disk.rename(&draft, &self.dir.join(RESERVE))?;
        self.disk.sync_dir(&self.dir)
    }
}
