//! Connections that do nothing.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::{Client, process};

/// Clients that connect at a time.
const AT_ONCE: usize = 256;
/// So many more are worth a line.
const SAID_EVERY: usize = 10_000;
/// Of a port range of 28,000. From a half of it on the kernel looks at thousands of ports before it finds a free one, and would be measured.
const PER_ADDRESS: u32 = 5_000;

#[derive(Debug, Args)]
pub struct Idle {
    /// The broker's port; its addresses are 127.0.0.1 and the next ones
    #[arg(long)]
    port: u16,
    /// Process id of the broker
    #[arg(long)]
    pid: u32,
    #[arg(long, default_value_t = 10_000)]
    clients: u32,
    /// Each subscribes to a topic of its own
    #[arg(long)]
    subscribe: bool,
}

/// What became of so many tries.
struct Outcome {
    clients: Vec<Client>,
    failed: u32,
    /// Why the first of those failed.
    error: Option<String>,
}

/// `AT_ONCE` at a time.
async fn each<F>(tries: impl Iterator<Item = F>) -> Result<Outcome>
where
    F: Future<Output = Result<Client>> + Send + 'static,
{
    let mut outcome = Outcome {
        clients: Vec::new(),
        failed: 0,
        error: None,
    };
    let mut running = JoinSet::new();
    let mut tries = tries.fuse();
    loop {
        while running.len() < AT_ONCE
            && let Some(one) = tries.next()
        {
            running.spawn(one);
        }
        let Some(done) = running.join_next().await else {
            return Ok(outcome);
        };
        match done? {
            Ok(client) => {
                outcome.clients.push(client);
                if outcome.clients.len().is_multiple_of(SAID_EVERY) {
                    eprintln!("{}", outcome.clients.len());
                }
            }
            Err(error) => {
                outcome.failed += 1;
                outcome.error.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }
}

async fn connect(to: String, n: u32, subscribe: bool) -> Result<Client> {
    let mut client = Client::connect_with(&to, &format!("idle-{n}"), true, 256).await?;
    if subscribe {
        client.subscribe(&format!("idle/{n}"), 1).await?;
    }
    Ok(client)
}

/// Is it still there?
async fn ping(mut client: Client) -> Result<Client> {
    client.stream.write_all(&[0xc0, 0]).await?;
    let (first, _) = client.packet().await?;
    ensure!(first == 0xd0, "not a PINGRESP: {first:#x}");
    Ok(client)
}

pub async fn idle(options: &Idle) -> Result<Value> {
    let before = process::resident(options.pid)?;
    let used = process::processor_time(options.pid)?;
    let started = Instant::now();
    let addresses = options.clients.div_ceil(PER_ADDRESS);
    ensure!(addresses < 255, "--clients: too many for 127.0.0.x");
    let to = |n| format!("127.0.0.{}:{}", 1 + n % addresses, options.port);
    let connected = each((0..options.clients).map(|n| connect(to(n), n, options.subscribe)));
    let connected = connected.await?;
    let took = started.elapsed();
    let used = process::processor_time(options.pid)?.saturating_sub(used);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = process::resident(options.pid)?;
    let count = connected.clients.len() as u64;
    let answered = each(connected.clients.into_iter().map(ping)).await?;
    Ok(json!({
        "clients": count,
        "failed": connected.failed,
        "answered": answered.clients.len(),
        "error": connected.error.or(answered.error),
        "connections_per_second": count as f64 / took.as_secs_f64(),
        "broker_processor_us_per_connection": used.as_micros() as u64 / count.max(1),
        "resident_bytes": after,
        "bytes_per_connection": after.saturating_sub(before) / count.max(1),
    }))
}
