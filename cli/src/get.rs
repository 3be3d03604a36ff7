//! `towline get edges|streams|partitions|nodes`.

use admin_api::{Edge, EdgeState, Node, Partition, Selector, Stream};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::client::Admin;
use crate::output::{self, Output, Row, ago, or_dash, pairs, size};

/// List edges, streams, partitions or nodes.
#[derive(Args)]
pub struct Get {
    #[arg(value_enum)]
    what: What,
    /// How to print the list.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Only edges with these labels: key=value, key!=value, key, !key, joined by commas.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<Selector>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    #[value(alias = "edge")]
    Edges,
    #[value(alias = "stream")]
    Streams,
    #[value(alias = "partition")]
    Partitions,
    #[value(alias = "node")]
    Nodes,
}

impl Get {
    pub async fn run(self, admin: &Admin) -> Result<()> {
        if self.selector.is_some() && self.what != What::Edges {
            bail!("-l selects by labels, and only edges have labels");
        }
        match self.what {
            What::Edges => {
                let mut edges = admin.edges().await?;
                if let Some(selector) = &self.selector {
                    edges.retain(|edge| selector.matches(&edge.labels));
                }
                output::print(&edges, self.output)
            }
            What::Streams => output::print(&admin.streams().await?, self.output),
            What::Partitions => output::print(&admin.partitions().await?, self.output),
            What::Nodes => output::print(&admin.nodes().await?, self.output),
        }
    }
}

impl Row for Edge {
    const COLUMNS: &'static [&'static str] = &["NAME", "STATE", "LAST SEEN", "LABELS"];
    const WIDE: &'static [&'static str] = &[
        "REMOTE",
        "PRODUCER",
        "INCARNATION",
        "COPIES",
        "VERSION",
        "CERTIFICATE",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            state(self.state).to_owned(),
            ago(self.last_seen_ms),
            pairs(&self.labels),
            or_dash(self.remote.as_ref()),
            or_dash(self.producer_id),
            or_dash(self.incarnation),
            self.fenced.len().to_string(),
            or_dash(self.version.as_ref()),
            self.certificate_serial.clone(),
        ]
    }
}

/// The word for the state of an edge, in tables and descriptions.
pub fn state(state: EdgeState) -> &'static str {
    match state {
        EdgeState::Connected => "connected",
        EdgeState::Disconnected => "disconnected",
    }
}

impl Row for Stream {
    const COLUMNS: &'static [&'static str] = &["NAME", "PARTITIONS", "RECORDS", "CREATED"];
    const WIDE: &'static [&'static str] = &["NAMESPACE", "ID", "CONFIG"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.partitions.to_string(),
            self.records.to_string(),
            ago(Some(self.created_ms)),
            self.namespace.clone(),
            self.id.clone(),
            pairs(&self.config),
        ]
    }
}

impl Row for Partition {
    const COLUMNS: &'static [&'static str] = &["STREAM", "PARTITION", "START", "END"];
    const WIDE: &'static [&'static str] = &[
        "NAMESPACE",
        "HIGH WATERMARK",
        "LAST STABLE",
        "HOT",
        "COLD",
        "NODE",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.stream.clone(),
            self.partition.to_string(),
            self.log_start.to_string(),
            self.end.to_string(),
            self.namespace.clone(),
            self.high_watermark.to_string(),
            self.last_stable_offset.to_string(),
            size(self.hot_bytes),
            size(self.cold_bytes),
            self.node.to_string(),
        ]
    }
}

impl Row for Node {
    const COLUMNS: &'static [&'static str] = &["ID", "ROLES", "UPTIME", "VERSION", "WAL BYTES"];
    const WIDE: &'static [&'static str] = &["CLUSTER", "LISTENERS", "DATA"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.roles.join(","),
            format!("{}s", self.uptime_seconds),
            self.version.clone(),
            self.wal_bytes.to_string(),
            self.cluster_id.clone(),
            pairs(&self.listeners),
            self.data_dir.clone(),
        ]
    }
}
