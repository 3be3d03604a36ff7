//! Whether a directory holds a store of ours, and of which format, for whom the marker of the data directory does not say it any more.

use std::path::Path;

use crate::disk::{Disk, RealDisk};
use crate::log::is_segment;
use crate::segment::{HeaderError, KIND_AT, looks_newer, read_header};

/// What the segments say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recognised {
    /// At least one is whole and of the format that is written here, and none is newer.
    Ours,
    /// One was written by a newer program.
    Newer(u16),
    /// There are segments by their names, and no header of them can be read.
    Unreadable,
    /// There is no segment.
    Nothing,
}

/// Looks at the headers of all segments below `store/` of a data directory, and changes nothing. Blocks on the disk.
#[must_use]
pub fn recognise(data_dir: &Path) -> Recognised {
    let store = data_dir.join("store");
    let mut found = Recognised::Nothing;
    let (mut ours, mut perhaps_newer) = (false, None);
    let mut dirs = vec![store.join("outbox"), store.join("inbox")];
    while let Some(dir) = dirs.pop() {
        let lanes = RealDisk.list_dirs(&dir).unwrap_or_default();
        dirs.extend(lanes.iter().map(|lane| dir.join(lane)));
        for name in RealDisk.list(&dir).unwrap_or_default() {
            let path = dir.join(name);
            if !is_segment(&path) {
                continue;
            }
            found = Recognised::Unreadable;
            let Ok(file) = RealDisk.open(&path) else {
                continue;
            };
            let mut kind = [0];
            // What can not be read is as damaged as what is.
            let _ = file.read_at(&mut kind, KIND_AT);
            match read_header(&*file, kind[0]) {
                Ok(_) => ours = true,
                Err(HeaderError::Newer(version)) => return Recognised::Newer(version),
                Err(_) => perhaps_newer = looks_newer(&*file).or(perhaps_newer),
            }
        }
    }
    match (ours, perhaps_newer) {
        (true, _) => Recognised::Ours,
        // Its checksum may stand elsewhere: only beside one that is surely ours it is a flipped bit.
        (false, Some(version)) => Recognised::Newer(version),
        (false, None) => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, FORMAT_VERSION, Store};
    use std::fs;
    use std::path::PathBuf;

    fn segments(data_dir: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut dirs = vec![data_dir.join("store")];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else if is_segment(&path) {
                    found.push(path);
                }
            }
        }
        found
    }

    #[test]
    fn a_store_is_known_by_its_segments() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(recognise(dir.path()), Recognised::Nothing);
        Store::open_in(dir.path(), Config::new(1)).unwrap().close();
        assert_eq!(recognise(dir.path()), Recognised::Ours);
        let all = segments(dir.path());
        assert!(all.len() > 1);
        let (last, others) = all.split_last().unwrap();
        for path in others {
            fs::write(path, "damaged").unwrap();
        }
        assert_eq!(recognise(dir.path()), Recognised::Ours, "one is enough");
        let mut header = fs::read(last).unwrap();
        header[8..10].copy_from_slice(&(FORMAT_VERSION + 1).to_be_bytes());
        fs::write(last, header).unwrap();
        let newer = Recognised::Newer(FORMAT_VERSION + 1);
        assert_eq!(recognise(dir.path()), newer);
        fs::write(last, "").unwrap();
        assert_eq!(recognise(dir.path()), Recognised::Unreadable);
    }
}
