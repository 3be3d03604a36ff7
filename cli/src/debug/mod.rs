//! `towline debug wal|segment FILE`: takes files of a core apart, and verifies every checksum. Needs no core, and changes nothing.

mod command;
mod records;
mod segment;
mod wal;

use anyhow::Result;
use clap::Subcommand;

/// Look into the files of a core.
#[derive(Subcommand)]
pub enum Debug {
    /// Print the frames of a file of the write-ahead log, and verify its checksums.
    ///
    /// The exit status is 1 when something that had been made durable is damaged. Offsets are assigned when entries are applied, so batches
    /// in this log have none yet; `towline storage verify --data-dir DIR` tells which offsets a damaged place holds.
    Wal(wal::Wal),
    /// Print the footer of a segment of the cold store, its parts and chunks, and verify its checksums.
    ///
    /// The exit status is 1 when something is damaged. A segment describes itself: nothing but the file is needed.
    Segment(segment::Segment),
}

impl Debug {
    pub fn run(self) -> Result<()> {
        match self {
            Debug::Wal(wal) => wal.run(),
            Debug::Segment(segment) => segment.run(),
        }
    }
}
