//! `towline debug wal FILE`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use kernel::Command;
use kernel::inspect::{WalFile, WalFrame, WalItem, WalRest, wal_file_after, wal_first_index};
use serde_json::{Value, json};

use super::{command, records};
use crate::output::{plain_json, plural, utc};

#[derive(Args)]
pub struct Wal {
    /// A file of the folder `wal` in a data directory.
    file: PathBuf,
    /// Show the records of batches, in short.
    #[arg(long)]
    records: bool,
    /// One JSON document instead of lines.
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Default)]
struct Found {
    frames: u64,
    first_index: Option<u64>,
    last_index: u64,
    batches: u64,
    records: u64,
    damaged: u64,
}

impl Wal {
    pub fn run(self) -> Result<()> {
        let shown = self.file.display();
        let bytes = std::fs::read(&self.file).with_context(|| format!("can not read {shown}"))?;
        let size = bytes.len();
        let (first_index, next_file) = place(&self.file);
        let file = WalFile::open(bytes.into(), first_index, next_file)
            .with_context(|| format!("{shown} can not be read as a file of the write-ahead log (segments: towline debug segment)"))?;
        let (first, version) = (file.first_index(), file.version());
        let mut found = Found::default();
        if self.json {
            let items: Vec<Value> = file.map(|item| found.value(&item, self.records)).collect();
            let whole = json!({
                "file": self.file,
                "bytes": size,
                "format": version,
                "first_entry": first,
                "items": items,
                "frames": found.frames,
                "batches": found.batches,
                "records": found.records,
                "sound": found.damaged == 0,
            });
            println!("{}", plain_json(&whole)?);
        } else {
            println!("{shown}: {size} bytes, format {version}, begins with entry {first}");
            println!(
                "{:>10} {:>10} {:>5} {:>10}  {:<24} {:>9}  what",
                "at", "entry", "term", "durable", "stamp", "bytes"
            );
            for item in file {
                found.print(&item, self.records);
            }
            found.print_sum();
        }
        if found.damaged > 0 {
            bail!(
                "{shown} is damaged in {}: what stands there was durable once, and is not served. \
                 `towline storage verify --data-dir DIR` says which streams and offsets; docs/reference/storage.md says what to do",
                plural(found.damaged, "place")
            );
        }
        Ok(())
    }
}

/// What the name of a file says, and the first index of the file that follows in the same directory.
fn place(file: &Path) -> (Option<u64>, Option<u64>) {
    let name = file.file_name().and_then(|name| name.to_str());
    let Some(name) = name.filter(|name| wal_first_index(name).is_some()) else {
        return (None, None);
    };
    (wal_first_index(name), file_after(file, name))
}

fn file_after(file: &Path, name: &str) -> Option<u64> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let names: Vec<String> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    wal_file_after(name, names.iter().map(String::as_str))
}

impl Found {
    fn count(&mut self, frame: &WalFrame) {
        self.frames += 1;
        self.first_index.get_or_insert(frame.index);
        self.last_index = frame.index;
        match &frame.commands {
            Ok((commands, _)) => {
                for command in commands {
                    if let Command::Append { batch, .. } = command {
                        self.batches += 1;
                        self.records += u64::from(batch.record_count());
                    }
                }
            }
            Err(_) => self.damaged += 1,
        }
    }

    fn print(&mut self, item: &WalItem, with_records: bool) {
        match item {
            WalItem::Frame(frame) => {
                self.count(frame);
                let front = format!(
                    "{:>10} {:>10} {:>5} {:>10}  {:<24} {:>9}",
                    frame.at,
                    frame.index,
                    frame.term,
                    frame.durable,
                    utc(frame.stamp),
                    frame.bytes
                );
                let blank = " ".repeat(front.chars().count());
                match &frame.commands {
                    Err(error) => println!("{front}  NOT UNDERSTOOD: {error}"),
                    Ok((commands, _)) => {
                        for (number, command) in commands.iter().enumerate() {
                            let front = if number == 0 { &front } else { &blank };
                            println!("{front}  {}", command::words(command));
                            self.batch(command, with_records.then_some(&*blank));
                        }
                        if commands.is_empty() {
                            println!("{front}  nothing");
                        }
                    }
                }
            }
            WalItem::Damage(damage) => {
                self.damaged += 1;
                println!(
                    "{:>10} DAMAGED up to {}: {}; entries {} to {} are lost with it",
                    damage.at, damage.until, damage.reason, damage.first_index, damage.last_index
                );
            }
            WalItem::End { at, bytes, rest } => println!("{at:>10} {}", rest_words(*rest, *bytes)),
        }
    }

    /// Verifies the batch's own checksum, and shows its records.
    fn batch(&mut self, command: &Command, show: Option<&str>) {
        let Command::Append { batch, .. } = command else {
            return;
        };
        let indent = show.unwrap_or_default();
        if let Err(error) = batch.check_crc() {
            self.damaged += 1;
            println!("{indent}  BATCH DAMAGED: {error}");
        } else if show.is_some() && !records::print(batch, indent) {
            self.damaged += 1;
        }
    }

    fn print_sum(&self) {
        let entries = self.first_index.map_or(String::new(), |first| {
            format!(", entries {first} to {}", self.last_index)
        });
        println!(
            "{}{entries}, {}, {}; {}",
            plural(self.frames, "frame"),
            plural(self.batches, "batch"),
            plural(self.records, "record"),
            match self.damaged {
                0 => "every checksum holds".to_owned(),
                n => format!("{} DAMAGED", plural(n, "place")),
            }
        );
    }

    fn value(&mut self, item: &WalItem, with_records: bool) -> Value {
        match item {
            WalItem::Frame(frame) => {
                self.count(frame);
                let mut value = json!({
                    "at": frame.at,
                    "bytes": frame.bytes,
                    "shard": frame.shard,
                    "term": frame.term,
                    "entry": frame.index,
                    "durable": frame.durable,
                    "stamp_ms": frame.stamp,
                    "records_damaged": !frame.damaged.is_empty(),
                });
                match &frame.commands {
                    Err(error) => value["error"] = json!(error),
                    Ok((commands, _)) => {
                        let commands = commands.iter().map(|c| self.command_value(c, with_records));
                        value["commands"] = commands.collect();
                    }
                }
                json!({ "frame": value })
            }
            WalItem::Damage(damage) => {
                self.damaged += 1;
                json!({
                    "damage": {
                        "at": damage.at,
                        "until": damage.until,
                        "first_entry": damage.first_index,
                        "last_entry": damage.last_index,
                        "reason": damage.reason,
                    }
                })
            }
            WalItem::End { at, bytes, rest } => json!({
                "end": { "at": at, "bytes_after": bytes, "what": rest_words(*rest, *bytes) }
            }),
        }
    }

    fn command_value(&mut self, command: &Command, with_records: bool) -> Value {
        let mut value = command::value(command);
        if let Command::Append { batch, .. } = command {
            if let Err(error) = batch.check_crc() {
                self.damaged += 1;
                value["append"]["damage"] = json!(error.to_string());
            } else if with_records {
                let (records, whole) = records::values(batch);
                value["append"]["records"] = records;
                self.damaged += u64::from(!whole);
            }
        }
        value
    }
}

fn rest_words(rest: WalRest, bytes: u64) -> String {
    match rest {
        WalRest::Nothing => "end".to_owned(),
        WalRest::Unwritten => format!("end; {bytes} bytes reserved and never written"),
        WalRest::Recycled {
            first_index,
            last_index,
        } => format!(
            "end; in the {bytes} bytes after it are old frames of earlier uses of this file, which is recycled (of entries {first_index} to {last_index}): no damage"
        ),
        WalRest::Unfinished { index } => format!(
            "end; then an unfinished write of entry {index} (a crash in the middle of it): nobody was told that it is durable, the next start cuts it off"
        ),
        WalRest::Unknown => format!(
            "end; {bytes} bytes after it are of no whole frame: an unfinished write, or what is left of an earlier use of this file"
        ),
    }
}
