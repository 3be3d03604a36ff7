//! What it costs to wake: many who wait for one partition, and one who waits for many.
//! `cargo run --release -p kernel --example watch_figures`

use std::sync::Arc;
use std::time::{Duration, Instant};

use kernel::ports::MemoryColdStore;
use kernel::{Kernel, KernelConfig, PartitionId, Ports, SequenceRule, StreamSpec};
use record::{BatchBuilder, Namespace, NewRecord, StreamAddress, StreamName};

const MANY: u32 = 10_000;
const ROUNDS: u32 = 200;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let ports = Ports::system(dir.path(), Arc::new(MemoryColdStore::default()))?;
    let kernel = Kernel::open(ports, KernelConfig::default())?;
    let spec = StreamSpec {
        partitions: MANY,
        ..StreamSpec::default()
    };
    let address = StreamAddress::new(Namespace::default(), StreamName::new("s")?);
    let stream = kernel.create_stream(&address, spec).await?;
    let partitions: Vec<PartitionId> = stream.partition_ids().collect();
    let (first, last) = (stream.id.partition(0), stream.id.partition(MANY - 1));
    println!("appends alone: {:?} each", appends(&kernel, last).await?);

    let idle = (0..MANY).map(|_| {
        let kernel = kernel.clone();
        tokio::spawn(async move { kernel.wait_past(&[(last, i64::MAX)]).await })
    });
    let idle: Vec<_> = idle.collect();
    tokio::task::yield_now().await;
    println!(
        "appends beside {MANY} who wait for something later: {:?} each",
        appends(&kernel, last).await?
    );
    idle.iter().for_each(tokio::task::JoinHandle::abort);

    let started = Instant::now();
    for round in 0..ROUNDS {
        let woken = (0..MANY).map(|_| {
            let kernel = kernel.clone();
            tokio::spawn(async move { kernel.wait_past(&[(first, i64::from(round))]).await })
        });
        let woken: Vec<_> = woken.collect();
        append(&kernel, first).await?;
        for task in woken {
            task.await?;
        }
    }
    println!(
        "{MANY} tasks made, woken by one append and joined: {:?} for each append, {:?} for each task",
        started.elapsed() / ROUNDS,
        started.elapsed() / ROUNDS / MANY
    );

    let mut watch = kernel.watch();
    let started = Instant::now();
    partitions.iter().for_each(|p| watch.set(*p, 1_000_000));
    println!(
        "a watch of {MANY} partitions made in {:?}",
        started.elapsed()
    );
    let mut took = Duration::ZERO;
    for _ in 0..ROUNDS {
        let end = kernel.watermarks(last).map_or(0, |w| w.end);
        watch.set(last, end);
        append(&kernel, last).await?;
        let started = Instant::now();
        watch.moved().await;
        watch.set(last, end + 1);
        took += started.elapsed();
    }
    println!(
        "one partition of it moved, and was set again: {:?}",
        took / ROUNDS
    );
    Ok(())
}

async fn appends(kernel: &Kernel, partition: PartitionId) -> Result<Duration, Failure> {
    let started = Instant::now();
    for _ in 0..ROUNDS {
        append(kernel, partition).await?;
    }
    Ok(started.elapsed() / ROUNDS)
}

async fn append(kernel: &Kernel, partition: PartitionId) -> Result<(), Failure> {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord {
        timestamp: 1,
        key: None,
        value: Some(vec![7; 100].into()),
        headers: Vec::new(),
    })?;
    let batch = builder.build()?;
    kernel.append(partition, batch, SequenceRule::None).await?;
    Ok(())
}
