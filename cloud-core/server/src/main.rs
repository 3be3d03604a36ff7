//! `towline-core`: one log, readable and writable through MQTT, Kafka and AMQP, with edges attached by sync.

mod admin;
mod cluster_id;
mod cold;
mod config;
mod credentials;
mod data_dir;
mod frontends;
mod kernel_metrics;
mod listeners;
mod run;
mod upkeep;

use std::process::ExitCode;

use clap::Parser;
use settings::Flags;

use crate::config::CoreSettings;

/// The core of Towline: every record is written once to one durable log, and is readable through MQTT 3.1.1/5, Kafka and
/// AMQP 0-9-1. Edges connect by sync.
///
/// Every flag is also a key of the configuration file and an environment variable; flags win over the environment, the
/// environment over the file. Prints `ready mqtt=ADDR kafka=ADDR ...` when every listener answers. SIGTERM and SIGINT
/// stop it in order.
#[derive(Parser)]
#[command(name = "towline-core", version)]
struct Args {
    #[command(flatten)]
    flags: Flags<CoreSettings>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = args
        .flags
        .load()
        .map_err(anyhow::Error::from)
        .and_then(|loaded| run::run(loaded.settings));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("towline-core: {error:#}");
            ExitCode::FAILURE
        }
    }
}
