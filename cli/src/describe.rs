//! `towline describe edge|stream NAME`.

use admin_api::{Edge, EdgeLane, FencingEvent, Gap, GapTotals, Partition, SetAside};
use anyhow::Result;
use clap::Subcommand;
use serde::Serialize;

use crate::client::Admin;
use crate::get::state;
use crate::output::{self, Output, Pages, Row, ago, or_dash, pairs, plain, plural, size, utc};
use crate::queue;

/// Gaps in the description of an edge.
const NEWEST_GAPS: usize = 20;

/// Show everything that is known of one thing.
#[derive(Subcommand)]
pub enum Describe {
    /// An edge: its link, its certificate, its lanes and what waits in them, gaps, and copies of it that were refused.
    Edge {
        name: String,
        /// Every gap that stream _gaps has of it, the oldest first, instead of the description.
        #[arg(long)]
        gaps: bool,
        /// How to print the gaps.
        #[arg(short, long, value_enum, default_value_t = Output::Table, requires = "gaps")]
        output: Output,
        /// Everything, for scripts.
        #[arg(long)]
        json: bool,
    },
    /// A stream: its settings, and for each partition its offsets and where its bytes are.
    Stream { name: String },
}

impl Describe {
    pub async fn run(self, admin: &Admin) -> Result<()> {
        match self {
            Describe::Edge {
                name,
                gaps: true,
                output,
                json,
            } => all_gaps(admin, &name, if json { Output::Json } else { output }).await,
            Describe::Edge { name, json, .. } => edge(admin, &name, json).await,
            Describe::Stream { name } => stream(admin, &name).await,
        }
    }
}

async fn edge(admin: &Admin, name: &str, json: bool) -> Result<()> {
    // Asks the edge itself, which answers within seconds or not at all.
    let asked = admin.queue(name).await?;
    let gaps = admin.gaps(name).await?;
    if json {
        let all = serde_json::json!({ "edge": asked.edge, "gaps": gaps.gaps, "gap_totals": gaps.totals,
            "set_aside": gaps.set_aside,
            "live": asked.status, "live_ms": asked.asked_ms, "stale": asked.stale });
        println!("{}", output::plain_json(&all)?);
        return Ok(());
    }
    let edge = &asked.edge;
    print!("{}", about(edge));
    if let Some(parts) = &gaps.set_aside {
        let parts = set_aside(parts);
        print!("{}", output::fields([("Set aside, in all", parts)]));
    }
    println!("Lanes:");
    output::print(&edge.lanes, Output::Table)?;
    if !edge.fenced.is_empty() {
        println!("Copies that were refused:");
        output::print(&edge.fenced, Output::Table)?;
        println!("If one of them is to go on instead, enrol it again with a new token.");
    }
    if !gaps.gaps.is_empty() {
        let GapTotals {
            ranges,
            records,
            bytes,
        } = gaps.totals;
        let (ranges, records) = (plural(ranges, "range"), plural(records, "message"));
        println!(
            "Gaps (entries that will never come): {ranges}, {records}, {}",
            size(bytes)
        );
        let mut newest = gaps.gaps;
        newest.sort_by_key(|gap| gap.received_ms);
        newest.drain(..newest.len().saturating_sub(NEWEST_GAPS));
        if (newest.len() as u64) < gaps.totals.ranges {
            println!(
                "The newest {}; `towline describe edge {name} --gaps` shows all:",
                newest.len()
            );
        }
        output::print(&newest, Output::Table)?;
    }
    match (&asked.status, &asked.stale) {
        (Some(status), stale) => {
            println!("Live:");
            if let Some(reason) = stale {
                println!("{}", queue::stale(&asked, reason));
            }
            print!("{}", queue::live(edge, status));
            output::print(&status.lanes, Output::Table)
        }
        (None, Some(reason)) => {
            print!("{}", output::fields([("Live", reason.clone())]));
            Ok(())
        }
        (None, None) => Ok(()),
    }
}

fn about(edge: &Edge) -> String {
    output::fields([
        ("Name", edge.name.clone()),
        ("Labels", pairs(&edge.labels)),
        ("State", state(edge.state).to_owned()),
        ("Remote", or_dash(edge.remote.as_ref())),
        ("Connected since", ago(edge.connected_since_ms)),
        ("Last seen", ago(edge.last_seen_ms)),
        ("Enrolled", ago(edge.enrolled_ms)),
        ("Certificate serial", edge.certificate_serial.clone()),
        (
            "Certificate expires",
            or_dash(edge.certificate_expires_ms.map(days_left)),
        ),
        ("Producer id", or_dash(edge.producer_id)),
        ("Incarnation", or_dash(edge.incarnation)),
        ("Version", or_dash(edge.version.as_ref())),
    ])
}

/// What could not be read, and when the core heard of the last.
fn set_aside(parts: &SetAside) -> String {
    let counts = [
        (parts.ledgers, "ledger"),
        (parts.values, "value of a ledger"),
        (parts.segments, "segment"),
        (parts.identities, "identity"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts
        .map(|(count, what)| match (*count, *what) {
            (1, what) => format!("1 {what}"),
            (count, "value of a ledger") => format!("{count} values of a ledger"),
            (count, "identity") => format!("{count} identities"),
            (count, what) => plural(count, what),
        })
        .collect();
    format!("{} (last {})", counts.join(", "), utc(parts.last_ms))
}

/// From the stream, a page at a time.
async fn all_gaps(admin: &Admin, name: &str, output: Output) -> Result<()> {
    let mut pages = Pages::<Gap>::new(output);
    let (mut after, mut gone, mut damaged) = (None, 0, 0);
    loop {
        let page = admin.gaps_page(name, after.as_deref()).await?;
        print!("{}", pages.add(&page.gaps)?);
        gone += page.gone;
        damaged += page.damaged;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    print!("{}", pages.end());
    // Beside the list, which may be read by a script.
    let told = |count, what: &str| {
        if count > 0 {
            let records = plural(count, "record");
            eprintln!("towline: {records} of stream _gaps {what}, of this edge or of others");
        }
    };
    told(gone, "went by its retention or were deleted");
    told(damaged, "cannot be read: they are damaged");
    Ok(())
}

impl Row for EdgeLane {
    const COLUMNS: &'static [&'static str] = &[
        "LANE",
        "NUMBER",
        "PRIORITY",
        "LINK COMPRESSION",
        "COMMITTED",
    ];
    const WIDE: &'static [&'static str] = &[];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.number.to_string(),
            self.priority.to_string(),
            if self.link_compression { "yes" } else { "no" }.to_owned(),
            or_dash(self.last_frame),
        ]
    }
}

impl Row for FencingEvent {
    const COLUMNS: &'static [&'static str] = &[
        "LAST",
        "FIRST",
        "TIMES",
        "FROM",
        "OTHER",
        "INCARNATION",
        "WHY",
    ];
    const WIDE: &'static [&'static str] = &[];

    fn cells(&self) -> Vec<String> {
        vec![
            ago(Some(self.last_ms)),
            ago(Some(self.first_ms)),
            self.times.to_string(),
            self.remote.clone(),
            or_dash(self.other.as_ref()),
            self.incarnation.to_string(),
            self.reason.clone(),
        ]
    }
}

impl Row for Gap {
    const COLUMNS: &'static [&'static str] = &[
        "LANE", "FIRST", "LAST", "HEARD", "REASON", "MESSAGES", "FROM", "TO",
    ];
    const WIDE: &'static [&'static str] = &["BYTES", "HEARD AT", "PRODUCER"];

    fn cells(&self) -> Vec<String> {
        let field = |name: &str| match &self.report[name] {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Null => "-".to_owned(),
            other => other.to_string(),
        };
        let time = |name: &str| self.report[name].as_i64().map_or("-".to_owned(), utc);
        vec![
            self.name.clone(),
            self.first.to_string(),
            self.last.to_string(),
            ago(Some(self.received_ms)),
            field("reason"),
            field("records"),
            time("first_time_ms"),
            time("last_time_ms"),
            field("bytes"),
            utc(self.received_ms),
            self.producer_id.to_string(),
        ]
    }
}

async fn stream(admin: &Admin, name: &str) -> Result<()> {
    let stream = admin.stream(name).await?;
    let partitions = admin.partitions_of(name).await?;
    let hot = partitions.iter().map(|p| p.hot_bytes).sum();
    let cold = partitions.iter().map(|p| p.cold_bytes).sum();
    let about = output::fields([
        ("Name", stream.name),
        ("Namespace", stream.namespace),
        ("Id", stream.id),
        ("Created", ago(Some(stream.created_ms))),
        ("Records", stream.records.to_string()),
        ("Bytes not sealed", size(hot)),
        ("Bytes in cold store", size(cold)),
    ]);
    print!("{about}");
    println!("Settings:");
    for (key, value) in &stream.settings {
        let set = if stream.config.contains_key(key) {
            ""
        } else {
            "  (default)"
        };
        println!("  {:<28}{}{set}", plain(key), plain(value));
    }
    // What is set and not enforced by the core is kept for clients.
    let others = |key: &&String| !stream.settings.contains_key(*key);
    for key in stream.config.keys().filter(others) {
        println!("  {:<28}{}", plain(key), plain(&stream.config[key]));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_edge_says_of_itself_cannot_steer_the_terminal() {
        let edge = serde_json::json!({ "name": "a", "state": "connected", "version": "1\u{1b}[2J\nState: x" });
        let about = about(&serde_json::from_value(edge).unwrap());
        let version = "Version:              1\u{fffd}[2J\u{fffd}State: x";
        assert_eq!(about.lines().last(), Some(version), "{about}");
    }
}
