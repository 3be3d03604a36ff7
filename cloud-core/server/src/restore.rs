//! `towline-core restore`: a new data directory from what is in the cold store, when the disk of the old one has died.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use cold_store::Patience;
use kernel::{Ports, RestoreError, Restored};
use uuid::Uuid;

use crate::data_dir::DataDir;

/// Make a new data directory from what is in the cold store, after the disk of the old one has died.
///
/// What was sealed is there again, what was only in the write-ahead log is lost, and no offset is used twice. Start the core afterwards with the
/// same --cold-url. Whoever still runs on the old directory can not write to the cold store any more.
#[derive(Args)]
pub struct Restore {
    /// The new data directory: empty, or not there yet
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Where the segments are, as the --cold-url of the core that is gone
    #[arg(long, value_name = "URL")]
    cold_url: String,
    /// Which log, if the cold store has several
    #[arg(long, value_name = "ID")]
    log: Option<Uuid>,
}

impl Restore {
    pub fn run(self) -> Result<()> {
        let cold = cold_store::open(&self.cold_url, Patience::default())
            .context("cannot open the cold store")?;
        let data_dir = DataDir::open(&self.data_dir)?;
        let shown = data_dir.path.display().to_string();
        let ports = Ports::system(&data_dir.path, Arc::clone(&cold))
            .with_context(|| format!("cannot open the data directory {shown}"))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start threads")?;
        let restored = runtime
            .block_on(kernel::restore(&ports, self.log))
            .map_err(|error| match (error, self.log) {
                (error @ RestoreError::SeveralLogs(_), _) => anyhow!(
                    "{error}, with --log ID. `towline storage status` of the old core showed it, and its log at the start"
                ),
                (error @ RestoreError::NoLog(_), Some(log)) => anyhow!("{error} named {log}"),
                (error, _) => error.into(),
            })
            .with_context(|| format!("nothing was restored into {shown}"))?;
        tell(&restored, &cold.location());
        println!(
            "Start it: towline-core --data-dir {shown} --cold-url '{}'",
            self.cold_url
        );
        Ok(())
    }
}

fn tell(restored: &Restored, location: &str) {
    println!(
        "Restored log {} from {location}: {} streams with {} partitions, {} segments, {} bytes of records; its epoch is now {}.",
        restored.log,
        restored.streams,
        restored.partitions,
        restored.segments,
        restored.bytes,
        restored.epoch
    );
    match restored.checkpoint {
        Some(entry) => println!(
            "Positions of groups, queues and sessions are as they were at entry {entry}, when the newest checkpoint got there."
        ),
        None => println!(
            "There was no sound checkpoint: records and streams are back; positions of groups, queues and sessions are lost."
        ),
    }
    match restored.stream_list {
        Some(entry) => println!(
            "Streams and their settings are as they were at entry {entry} or a little later."
        ),
        None => println!(
            "There is no sound list of streams from after that: streams that were made later come back with the default settings, those that were deleted come back as well."
        ),
    }
    for (object, reason) in &restored.damaged {
        println!("Left out, damaged: {object}: {reason}");
    }
    println!(
        "Not in the cold store: admin.credentials and scram.secret (new ones are made at the start; without a backup of scram.secret its salts can tell which users there are) and sync-ca.pem (put a backup of it into the directory, or enrol the edges again)."
    );
}
