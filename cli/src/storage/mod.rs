//! `towline storage status|verify|seal|cut`.

mod cut;
mod offline;
mod progress;
mod seal;
mod status;
mod verify;

use anyhow::Result;
use clap::Subcommand;

use crate::client::Admin;

/// What a core stores: where it is, whether it is sound.
#[derive(Subcommand)]
pub enum StorageCommand {
    /// Show the tiers, their bytes, what waits to be sealed, and what was written for what was appended.
    Status(status::Status),
    /// Read everything that is stored, verify every checksum, and name the streams and offsets of what is damaged.
    ///
    /// A running core does it itself, slowly enough that nobody waits for it; Ctrl-C ends it. With --data-dir the files of a core that is
    /// stopped are read instead. The exit status is 1 when something is damaged.
    Verify(verify::Verify),
    /// Bring everything that is in the write-ahead log alone to the cold store, now: before maintenance, or before a machine is given up.
    Seal(seal::Seal),
    /// Give up a damaged entry that keeps a stopped core from starting, and all after it.
    ///
    /// The last resort, when there is no copy of the damaged file: docs/reference/storage.md says what to try first. The files that hold what is
    /// given up are moved to a directory beside, never deleted. Without --yes it only says what it would do.
    Cut(cut::Cut),
}

impl StorageCommand {
    /// `admin` finds the core, for the commands that need one.
    pub async fn run(self, admin: impl Fn() -> Result<Admin>) -> Result<()> {
        match self {
            StorageCommand::Status(status) => status.run(&admin()?).await,
            StorageCommand::Verify(verify) => verify.run(admin).await,
            StorageCommand::Seal(seal) => seal.run(&admin()?).await,
            StorageCommand::Cut(cut) => cut.run(),
        }
    }
}
