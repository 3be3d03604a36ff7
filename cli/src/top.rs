//! `towline top`: the fleet at a glance, again and again.

use std::collections::HashMap;
use std::time::Duration;

use admin_api::{EdgeState, Fleet, FleetEdge, QueueStatus};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::client::Admin;
use crate::output::{self, Output, Row, ago, size};
use crate::queue::seconds;
use crate::screen::Screen;

/// Between two looks that give rates, when there is only one picture.
const ONCE: Duration = Duration::from_secs(1);

/// Watch the fleet: which edges are up, what waits on them, how fast they send, how far they are behind.
///
/// Ends with Ctrl-C.
#[derive(Args)]
pub struct Top {
    /// One picture, and the end.
    #[arg(long)]
    once: bool,
    /// For scripts: one JSON object a picture, on a line of its own.
    #[arg(long)]
    json: bool,
    /// Seconds between pictures.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Which edges come first.
    #[arg(long, value_enum, default_value_t = Sort::Backlog)]
    sort: Sort,
    /// Edges in a picture at most. Default: as many as fit on the terminal; 500 elsewhere.
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<usize>,
    /// Only edges with these labels: key=value, key!=value, key, !key, joined by commas.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    Backlog,
    Rate,
    Lag,
    Name,
}

/// One edge in the picture.
#[derive(Serialize)]
struct Line {
    name: String,
    up: bool,
    /// Messages that wait on it; none: it has not said.
    backlog: Option<u64>,
    backlog_bytes: Option<u64>,
    /// How long its oldest message has waited.
    lag_ms: Option<i64>,
    records_per_second: f64,
    bytes_per_second: f64,
    last_seen_ms: Option<i64>,
    /// Copies of it that were not let in.
    fenced: usize,
}

#[derive(Serialize)]
struct Picture {
    time_ms: i64,
    edges_total: usize,
    edges_up: usize,
    backlog: u64,
    backlog_bytes: u64,
    records_per_second: f64,
    bytes_per_second: f64,
    edges: Vec<Line>,
}

impl Top {
    pub async fn run(self, admin: &Admin) -> Result<()> {
        if self.count == Some(0) {
            bail!("-n 0 shows nothing");
        }
        let mut screen = Screen::new();
        let mut before = admin.fleet(self.selector.as_deref()).await?;
        let mut pause = ONCE;
        loop {
            tokio::time::sleep(pause).await;
            let now = admin.fleet(self.selector.as_deref()).await?;
            let mut picture = picture(&before, &now);
            sort(&mut picture.edges, self.sort);
            let most = self.count.unwrap_or_else(|| screen.rows_below(4));
            let hidden = picture.edges.len().saturating_sub(most);
            picture.edges.truncate(most);
            if self.json {
                println!("{}", output::plain_json_line(&picture)?);
            } else if self.once {
                println!("{}", head(&picture));
                output::print(&picture.edges, Output::Table)?;
                if hidden > 0 {
                    println!("{hidden} more: -n {}", most + hidden);
                }
            } else {
                let mut lines = vec![head(&picture)];
                let table = output::render(&picture.edges, Output::Table)?;
                let columns = screen.columns();
                lines.extend(
                    table
                        .lines()
                        .map(|line| line.chars().take(columns).collect()),
                );
                if hidden > 0 {
                    lines.push(format!("{hidden} more"));
                }
                screen.draw(&lines);
            }
            if self.once {
                return Ok(());
            }
            before = now;
            pause = Duration::from_secs(self.interval);
        }
    }
}

fn picture(before: &Fleet, now: &Fleet) -> Picture {
    let seconds = ((now.time_ms - before.time_ms) as f64 / 1000.0).max(0.001);
    let came: HashMap<&str, (u64, u64)> = before
        .edges
        .iter()
        .map(|edge| (edge.edge.name.as_str(), (edge.records, edge.bytes)))
        .collect();
    let edges: Vec<Line> = now
        .edges
        .iter()
        .map(|edge| line(edge, came.get(edge.edge.name.as_str()), seconds))
        .collect();
    Picture {
        time_ms: now.time_ms,
        edges_total: edges.len(),
        edges_up: edges.iter().filter(|line| line.up).count(),
        backlog: edges.iter().filter_map(|line| line.backlog).sum(),
        backlog_bytes: edges.iter().filter_map(|line| line.backlog_bytes).sum(),
        records_per_second: edges.iter().map(|line| line.records_per_second).sum(),
        bytes_per_second: edges.iter().map(|line| line.bytes_per_second).sum(),
        edges,
    }
}

fn line(edge: &FleetEdge, before: Option<&(u64, u64)>, seconds: f64) -> Line {
    // A core that was started again counts from 0.
    let rate = |now: u64, then: Option<u64>| {
        then.and_then(|then| now.checked_sub(then))
            .map_or(0.0, |delta| delta as f64 / seconds)
    };
    let status = edge.status.as_ref();
    Line {
        name: edge.edge.name.clone(),
        up: edge.edge.state == EdgeState::Connected,
        backlog: status.map(QueueStatus::messages),
        backlog_bytes: status.map(QueueStatus::bytes),
        lag_ms: status.and_then(QueueStatus::lag_ms),
        records_per_second: rate(edge.records, before.map(|(records, _)| *records)),
        bytes_per_second: rate(edge.bytes, before.map(|(_, bytes)| *bytes)),
        last_seen_ms: edge.edge.last_seen_ms,
        fenced: edge.edge.fenced.len(),
    }
}

fn sort(lines: &mut [Line], by: Sort) {
    lines.sort_by(|a, b| {
        let order = match by {
            Sort::Backlog => b.backlog.cmp(&a.backlog),
            Sort::Rate => b.records_per_second.total_cmp(&a.records_per_second),
            Sort::Lag => b.lag_ms.cmp(&a.lag_ms),
            Sort::Name => std::cmp::Ordering::Equal,
        };
        order.then_with(|| a.name.cmp(&b.name))
    });
}

fn head(picture: &Picture) -> String {
    format!(
        "{} of {} edges up, {:.0} records/s, {}/s, {} messages ({}) wait",
        picture.edges_up,
        picture.edges_total,
        picture.records_per_second,
        size(picture.bytes_per_second as u64),
        picture.backlog,
        size(picture.backlog_bytes)
    )
}

impl Row for Line {
    const COLUMNS: &'static [&'static str] = &[
        "EDGE",
        "LINK",
        "WAITING",
        "BYTES",
        "LAG",
        "RECORDS/S",
        "BYTES/S",
        "SEEN",
        "COPIES",
    ];
    const WIDE: &'static [&'static str] = &[];

    fn cells(&self) -> Vec<String> {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        vec![
            self.name.clone(),
            if self.up { "up" } else { "down" }.to_owned(),
            or_dash(self.backlog.map(|n| n.to_string())),
            or_dash(self.backlog_bytes.map(size)),
            or_dash(self.lag_ms.map(seconds)),
            format!("{:.0}", self.records_per_second),
            size(self.bytes_per_second as u64),
            ago(self.last_seen_ms),
            self.fenced.to_string(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use admin_api::{Edge, QueueLane};

    fn edge(name: &str, records: u64, waiting: Option<u64>) -> FleetEdge {
        let edge: Edge = serde_json::from_value(
            serde_json::json!({ "name": name, "state": "connected", "labels": {} }),
        )
        .unwrap();
        FleetEdge {
            edge,
            records,
            bytes: records * 100,
            status: waiting.map(|messages| QueueStatus {
                time_ms: 10_000,
                lanes: vec![QueueLane {
                    messages,
                    oldest_ms: Some(4_000),
                    ..QueueLane::default()
                }],
                ..QueueStatus::default()
            }),
        }
    }

    #[test]
    fn rates_are_what_came_between_two_looks() {
        let fleet = |time_ms, edges| Fleet { time_ms, edges };
        let before = fleet(
            1_000,
            vec![edge("a", 100, None), edge("restarted", 900, None)],
        );
        let now = fleet(
            3_000,
            vec![
                edge("a", 300, Some(7)),
                edge("new", 50, None),
                edge("restarted", 10, Some(9)),
            ],
        );
        let mut picture = picture(&before, &now);
        assert_eq!((picture.edges_up, picture.backlog), (3, 16));
        assert!((picture.records_per_second - 100.0).abs() < 0.001);
        sort(&mut picture.edges, Sort::Backlog);
        let names: Vec<&str> = picture
            .edges
            .iter()
            .map(|line| line.name.as_str())
            .collect();
        assert_eq!(names, ["restarted", "a", "new"]);
        assert_eq!(picture.edges[0].lag_ms, Some(6_000));
    }
}
