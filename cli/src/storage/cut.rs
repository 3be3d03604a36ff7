//! `towline storage cut --data-dir DIR`: the log of a stopped core ends before the damage that keeps it from starting.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::offline;

#[derive(Args)]
pub struct Cut {
    /// The data directory of the core, which must be stopped.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Do it. Without, only say what would be done.
    #[arg(long)]
    yes: bool,
}

impl Cut {
    pub fn run(self) -> Result<()> {
        let shown = self.data_dir.display();
        let cut = offline::cut(&self.data_dir, self.yes)?;
        let Some(cut) = cut else {
            println!("Nothing keeps a core from starting in {shown}: there is nothing to cut.");
            return Ok(());
        };
        println!(
            "{} is damaged at byte {} (entry {}).",
            cut.path, cut.position, cut.index
        );
        for path in &cut.files {
            let aside = cut.aside(path);
            if self.yes {
                println!("{path} is kept as {aside}");
            } else {
                println!("{path} would be kept as {aside}");
            }
        }
        if self.yes {
            println!(
                "The log ends before entry {} now. Offsets of what was given up are used again: reset the groups that were past them.",
                cut.index
            );
        } else {
            println!(
                "Nothing was changed. With --yes the log ends before entry {}: it and all after it are given up.",
                cut.index
            );
        }
        Ok(())
    }
}
