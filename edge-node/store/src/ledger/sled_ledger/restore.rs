//! What is kept of a ledger that does not open: a copy of its file from before that, and a new ledger of what is whole in it.

use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use bytes::Bytes;

use super::super::Table;
use super::super::salvage::{Salvage, copy_readable, survey};
use super::super::value::{Stored, Whole, checksum};
use super::mark::{self, MARK};
use super::{NotOpened, SledLedger, piece_prefix, sync_parent};
use crate::limits;
use crate::space::lacks_room;

/// Looks at the file before sled does, and keeps a copy of one that is not as sled leaves it when nothing happens to it: sled overwrites what it takes for
/// the end of its log, also where it does not open after that. Gives the mark that says how new the ledger must be.
pub(super) fn look(dir: &Path, copy: &Path) -> u64 {
    // A copy that is there already is of an opening that did not come to its end.
    let from = if copy.join("db").exists() { copy } else { dir };
    if !from.join("db").exists() {
        return 0;
    }
    let survey = match survey(from, (MARK, mark::read)) {
        Ok(survey) => survey,
        Err(error) => {
            tracing::warn!(%error, "the ledger can not be looked at before it is opened");
            return 0;
        }
    };
    if from == dir
        && !survey.is_regular
        && let Err(error) = keep_copy(dir, copy)
    {
        tracing::warn!(%error, "the ledger can not be copied before it is opened");
    }
    survey.mark
}

fn keep_copy(dir: &Path, copy: &Path) -> std::io::Result<()> {
    let (from, to) = (dir.join("db"), copy.join("db"));
    let room = rustix::fs::statvfs(dir)?;
    let room = room.f_bavail.saturating_mul(room.f_frsize);
    // What is salvaged lies beside the copy.
    let needed = 2 * std::fs::metadata(&from)?.len() + limits::LEDGER_COPY_ROOM;
    if room < needed {
        return Err(ErrorKind::StorageFull.into());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(copy)?;
    let draft = copy.join("db.new");
    copy_readable(&File::open(from)?, &File::create(&draft)?)?;
    std::fs::rename(draft, to)?;
    File::open(copy)?.sync_all()?;
    sync_parent(dir)
}

/// Makes a ledger in `fresh` of what can be read in the one in `dir`: durable when this returns. Gives how many values that are, and how
/// many are not whole. `mark`: it is as new as what it was made of, so that the copy of that is never taken for a newer one.
pub(super) fn salvage(dir: &Path, fresh: &Path, mark: u64) -> Result<(usize, usize), NotOpened> {
    let found = Salvage::read(dir).map_err(sled::Error::Io)?;
    let ledger = SledLedger::try_open(fresh, 0)?;
    let put = |rows: Vec<_>| {
        ledger.put(rows).map_err(|error| {
            if lacks_room(fresh) {
                NotOpened::Refused(error)
            } else {
                NotOpened::Damaged(error)
            }
        })
    };
    let (mut taken, mut left) = (0, 0);
    let (mut rows, mut bytes) = (Vec::new(), 0);
    let salvaged = found.keys(b"").filter(|(key, _)| is_salvaged(key));
    for (key, place) in salvaged {
        // What the disk can not read is not whole.
        let row = found.value(place).unwrap_or_default();
        let value = match Stored::read(key, &row) {
            Some(Stored::Here { sum, value }) if sum == Some(checksum(key, value)) => {
                Some(Bytes::copy_from_slice(value))
            }
            Some(Stored::InPieces { id, whole }) => {
                let mut value = Vec::new();
                for (_, place) in found.keys(&piece_prefix(&id)) {
                    value.extend(found.value(place).unwrap_or_default());
                }
                (whole == Some(Whole::of(key, &value))).then(|| value.into())
            }
            _ => None,
        };
        let Some(value) = value else {
            left += 1;
            continue;
        };
        taken += 1;
        bytes += key.len() + value.len();
        rows.push((sled::IVec::from(key), value));
        if bytes > limits::LEDGER_REWRITE {
            put(std::mem::take(&mut rows))?;
            bytes = 0;
        }
    }
    if mark > 0 {
        rows.push((MARK.into(), Bytes::copy_from_slice(&mark.to_be_bytes())));
    }
    put(rows)?;
    Ok((taken, left))
}

/// What is taken from a ledger that does not open, where an older state of a row may stand for the newest: all that the segments do not tell better.
fn is_salvaged(key: &[u8]) -> bool {
    const UNRELEASED: u8 = Table::Unreleased as u8;
    const CURSOR: u8 = Table::Cursor as u8;
    match key.split_first() {
        // One that was released since would cost the next message that has it; those that count are in the newest segments.
        Some((&UNRELEASED, _)) => false,
        // All segments are read again.
        Some((&CURSOR, key)) => !key.starts_with(b"applied/"),
        Some((table, _)) => (Table::Identity as u8..=Table::Delayed as u8).contains(table),
        None => false,
    }
}
