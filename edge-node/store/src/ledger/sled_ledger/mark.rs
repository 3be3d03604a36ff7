//! How new a ledger must be, said in its own file.
//!
//! sled takes the first message that is not whole for the end of its log. After a power cut that is right: what stands behind it was never durable. Where
//! the disk has damaged what was durable long ago, the ledger opens as well, and is older than it was.
//!
//! So the first change after each flush brings a row along, the mark: a number that is one more than that of the mark which the flush has made durable.
//! A mark `n` that stands anywhere in the file, whatever became of the changes around it, says that mark `n - 1` was durable, and with it all that was
//! written before it. A ledger that opens with less has lost something that was durable. As long as nothing was, it goes the other way, too: what a power
//! cut leaves never looks like this, in whatever order it was written, and neither does what a former one has left in parts of the file that are not used
//! again yet.

use super::super::value::{self, Stored, checksum};

/// The key of the row: not a [`super::Table`], since nobody but the ledger names it. A leaf of the tree that has it has no prefix: the keys of all
/// others begin with other bytes.
pub(super) const MARK: &[u8] = &[254];

/// The mark in a row, if it is whole.
pub(super) fn read(row: &[u8]) -> Option<u64> {
    match Stored::read(MARK, row)? {
        Stored::Here { sum, value } if sum == Some(checksum(MARK, value)) => {
            Some(u64::from_be_bytes(value.try_into().ok()?))
        }
        _ => None,
    }
}

pub(super) fn row(number: u64) -> Vec<u8> {
    value::here(MARK, &number.to_be_bytes())
}

/// The marks of a ledger that is open.
pub(super) struct Marks {
    /// The newest in the ledger; 0: there is none.
    written: u64,
    /// There is something in the ledger: a flush makes something durable.
    has_rows: bool,
    /// What the last flush of this opening has made durable.
    durable: Option<u64>,
}

impl Marks {
    pub fn of(written: u64, has_rows: bool) -> Marks {
        Marks {
            written,
            has_rows,
            durable: None,
        }
    }

    /// The mark that the next change brings along.
    pub fn next(&self) -> Option<u64> {
        (self.durable == Some(self.written)).then_some(self.written + 1)
    }

    /// A change is in the ledger, with a mark or without.
    pub fn applied(&mut self, mark: Option<u64>) {
        self.has_rows = true;
        self.written = self.written.max(mark.unwrap_or(0));
    }

    /// What a flush that begins now makes durable.
    pub fn flushing(&self) -> Option<u64> {
        self.has_rows.then_some(self.written)
    }

    /// That flush is done.
    pub fn flushed(&mut self, mark: Option<u64>) {
        self.durable = self.durable.max(mark);
    }
}
