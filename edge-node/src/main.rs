//! `towline-edge`: takes what devices publish over MQTT, keeps it on disk, and brings it to a core.

mod admin;
mod backend;
mod config;
mod data_dir;
mod downlink;
mod identity;
mod lanes;
mod limits;
mod link;
mod listener;
mod node;
mod uplink;

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
}

fn main() -> ExitCode {
    let loaded = match Args::parse().flags.load() {
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
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("towline-edge: {error:#}");
            ExitCode::FAILURE
        }
    }
}
