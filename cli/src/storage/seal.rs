//! `towline storage seal`.

use anyhow::Result;
use clap::Args;

use crate::client::Admin;
use crate::output::size;

#[derive(Args)]
pub struct Seal {}

impl Seal {
    pub async fn run(self, admin: &Admin) -> Result<()> {
        let sealed = admin.seal().await?;
        println!(
            "{} written to the cold store; {} are not sealed: they were written meanwhile",
            size(sealed.written_bytes),
            size(sealed.unsealed_bytes)
        );
        Ok(())
    }
}
