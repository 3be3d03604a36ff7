//! `towline debug segment FILE`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use kernel::inspect::SegmentFile;
use kernel::segment::{Chunk, FooterPart};
use serde_json::{Value, json};

use super::{command, records};
use crate::output::{plain_json, plural, size, utc};

#[derive(Args)]
pub struct Segment {
    /// A segment: a file of the cold store, or a copy of an object.
    file: PathBuf,
    /// Show the records of batches, in short.
    #[arg(long)]
    records: bool,
    /// One JSON document instead of lines.
    #[arg(long)]
    json: bool,
}

impl Segment {
    pub fn run(self) -> Result<()> {
        let shown = self.file.display();
        let bytes = std::fs::read(&self.file).with_context(|| format!("can not read {shown}"))?;
        let bytes_all = bytes.len() as u64;
        let file = SegmentFile::open(bytes.into()).with_context(|| {
            format!("{shown} can not be read as a segment, so none of its records can be found")
        })?;
        let mut damaged = u64::from(file.header().is_err());
        let parts: Vec<(Value, u64)> = file
            .footer()
            .parts
            .iter()
            .map(|part| self.part(&file, part))
            .collect();
        damaged += parts.iter().map(|(_, damaged)| damaged).sum::<u64>();
        if self.json {
            let whole = json!({
                "file": self.file,
                "bytes": bytes_all,
                "segment": file.footer().id.to_string(),
                "epoch": file.footer().id.epoch(),
                "log": file.footer().log.to_string(),
                "footer_at": file.footer_at(),
                "header": file.header().err().map(|e| e.to_string()),
                "parts": parts.into_iter().map(|(value, _)| value).collect::<Vec<_>>(),
                "sound": damaged == 0,
            });
            println!("{}", plain_json(&whole)?);
        } else {
            if let Err(error) = file.header() {
                println!("{:>10} DAMAGED: the header: {error}", 0);
            }
            println!(
                "{shown}: {}, segment {} of log {}, footer at {}; {}; {}",
                size(bytes_all),
                file.footer().id,
                file.footer().log,
                file.footer_at(),
                plural(file.footer().parts.len() as u64, "part"),
                match damaged {
                    0 => "every checksum holds".to_owned(),
                    n => format!("{} DAMAGED", plural(n, "place")),
                }
            );
        }
        if damaged > 0 {
            bail!(
                "{shown} is damaged in {}: these records are not served, the rest is. docs/reference/storage.md says what to do",
                plural(damaged, "place")
            );
        }
        Ok(())
    }

    /// Prints a part as it is verified, unless it goes into a document; returns that, and how many places of it are damaged.
    fn part(&self, file: &SegmentFile, part: &FooterPart) -> (Value, u64) {
        let partition = part.partition.partition;
        if !self.json {
            println!(
                "{} partition {partition} (stream {}, {}): offsets {} to {}, up to {}, {} in {}",
                part.address,
                part.partition.stream,
                part.uuid,
                part.base_offset,
                part.next_offset - 1,
                utc(part.max_timestamp),
                size(part.bytes()),
                plural(part.chunks.len() as u64, "chunk"),
            );
            for aborted in &part.aborted {
                println!(
                    "           aborted transaction of producer {}: offsets {} to {}",
                    aborted.producer_id, aborted.first_offset, aborted.last_offset
                );
            }
        }
        let chunks: Vec<(Value, u64)> = (0..part.chunks.len())
            .filter_map(|place| {
                Some(self.chunk(file, part, part.chunks.get(place)?, part.chunk_end(place)))
            })
            .collect();
        let damaged = chunks.iter().map(|(_, damaged)| damaged).sum();
        let value = json!({
            "namespace": part.address.namespace.as_str(),
            "stream": part.address.name.as_str(),
            "stream_number": part.partition.stream.0,
            "stream_id": part.uuid.to_string(),
            "partition": partition,
            "base_offset": part.base_offset,
            "next_offset": part.next_offset,
            "max_timestamp": part.max_timestamp,
            "aborted": part.aborted.iter().map(|a| json!({
                "producer_id": a.producer_id,
                "first_offset": a.first_offset,
                "last_offset": a.last_offset,
            })).collect::<Vec<_>>(),
            "chunks": chunks.into_iter().map(|(value, _)| value).collect::<Vec<_>>(),
        });
        (value, damaged)
    }

    fn chunk(
        &self,
        file: &SegmentFile,
        part: &FooterPart,
        chunk: &Chunk,
        end: i64,
    ) -> (Value, u64) {
        let mut value = json!({
            "at": chunk.position,
            "bytes": chunk.length,
            "base_offset": chunk.base_offset,
            "next_offset": end,
            "max_timestamp": chunk.max_timestamp,
            "records": chunk.records,
        });
        let front = format!(
            "{:>10} {:>9} bytes  offsets {} to {}",
            chunk.position,
            chunk.length,
            chunk.base_offset,
            end - 1
        );
        let found = match file.chunk(part, chunk) {
            _ if chunk.is_lost() => {
                value["lost"] = json!(true);
                self.say(&format!(
                    "{front}  lost: damaged in the write-ahead log before they were sealed"
                ));
                return (value, 0);
            }
            Ok(found) => found,
            Err(error) => {
                value["damage"] = json!(error.to_string());
                self.say(&format!("{front}  DAMAGED: {error}"));
                return (value, 1);
            }
        };
        self.say(&format!(
            "{front}  {}, {}, up to {}",
            plural(found.len() as u64, "batch"),
            plural(u64::from(chunk.records), "record"),
            utc(chunk.max_timestamp)
        ));
        let mut damaged = 0;
        let mut values = Vec::new();
        for batch in found.iter().filter(|_| self.records) {
            if self.json {
                let (records, whole) = records::values(batch);
                let mut value = command::batch_value(batch);
                value["records"] = records;
                values.push(value);
                damaged += u64::from(!whole);
            } else {
                println!(
                    "{:>24}  {}",
                    batch.base_offset(),
                    command::batch_words(batch)
                );
                damaged += u64::from(!records::print(batch, &" ".repeat(26)));
            }
        }
        if self.records {
            value["batches"] = values.into();
        }
        (value, damaged)
    }

    fn say(&self, line: &str) {
        if !self.json {
            println!("{line}");
        }
    }
}
