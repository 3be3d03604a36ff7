//! The write-ahead log: one sequence of entries in files of bounded size, shared by all partitions.

use std::io;

pub(crate) mod ahead;
pub(crate) mod current;
pub(crate) mod cut;
pub(crate) mod files;
pub(crate) mod frame;
mod gather;
pub(crate) mod intake;
pub(crate) mod recover;
pub(crate) mod scan;
pub(crate) mod spares;
mod volatile;
pub(crate) mod writer;
#[cfg(test)]
mod writer_tests;

/// Directory of the WAL files, in the data directory.
pub(crate) const DIRECTORY: &str = "wal";

/// Path of the file that begins with an index.
pub(crate) fn path(first_index: u64) -> String {
    format!("{DIRECTORY}/{first_index:020}.wal")
}

/// First index of a file, by its name; `None` for a file that is none of ours.
pub(crate) fn first_index(name: &str) -> Option<u64> {
    name.strip_suffix(".wal")
        .filter(|digits| digits.len() == 20)
        .and_then(|digits| digits.parse().ok())
}

/// Path of a file that waits to become part of the WAL.
pub(crate) fn spare_path(number: u64) -> String {
    format!("{DIRECTORY}/{number:020}.spare")
}

/// Number of a spare, by its name.
pub(crate) fn spare_number(name: &str) -> Option<u64> {
    name.strip_suffix(".spare")
        .filter(|digits| digits.len() == 20)
        .and_then(|digits| digits.parse().ok())
}

/// Whether there is no room on the disk.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
