//! `towline stream create|delete`.

use admin_api::CreateStream;
use anyhow::Result;
use clap::Subcommand;

use crate::client::Admin;
use crate::pair::pair;

/// Streams: what Kafka calls topics.
#[derive(Subcommand)]
pub enum StreamCommand {
    /// Create a stream.
    Create {
        name: String,
        /// Default: the core's default.
        #[arg(long, value_name = "N")]
        partitions: Option<u32>,
        /// A setting such as retention.ms=86400000 (Kafka's names); may be repeated.
        #[arg(long = "config", value_name = "K=V", value_parser = pair)]
        config: Vec<(String, String)>,
    },
    /// Delete a stream and all its records.
    Delete { name: String },
}

impl StreamCommand {
    pub async fn run(self, admin: &Admin) -> Result<()> {
        match self {
            StreamCommand::Create {
                name,
                partitions,
                config,
            } => {
                let request = CreateStream {
                    name,
                    partitions,
                    config: config.into_iter().collect(),
                };
                let stream = admin.create_stream(&request).await?;
                println!(
                    "stream {} created with {} partitions",
                    stream.name, stream.partitions
                );
            }
            StreamCommand::Delete { name } => {
                admin.delete_stream(&name).await?;
                println!("stream {name} deleted");
            }
        }
        Ok(())
    }
}
