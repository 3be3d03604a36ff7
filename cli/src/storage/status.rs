//! `towline storage status`.

use std::time::Duration;

use admin_api::Storage;
use anyhow::Result;
use clap::Args;

use crate::client::Admin;
use crate::output::{plain_json, plural, size};
use crate::screen::Screen;

/// How often `--watch` asks.
const EVERY: Duration = Duration::from_secs(1);
/// A disk that takes longer than this for one write or sync is worth a line.
const SILENT_MS: u64 = 1000;

#[derive(Args)]
pub struct Status {
    /// One JSON document instead of a table.
    #[arg(long)]
    json: bool,
    /// Show it again every second, until Ctrl-C.
    #[arg(short, long)]
    watch: bool,
}

impl Status {
    pub async fn run(self, admin: &Admin) -> Result<()> {
        let mut screen = Screen::new();
        loop {
            let storage = admin.storage().await?;
            if self.json {
                println!("{}", plain_json(&storage)?);
            } else if self.watch {
                screen.draw(&lines(&storage));
            } else {
                lines(&storage).iter().for_each(|line| println!("{line}"));
            }
            if !self.watch {
                return Ok(());
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

fn lines(s: &Storage) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |what: &str, value: String| lines.push(format!("{what:<22}{value}"));
    let of = |bytes: u64, limit: u64| match limit {
        0 => size(bytes),
        limit => format!("{} of {}", size(bytes), size(limit)),
    };
    line(
        "Memory",
        format!(
            "{}; {} of reads found their batches there",
            of(s.tail.bytes, s.tail.limit_bytes),
            share(s.tail.hits, s.tail.hits + s.tail.misses)
        ),
    );
    line(
        "Write-ahead log",
        format!(
            "{} in {}",
            of(s.wal.bytes, s.wal.limit_bytes),
            plural(s.wal.files, "file")
        ),
    );
    line(
        "  waiting",
        format!(
            "{} in {}",
            size(s.wal.queued_bytes),
            entries(s.wal.queued_entries)
        ),
    );
    if s.wal.device_silent_ms >= SILENT_MS {
        line(
            "  NO ANSWER",
            format!(
                "the disk has not answered for {}: writes wait for up to {}, then are refused, until it does",
                duration(s.wal.device_silent_ms),
                duration(s.wal.device_silent_limit_ms)
            ),
        );
    }
    if s.wal.held_back {
        line(
            "  HELD BACK",
            "there is no room: writes wait, then are refused, until something is sealed or deleted"
                .to_owned(),
        );
    }
    if let Some(reason) = &s.wal.failed {
        line(
            "  FAILED",
            format!("{reason}; no write is accepted until the core is started again"),
        );
    }
    line(
        "Not sealed",
        format!(
            "{}{}; due at {} or after {}",
            size(s.sealing.unsealed_bytes),
            match s.sealing.unsealed_bytes {
                0 => String::new(),
                _ => format!(", oldest {}", duration(s.sealing.unsealed_age_ms)),
            },
            size(s.sealing.due_bytes),
            duration(s.sealing.due_age_ms),
        ),
    );
    if s.sealing.upload_lag_bytes > 0 {
        line(
            "  on its way",
            format!(
                "a segment of {} since {}, {} sent",
                size(s.sealing.upload_lag_bytes),
                duration(s.sealing.upload_lag_ms),
                size(s.sealing.upload_sent_bytes),
            ),
        );
    }
    if s.sealing.failures > 0 {
        line("  failed attempts", s.sealing.failures.to_string());
    }
    if let Some(error) = &s.sealing.last_error {
        line("  last error", error.clone());
    }
    line("Cold store", s.cold.location.clone());
    line(
        "  holds",
        format!(
            "{} in {}, {} live",
            size(s.cold.bytes),
            plural(s.cold.segments, "segment"),
            share(s.cold.live_bytes, s.cold.bytes),
        ),
    );
    if let Some(log) = &s.cold.log {
        line("  log", format!("{log}, epoch {}", s.cold.epoch));
    }
    if s.cold.fenced {
        line(
            "  FENCED",
            "another core runs on a copy of this data directory: this one does not write to the cold store any more".to_owned(),
        );
    }
    let found = s.cache.memory_hits + s.cache.disk_hits + s.cache.joined;
    line(
        "Cache",
        format!(
            "memory {}, disk {}; {} of chunks were there when they were read; {} read in {} requests",
            of(s.cache.memory_bytes, s.cache.memory_limit_bytes),
            of(s.cache.disk_bytes, s.cache.disk_limit_bytes),
            share(found, found + s.cache.misses),
            size(s.cache.read_bytes),
            s.cache.requests,
        ),
    );
    line(
        "Appended",
        format!(
            "{}; written for it {}{}",
            size(s.appended_bytes),
            size(s.written_bytes),
            match s.write_amplification {
                Some(factor) => format!(" ({factor:.2} times as much)"),
                None => String::new(),
            }
        ),
    );
    for (what, bytes) in [
        ("  write-ahead log", s.wal.written_bytes),
        ("  sealing", s.sealing.written_bytes),
        ("  compaction", s.cold.rewritten_bytes),
        ("  checkpoints", s.checkpoints.written_bytes),
    ] {
        line(what, size(bytes));
    }
    if let Some(verification) = &s.verification {
        line("Last verification", super::verify::summary(verification));
    }
    lines
}

fn entries(count: u64) -> String {
    match count {
        1 => "1 entry".to_owned(),
        n => format!("{n} entries"),
    }
}

/// `98 %`, or "-" of nothing.
fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{:.0} %", part as f64 * 100.0 / whole as f64)
}

/// Milliseconds as `250ms`, `12s`, `5m`, `3h`.
pub fn duration(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms}ms"),
        1000..60_000 => format!("{}s", ms / 1000),
        60_000..3_600_000 => format!("{}m", ms / 60_000),
        _ => format!("{}h", ms / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use admin_api::{ColdStorage, SealingStorage, WalStorage};

    #[test]
    fn what_is_wrong_stands_out() {
        let sound = lines(&Storage::default()).join("\n");
        for word in ["NO ANSWER", "HELD BACK", "FAILED", "FENCED", "last error"] {
            assert!(!sound.contains(word), "{sound}");
        }
        let bad = lines(&Storage {
            wal: WalStorage {
                held_back: true,
                device_silent_ms: 12_000,
                device_silent_limit_ms: 10_000,
                failed: Some("cannot write wal/1.wal: I/O error".into()),
                ..WalStorage::default()
            },
            cold: ColdStorage {
                fenced: true,
                ..ColdStorage::default()
            },
            sealing: SealingStorage {
                last_error: Some("403 Forbidden".into()),
                ..SealingStorage::default()
            },
            ..Storage::default()
        })
        .join("\n");
        for word in [
            "for 12s",
            "up to 10s",
            "HELD BACK",
            "I/O error",
            "FENCED",
            "403 Forbidden",
        ] {
            assert!(bad.contains(word), "{bad}");
        }
    }
}
