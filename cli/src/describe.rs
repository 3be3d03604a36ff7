//! `towline describe edge|stream NAME`.

use admin_api::Partition;
use anyhow::Result;
use clap::Subcommand;
use serde::Serialize;

use crate::client::Admin;
use crate::get::state;
use crate::output::{self, Output, Row, ago, or_dash, pairs, size};

/// Show everything that is known of one thing.
#[derive(Subcommand)]
pub enum Describe {
    /// An edge: its link, its certificate, what it has delivered.
    Edge { name: String },
    /// A stream: its settings, and for each partition its offsets and where its bytes are.
    Stream { name: String },
}

impl Describe {
    pub async fn run(self, admin: &Admin) -> Result<()> {
        match self {
            Describe::Edge { name } => edge(admin, &name).await,
            Describe::Stream { name } => stream(admin, &name).await,
        }
    }
}

async fn edge(admin: &Admin, name: &str) -> Result<()> {
    let edge = admin.edge(name).await?;
    for (what, value) in [
        ("Name", edge.name.clone()),
        ("Labels", pairs(&edge.labels)),
        ("State", state(edge.state).to_owned()),
        ("Remote", or_dash(edge.remote)),
        ("Connected since", ago(edge.connected_since_ms)),
        ("Last seen", ago(edge.last_seen_ms)),
        ("Enrolled", ago(edge.enrolled_ms)),
        ("Certificate serial", edge.certificate_serial),
        (
            "Certificate expires",
            or_dash(edge.certificate_expires_ms.map(days_left)),
        ),
        ("Producer id", or_dash(edge.producer_id)),
        ("Producer epoch", or_dash(edge.producer_epoch)),
        ("Last frame committed", or_dash(edge.last_frame)),
        ("Version", or_dash(edge.version)),
    ] {
        println!("{:<22}{value}", format!("{what}:"));
    }
    Ok(())
}

async fn stream(admin: &Admin, name: &str) -> Result<()> {
    let stream = admin.stream(name).await?;
    let partitions = admin.partitions_of(name).await?;
    let hot = partitions.iter().map(|p| p.hot_bytes).sum();
    let cold = partitions.iter().map(|p| p.cold_bytes).sum();
    for (what, value) in [
        ("Name", stream.name),
        ("Namespace", stream.namespace),
        ("Id", stream.id),
        ("Created", ago(Some(stream.created_ms))),
        ("Records", stream.records.to_string()),
        ("Bytes not sealed", size(hot)),
        ("Bytes in cold store", size(cold)),
    ] {
        println!("{:<22}{value}", format!("{what}:"));
    }
    println!("Settings:");
    for (key, value) in &stream.settings {
        let set = if stream.config.contains_key(key) {
            ""
        } else {
            "  (default)"
        };
        println!("  {key:<28}{value}{set}");
    }
    // What is set and not enforced by the core is kept for clients.
    let others = |key: &&String| !stream.settings.contains_key(*key);
    for key in stream.config.keys().filter(others) {
        println!("  {key:<28}{}", stream.config[key]);
    }
    println!("Partitions:");
    let rows: Vec<OfStream> = partitions.into_iter().map(OfStream).collect();
    output::print(&rows, Output::Table)
}

/// A partition in the description of its stream.
#[derive(Serialize)]
struct OfStream(Partition);

impl Row for OfStream {
    const COLUMNS: &'static [&'static str] = &[
        "PARTITION",
        "START",
        "LAST STABLE",
        "HIGH WATERMARK",
        "END",
        "HOT",
        "COLD",
    ];
    const WIDE: &'static [&'static str] = &[];

    fn cells(&self) -> Vec<String> {
        let p = &self.0;
        vec![
            p.partition.to_string(),
            p.log_start.to_string(),
            p.last_stable_offset.to_string(),
            p.high_watermark.to_string(),
            p.end.to_string(),
            size(p.hot_bytes),
            size(p.cold_bytes),
        ]
    }
}

fn days_left(expires_ms: i64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64);
    format!("in {} days", (expires_ms - now) / 86_400_000)
}
