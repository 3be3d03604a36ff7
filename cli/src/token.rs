//! `towline token create`.

use std::time::Duration;

use anyhow::Result;
use clap::Subcommand;

use crate::client::Admin;
use crate::pair::pair;

/// Tokens with which edges enrol.
#[derive(Subcommand)]
pub enum TokenCommand {
    /// Create an enrolment token and print it, and nothing else, on standard output. It is shown this one time.
    Create {
        /// How long edges can enrol with it, for example 30m, 1h or 7d.
        #[arg(long, default_value = "1h", value_parser = <Duration as settings::Value>::parse)]
        ttl: Duration,
        /// A label for every edge that enrols with it; may be repeated.
        #[arg(long = "label", value_name = "K=V", value_parser = pair)]
        labels: Vec<(String, String)>,
    },
}

impl TokenCommand {
    pub async fn run(self, admin: &Admin) -> Result<()> {
        let TokenCommand::Create { ttl, labels } = self;
        // The core counts in whole seconds; less than one would be none.
        let seconds = ttl.as_secs().max(1);
        println!("{}", admin.create_token(Some(seconds), &labels).await?);
        Ok(())
    }
}
