//! `towline stream create|alter|delete`.

use admin_api::{AlterStream, CreateStream};
use anyhow::Result;
use clap::Subcommand;

use crate::client::Admin;
use crate::output::plural;
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
    /// Change settings of a stream; those that are not named stay as they are. `towline describe stream` shows what holds.
    Alter {
        name: String,
        /// A setting and its new value, such as durability=quorum; may be repeated.
        #[arg(long = "config", value_name = "K=V", value_parser = pair, required_unless_present = "default")]
        config: Vec<(String, String)>,
        /// A setting that gets its default again; may be repeated.
        #[arg(long, value_name = "K")]
        default: Vec<String>,
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
                    "stream {} created with {}",
                    stream.name,
                    plural(u64::from(stream.partitions), "partition")
                );
            }
            StreamCommand::Alter {
                name,
                config,
                default,
            } => {
                let values = config.into_iter().map(|(key, value)| (key, Some(value)));
                let defaults = default.into_iter().map(|key| (key, None));
                let request = AlterStream {
                    config: defaults.chain(values).collect(),
                };
                let stream = admin.alter_stream(&name, &request).await?;
                for key in request.config.keys() {
                    let value = stream.settings.get(key).map_or("", String::as_str);
                    println!("stream {name}: {key} is {value}");
                }
            }
            StreamCommand::Delete { name } => {
                admin.delete_stream(&name).await?;
                println!("stream {name} deleted");
            }
        }
        Ok(())
    }
}
