//! How a group's position is kept in the kernel.

use bytes::{BufMut, Bytes, BytesMut};
use kernel::{CursorName, CursorPosition};
use record::Namespace;

/// The kernel's cursors are also others': those of groups begin like this.
const PREFIX: &str = "group/";

/// The cursor of a group.
pub fn cursor_name(namespace: &Namespace, group_id: &str) -> CursorName {
    CursorName::from(format!("{PREFIX}{}/{group_id}", namespace.as_str()).as_str())
}

/// The group of a cursor, if it is one of this namespace.
pub fn group_of<'a>(namespace: &Namespace, cursor: &'a CursorName) -> Option<&'a str> {
    cursor
        .0
        .strip_prefix(PREFIX)?
        .strip_prefix(namespace.as_str())?
        .strip_prefix('/')
}

/// A committed position as Kafka knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Next offset to read.
    pub offset: i64,
    /// Leader epoch of the last record read; -1: not known.
    pub leader_epoch: i32,
    /// The consumer's own note.
    pub metadata: String,
}

impl Position {
    /// What stands beside the offset: the epoch, then the note.
    pub fn note(&self) -> Bytes {
        let mut note = BytesMut::with_capacity(4 + self.metadata.len());
        note.put_i32(self.leader_epoch);
        note.put_slice(self.metadata.as_bytes());
        note.freeze()
    }

    pub fn of(stored: &CursorPosition) -> Position {
        let (leader_epoch, metadata) = match stored.metadata.split_first_chunk::<4>() {
            Some((epoch, note)) => (
                i32::from_be_bytes(*epoch),
                String::from_utf8_lossy(note).into_owned(),
            ),
            None => (-1, String::new()),
        };
        Position {
            offset: stored.offset,
            leader_epoch,
            metadata,
        }
    }
}
