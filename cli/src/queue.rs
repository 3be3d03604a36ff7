//! `towline queue status|peek EDGE`: what waits on an edge.

use admin_api::{Edge, EdgeState, PeekedMessage, Queue, QueueLane, QueueStatus};
use anyhow::Result;
use clap::Subcommand;

use crate::client::Admin;
use crate::output::{self, Output, Row, ago, or_dash, plain, size, utc};

/// Look into the queues of an edge: what it has stored, and the core has not got yet.
#[derive(Subcommand)]
pub enum QueueCommand {
    /// Each lane of an edge: what waits and for how long, what comes and goes a second, what was evicted.
    ///
    /// Asks the edge itself. When it is not connected, shows what it said last.
    Status {
        /// Name of the edge.
        edge: String,
        /// Everything, for scripts.
        #[arg(long)]
        json: bool,
    },
    /// The next messages that an edge will send, with the beginning of their payloads.
    ///
    /// Nothing is taken away. The edge has to be connected: its messages are on its own disk.
    Peek {
        /// Name of the edge.
        edge: String,
        /// Only this lane.
        #[arg(long, value_name = "LANE")]
        lane: Option<String>,
        /// Messages of each lane at most.
        #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
        count: u32,
        /// Everything, for scripts.
        #[arg(long)]
        json: bool,
    },
}

impl QueueCommand {
    pub async fn run(self, admin: &Admin) -> Result<()> {
        match self {
            QueueCommand::Status { edge, json } => {
                let queue = admin.queue(&edge).await?;
                if json {
                    println!("{}", output::plain_json(&queue)?);
                    return Ok(());
                }
                status(&queue)
            }
            QueueCommand::Peek {
                edge,
                lane,
                count,
                json,
            } => {
                let peeked = admin.peek(&edge, lane.as_deref(), count).await?;
                if json {
                    return output::print(&peeked.messages, Output::Json);
                }
                if peeked.messages.is_empty() {
                    println!("nothing waits on {edge}");
                    return Ok(());
                }
                output::print(&peeked.messages, Output::Table)
            }
        }
    }
}

fn status(queue: &Queue) -> Result<()> {
    let Some(status) = &queue.status else {
        println!("{}", nothing_known(queue));
        return Ok(());
    };
    if let Some(reason) = &queue.stale {
        println!("{}", stale(queue, reason));
    }
    print!("{}", live(&queue.edge, status));
    output::print(&status.lanes, Output::Table)
}

/// That what follows is old, why, and what to do.
pub fn stale(queue: &Queue, reason: &str) -> String {
    format!(
        "{}: this is what {} said {}{}",
        plain(reason),
        plain(&queue.edge.name),
        ago(queue.asked_ms),
        advice(&queue.edge)
    )
}

fn nothing_known(queue: &Queue) -> String {
    let edge = &queue.edge;
    let reason = queue.stale.as_deref().unwrap_or("it gave no answer");
    format!(
        "{}, and {} has not said how it is since this core was started{}",
        plain(reason),
        plain(&edge.name),
        advice(edge)
    )
}

fn advice(edge: &Edge) -> String {
    if edge.state == EdgeState::Connected {
        return String::new();
    }
    let fenced = match edge.fenced.last() {
        Some(event) => format!(
            "\nA copy of it was refused {} ({}): see `towline describe edge {}`",
            ago(Some(event.last_ms)),
            plain(&event.reason),
            plain(&edge.name)
        ),
        None => String::new(),
    };
    format!(
        "\nLast seen {}. What it takes in meanwhile is kept on its disk. On the edge, /readyz of its admin address says why there is no link{fenced}",
        ago(edge.last_seen_ms)
    )
}

/// The lines above the lanes.
pub fn live(edge: &Edge, status: &QueueStatus) -> String {
    let clock = if status.time_known {
        "known"
    } else {
        "not known: what it stamps is placed in time later"
    };
    let link = match &status.link.transport {
        Some(transport) => format!("{} ({transport})", status.link.state),
        None => status.link.state.clone(),
    };
    output::fields([
        ("Edge", edge.name.clone()),
        ("Link", link),
        (
            "Waiting",
            format!(
                "{} messages, {}{}",
                status.messages(),
                size(status.bytes()),
                match status.lag_ms() {
                    Some(lag) => format!(", the oldest for {}", seconds(lag)),
                    None => String::new(),
                }
            ),
        ),
        ("On disk", size(status.disk_bytes)),
        ("Quarantined", format!("{} batches", status.quarantined)),
        (
            "Set aside",
            format!(
                "{} parts of the store that could not be read when it was started",
                status.set_aside
            ),
        ),
        ("Flash wear", wear(status)),
        ("Clock", format!("{} ({clock})", utc(status.time_ms))),
        ("Up", seconds(status.uptime_seconds as i64 * 1000)),
    ])
}

fn wear(status: &QueueStatus) -> String {
    let wear = &status.wear;
    let written = size(wear.written_bytes);
    if wear.payload_bytes == 0 {
        return format!("{written} written");
    }
    let each = wear.written_bytes as f64 / wear.payload_bytes as f64;
    let mut text = format!("{written} written, {each:.2} bytes for each of payload");
    if status.uptime_seconds >= 3600 {
        let a_day = wear.written_bytes as f64 * 86_400.0 / status.uptime_seconds as f64;
        text += &format!(", {} a day", size(a_day as u64));
    }
    text
}

/// A duration for people: `850ms`, `12s`, `3m`, `5h`, `2d`.
pub fn seconds(ms: i64) -> String {
    match ms.max(0) {
        ms @ 0..1000 => format!("{ms}ms"),
        ms @ 1000..60_000 => format!("{}s", ms / 1000),
        ms @ 60_000..3_600_000 => format!("{}m", ms / 60_000),
        ms @ 3_600_000..86_400_000 => format!("{}h", ms / 3_600_000),
        ms => format!("{}d", ms / 86_400_000),
    }
}

impl Row for QueueLane {
    const COLUMNS: &'static [&'static str] = &[
        "LANE", "PRIORITY", "WAITING", "BYTES", "OLDEST", "IN/S", "OUT/S", "EVICTED", "GAPS",
    ];
    const WIDE: &'static [&'static str] = &[];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            or_dash(self.priority),
            self.messages.to_string(),
            size(self.bytes),
            ago(self.oldest_ms),
            format!("{:.0}", self.in_per_second),
            format!("{:.0}", self.out_per_second),
            self.evicted.to_string(),
            self.gaps.to_string(),
        ]
    }
}

impl Row for PeekedMessage {
    const COLUMNS: &'static [&'static str] =
        &["LANE", "ENTRY", "TIME", "BYTES", "TOPIC", "PAYLOAD"];
    const WIDE: &'static [&'static str] = &["STREAM"];

    fn cells(&self) -> Vec<String> {
        let more = if self.payload.len() < self.bytes as usize {
            "…"
        } else {
            ""
        };
        vec![
            self.lane.clone(),
            self.entry.to_string(),
            utc(self.time_ms),
            self.bytes.to_string(),
            self.topic.clone(),
            self.payload.clone() + more,
            self.stream.clone(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use admin_api::Wear;

    use super::*;

    #[test]
    fn wear_is_told_by_byte_and_after_an_hour_by_day() {
        let mut status = QueueStatus {
            wear: Wear {
                written_bytes: 3_000_000,
                payload_bytes: 2_000_000,
            },
            uptime_seconds: 3599,
            ..QueueStatus::default()
        };
        let so_far = format!(
            "{} written, 1.50 bytes for each of payload",
            size(3_000_000)
        );
        assert_eq!(wear(&status), so_far, "too early to say more");
        status.uptime_seconds = 7200;
        let a_day = size(36_000_000);
        assert_eq!(wear(&status), format!("{so_far}, {a_day} a day"));
        status.wear.payload_bytes = 0;
        assert_eq!(wear(&status), format!("{} written", size(3_000_000)));
    }

    #[test]
    fn a_payload_cannot_steer_the_terminal() {
        let message = PeekedMessage {
            payload: "\u{1b}[2Jx".to_owned(),
            bytes: 300,
            ..PeekedMessage::default()
        };
        let table = output::render(&[message], Output::Table).unwrap();
        assert!(table.ends_with("\u{fffd}[2Jx…\n"), "{table}");
    }

    #[test]
    fn what_an_edge_says_of_its_link_cannot_either() {
        let queue: Queue = serde_json::from_value(serde_json::json!({
            "edge": { "name": "\u{1b}", "state": "connected" },
            "stale": "\u{202e}",
        }))
        .unwrap();
        let mut status = QueueStatus::default();
        status.link.state = "up\u{1b}[2J".to_owned();
        status.link.transport = Some("tcp\nLink: down".to_owned());
        let lines = live(&queue.edge, &status);
        let link = "Link:                 up\u{fffd}[2J (tcp\u{fffd}Link: down)";
        assert_eq!(lines.lines().nth(1), Some(link), "{lines}");
        assert!(nothing_known(&queue).starts_with("\u{fffd}, and \u{fffd} has"));
        assert!(stale(&queue, "gone").contains("what \u{fffd} said"));
    }

    #[test]
    fn durations_read_as_people_say_them() {
        for (ms, text) in [
            (-5, "0ms"),
            (999, "999ms"),
            (61_000, "1m"),
            (7_200_000, "2h"),
            (200_000_000, "2d"),
        ] {
            assert_eq!(seconds(ms), text);
        }
    }
}
