//! How long a table of a million small values takes to write and to recover, and what a checkpoint of it does to appends meanwhile.
//! `cargo run --release -p kernel --example table_figures`

use std::sync::Arc;
use std::time::{Duration, Instant};

use kernel::ports::MemoryColdStore;
use kernel::{Entry, Kernel, KernelConfig, Ports, SequenceRule};
use record::{BatchBuilder, Namespace, NewRecord, StreamAddress, StreamName};

const VALUES: u32 = 1_000_000;
const IN_ONE_ENTRY: u32 = 1000;

type Failure = Box<dyn std::error::Error>;

fn open(dir: &tempfile::TempDir) -> Result<Kernel, Failure> {
    let ports = Ports::system(dir.path(), Arc::new(MemoryColdStore::default()))?;
    // One checkpoint after each of these bytes: the loop below sees several.
    let config = KernelConfig {
        checkpoint_wal_bytes: 1024 * 1024,
        ..KernelConfig::default()
    };
    Ok(Kernel::open(ports, config)?)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let kernel = open(&dir)?;
    let started = Instant::now();
    let mut written = Vec::new();
    for first in (0..VALUES).step_by(IN_ONE_ENTRY as usize) {
        let mut entry = Entry::new();
        for n in first..first + IN_ONE_ENTRY {
            entry = entry.put("t", format!("key-{n:08}"), format!("value of {n}"));
        }
        written.push(kernel.write(entry));
    }
    for written in written {
        written.await?;
    }
    println!("{VALUES} values written in {:?}", started.elapsed());

    let address = StreamAddress::new(Namespace::default(), StreamName::new("s")?);
    let partition = kernel.ensure_stream(&address).await?.id.partition(0);
    for (what, with_checkpoints) in [("no checkpoints", false), ("checkpoints", true)] {
        let before = kernel.stats().checkpoints;
        let maintaining = with_checkpoints.then(|| {
            let kernel = kernel.clone();
            tokio::spawn(async move {
                loop {
                    kernel.maintain().await;
                    tokio::task::yield_now().await;
                }
            })
        });
        let mut took = Vec::new();
        for _ in 0..4000 {
            let started = Instant::now();
            kernel
                .append(partition, batch()?, SequenceRule::None)
                .await?;
            took.push(started.elapsed());
        }
        if let Some(maintaining) = maintaining {
            maintaining.abort();
        }
        took.sort_unstable();
        let at = |permille: usize| took.get(took.len() * permille / 1000).copied();
        println!(
            "appends, {what} ({}): p50 {:?}, p99 {:?}, p999 {:?}, max {:?}",
            kernel.stats().checkpoints - before,
            at(500).unwrap_or(Duration::ZERO),
            at(990).unwrap_or(Duration::ZERO),
            at(999).unwrap_or(Duration::ZERO),
            took.last().copied().unwrap_or(Duration::ZERO),
        );
    }
    kernel.shutdown().await;
    drop(kernel);
    let started = Instant::now();
    let kernel = open(&dir)?;
    println!(
        "opened from the checkpoint in {:?}: {} values",
        started.elapsed(),
        kernel.table_scan("t", b"").len()
    );
    Ok(())
}

fn batch() -> Result<record::Batch, Failure> {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord {
        timestamp: 1,
        key: None,
        value: Some(vec![7; 1024].into()),
        headers: Vec::new(),
    })?;
    Ok(builder.build()?)
}
