//! Connections that do nothing.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{Client, process};

/// Clients that connect at a time.
const AT_ONCE: usize = 256;
/// What a port range of one address holds.
const PER_ADDRESS: u32 = 20_000;

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

pub async fn idle(options: &Idle) -> Result<Value> {
    let before = process::resident(options.pid)?;
    let used = process::processor_time(options.pid)?;
    let started = Instant::now();
    let mut connecting = JoinSet::new();
    let mut clients = Vec::new();
    for n in 0..options.clients {
        if connecting.len() >= AT_ONCE
            && let Some(connected) = connecting.join_next().await
        {
            clients.push(connected??);
        }
        let to = format!("127.0.0.{}:{}", 1 + n / PER_ADDRESS, options.port);
        let subscribe = options.subscribe;
        connecting.spawn(async move {
            let mut client = Client::connect_with(&to, &format!("idle-{n}"), true, 256).await?;
            if subscribe {
                client.subscribe(&format!("idle/{n}"), 1).await?;
            }
            anyhow::Ok(client)
        });
    }
    while let Some(connected) = connecting.join_next().await {
        clients.push(connected??);
    }
    let took = started.elapsed();
    let used = process::processor_time(options.pid)?.saturating_sub(used);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = process::resident(options.pid)?;
    let count = clients.len() as u64;
    Ok(json!({
        "clients": count,
        "connections_per_second": count as f64 / took.as_secs_f64(),
        "broker_processor_us_per_connection": used.as_micros() as u64 / count.max(1),
        "resident_bytes": after,
        "bytes_per_connection": after.saturating_sub(before) / count.max(1),
    }))
}
