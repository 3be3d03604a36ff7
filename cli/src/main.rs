//! `towline`: runs a fleet of edges and the core behind them, from a terminal. One file a command.

mod acl;
mod client;
mod context;
mod contexts;
mod daemon;
mod debug;
mod demo;
mod describe;
mod get;
mod mqtt;
mod output;
mod pair;
mod pipe;
mod queue;
mod screen;
mod siblings;
mod status;
mod storage;
mod stream;
mod token;
mod top;
mod up;
mod user;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

use client::Admin;
use contexts::Contexts;

/// Towline: device data from the edge to one log that speaks MQTT, Kafka and AMQP.
///
/// Without a command, `towline` is `towline up`.
#[derive(Parser)]
#[command(name = "towline", version, args_conflicts_with_subcommands = false)]
struct Towline {
    /// URL of a core's admin listener, for example http://127.0.0.1:8484; `towline mqtt` also asks an edge's.
    #[arg(long, global = true, value_name = "URL", env = "TOWLINE_CORE_URL")]
    core: Option<String>,
    /// The admin.credentials of the core or the edge, or a copy.
    #[arg(long, global = true, value_name = "FILE", env = "TOWLINE_CREDENTIALS")]
    credentials: Option<PathBuf>,
    /// The context to use instead of the current one.
    #[arg(long, global = true, value_name = "NAME", env = "TOWLINE_CONTEXT")]
    context: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Up(up::Up),
    Demo(demo::Demo),
    #[command(subcommand)]
    Token(token::TokenCommand),
    Get(get::Get),
    #[command(subcommand)]
    Describe(describe::Describe),
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    Top(top::Top),
    #[command(subcommand)]
    Stream(stream::StreamCommand),
    #[command(subcommand)]
    Mqtt(mqtt::MqttCommand),
    #[command(subcommand)]
    User(user::UserCommand),
    #[command(subcommand)]
    Acl(acl::AclCommand),
    #[command(subcommand)]
    Context(context::ContextCommand),
    #[command(subcommand)]
    Storage(storage::StorageCommand),
    #[command(subcommand)]
    Debug(debug::Debug),
}

impl Towline {
    async fn run(self) -> Result<()> {
        let admin = || {
            admin(
                self.core.as_deref(),
                self.credentials.as_deref(),
                self.context.as_deref(),
            )
        };
        match self.command {
            None => match Towline::try_parse_from(["towline", "up"])?.command {
                Some(Command::Up(up)) => up.run().await,
                _ => bail!("`up` is not understood"),
            },
            Some(Command::Up(up)) => up.run().await,
            Some(Command::Demo(demo)) => demo.run().await,
            Some(Command::Context(context)) => context.run(),
            Some(Command::Debug(debug)) => debug.run(),
            Some(Command::Storage(storage)) => storage.run(admin).await,
            Some(Command::Token(token)) => token.run(&admin()?).await,
            Some(Command::Get(get)) => get.run(&admin()?).await,
            Some(Command::Describe(describe)) => describe.run(&admin()?).await,
            Some(Command::Queue(queue)) => queue.run(&admin()?).await,
            Some(Command::Top(top)) => top.run(&admin()?).await,
            Some(Command::Stream(stream)) => stream.run(&admin()?).await,
            Some(Command::Mqtt(mqtt)) => mqtt.run(&admin()?).await,
            Some(Command::User(user)) => user.run(&admin()?).await,
            Some(Command::Acl(acl)) => acl.run(&admin()?).await,
        }
    }
}

/// `--core` and `--credentials`, or a context.
fn admin(
    core: Option<&str>,
    credentials: Option<&std::path::Path>,
    context: Option<&str>,
) -> Result<Admin> {
    if let Some(credentials) = credentials {
        return Admin::from_file(core, credentials);
    }
    if core.is_some() && context.is_none() {
        bail!(
            "--core needs --credentials FILE: the admin.credentials in that core's data directory, or a copy"
        );
    }
    let contexts = Contexts::load(&Contexts::path()?)?;
    let target = contexts.pick(context)?;
    Admin::from_file(core.or(target.core.as_deref()), &target.credentials)
}

#[tokio::main]
async fn run() -> ExitCode {
    match Towline::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("towline: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn main() -> ExitCode {
    pipe::end_quietly(run)
}
