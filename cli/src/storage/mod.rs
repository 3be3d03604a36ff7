//! `towline storage verify`.

mod offline;
mod progress;
mod verify;

use anyhow::Result;
use clap::Subcommand;

use crate::client::Admin;

/// What a core stores: where it is, whether it is sound.
#[derive(Subcommand)]
pub enum StorageCommand {
    /// Read everything that is stored, verify every checksum, and name the streams and offsets of what is damaged.
    ///
    /// A running core does it itself, slowly enough that nobody waits for it; Ctrl-C ends it. With --data-dir the files of a core that is
    /// stopped are read instead. The exit status is 1 when something is damaged.
    Verify(verify::Verify),
}

impl StorageCommand {
    /// `admin` finds the core, for the commands that need one.
    pub async fn run(self, admin: impl Fn() -> Result<Admin>) -> Result<()> {
        match self {
            StorageCommand::Verify(verify) => verify.run(admin).await,
        }
    }
}
