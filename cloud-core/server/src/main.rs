//! `towline-core`: one log, readable and writable through MQTT, Kafka and AMQP, with edges attached by sync.

mod admin;
mod allocator;
mod cluster_id;
mod cold;
mod config;
mod data_dir;
mod frontends;
mod jwt_keys;
mod kernel_metrics;
mod listeners;
mod mqtt_options;
mod restore;
mod run;
mod tls;
mod upkeep;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use settings::Flags;

use crate::config::CoreSettings;

/// The core of Towline: every record is written once to one durable log, and is readable through MQTT 3.1.1/5, Kafka and
/// AMQP 0-9-1. Edges connect by sync.
///
/// Every flag is also a key of the configuration file and an environment variable; flags win over the environment, the
/// environment over the file. Prints `ready mqtt=ADDR kafka=ADDR ...` when every listener answers. SIGTERM and SIGINT
/// stop it in order.
#[derive(Parser)]
#[command(name = "towline-core", version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(flatten)]
    flags: Flags<CoreSettings>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Restore(restore::Restore),
}

fn main() -> ExitCode {
    allocator::keep_some_free_memory();
    let args = Args::parse();
    let result = match args.command {
        Some(Command::Restore(restore)) => restore.run(),
        None => args
            .flags
            .load()
            .map_err(anyhow::Error::from)
            .and_then(|loaded| run::run(loaded.settings)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("towline-core: {error:#}");
            ExitCode::FAILURE
        }
    }
}
