//! The write-ahead log: one sequence of entries in files of bounded size, shared by all partitions.

pub(crate) mod files;
pub(crate) mod frame;
pub(crate) mod intake;
pub(crate) mod recover;
pub(crate) mod writer;

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
