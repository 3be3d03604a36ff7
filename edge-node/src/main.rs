//! `towline-edge`: takes what devices publish over MQTT, keeps it on disk, and brings it to a core.

mod admin;
mod backend;
mod clock;
mod config;
mod data_dir;
mod delayed;
mod downlink;
mod identity;
mod lanes;
mod limits;
mod lineage;
mod link;
mod listener;
mod mqtt_options;
mod node;
mod outbox;
mod password;
mod query;
mod reducer;
mod room;
mod rules;
mod set_aside;
mod shares;
mod stopping;
mod sweeping;
mod uplink;
mod users;
mod watchdog;

use std::process::ExitCode;

use clap::Parser;
use settings::Flags;

use crate::config::EdgeSettings;

/// Store-and-forward for MQTT devices: acknowledged is on disk, and reaches the core exactly once
#[derive(Parser)]
#[command(version, name = "towline-edge")]
struct Args {
    #[command(flatten)]
    flags: Flags<EdgeSettings>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Reads a password from the standard input and prints what a `[[user]]` keeps of it: a hash, and keys of SCRAM
    HashPassword,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Command::HashPassword) = args.command {
        return ended(password::hash_from_stdin());
    }
    let loaded = match args.flags.load() {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("towline-edge: {error}");
            return ExitCode::from(2);
        }
    };
    settings::logging::start(loaded.settings.log, loaded.settings.log_format);
    // Two threads: a gateway has few cores, and the disk has threads of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(limits::WORKER_THREADS)
        .max_blocking_threads(limits::BLOCKING_THREADS)
        .enable_all()
        .build();
    let result = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(node::run(loaded.settings)));
    ended(result)
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("towline-edge: {error:#}");
            ExitCode::FAILURE
        }
    }
}
