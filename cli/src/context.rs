//! `towline context add|use|list`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Subcommand;

use crate::contexts::{Contexts, Target};

/// Names for cores, so that --core and --credentials need not be typed.
#[derive(Subcommand)]
pub enum ContextCommand {
    /// Add a context, or replace the one of that name.
    Add {
        name: String,
        /// URL of the core's admin listener, for example http://127.0.0.1:8484. Default: the one in the credentials.
        #[arg(long, value_name = "URL")]
        core: Option<String>,
        /// The core's admin.credentials, or a copy.
        #[arg(long, value_name = "FILE")]
        credentials: PathBuf,
    },
    /// Make a context the current one.
    Use { name: String },
    /// List the contexts; the current one is marked.
    List,
}

impl ContextCommand {
    pub fn run(self) -> Result<()> {
        let path = Contexts::path()?;
        let mut contexts = Contexts::load(&path)?;
        match self {
            ContextCommand::Add {
                name,
                core,
                credentials,
            } => {
                let credentials = std::path::absolute(&credentials)
                    .with_context(|| format!("{} is not a path", credentials.display()))?;
                contexts.add(&name, Target { core, credentials });
                contexts.save(&path)
            }
            ContextCommand::Use { name } => {
                contexts.choose(&name)?;
                contexts.save(&path)
            }
            ContextCommand::List => {
                for (name, target) in &contexts.contexts {
                    let mark = if contexts.current.as_ref() == Some(name) {
                        "*"
                    } else {
                        " "
                    };
                    let core = target.core.as_deref().unwrap_or("(from the credentials)");
                    println!("{mark} {name}  {core}  {}", target.credentials.display());
                }
                Ok(())
            }
        }
    }
}
