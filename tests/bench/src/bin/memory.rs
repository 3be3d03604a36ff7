//! Counts allocations. Prints one JSON object of names and numbers.

use std::alloc::System;
use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use bench::load::{self, Producers, Template};
use bench::memory_disk;
use kernel::{Kernel, KernelConfig, QueueName, QueueSource, SequenceRule};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that are held now.
fn held() -> f64 {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated as f64 - stats.bytes_deallocated as f64
}

type Numbers = BTreeMap<String, f64>;

fn main() -> Result<()> {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut numbers = Numbers::new();
    runtime.block_on(async {
        partitions(&mut numbers).await?;
        operations(&mut numbers).await?;
        queue(&mut numbers, if quick { 1_000_000 } else { 10_000_000 }).await
    })?;
    println!("{}", serde_json::to_string(&numbers)?);
    Ok(())
}

fn open(change: impl FnOnce(&mut KernelConfig)) -> Result<Kernel> {
    let mut config = KernelConfig::default();
    change(&mut config);
    Ok(Kernel::open(memory_disk::ports(), config)?)
}

async fn partitions(numbers: &mut Numbers) -> Result<()> {
    const STREAMS: u32 = 100;
    const PARTITIONS: u32 = 100;
    let kernel = open(|config| config.tail_bytes = 4096)?;
    // The names of a stream are paid once, not for each partition: the first ones bring the containers in.
    load::stream(&kernel, "first", PARTITIONS, &[]).await?;
    let before = held();
    let mut all = Vec::with_capacity((STREAMS * PARTITIONS) as usize);
    let own = held() - before;
    for stream in 0..STREAMS {
        all.extend(load::stream(&kernel, &format!("bench-{stream}"), PARTITIONS, &[]).await?);
    }
    let count = f64::from(STREAMS * PARTITIONS);
    let empty = (held() - before - own) / count;
    numbers.insert("partition".into(), empty);
    let template = Template::one()?;
    let disk = disk_bytes(&kernel);
    let before = held();
    let one = Producers {
        count: 1,
        window: 1,
    };
    for partition in &all {
        load::produce(&kernel, &[*partition], &template, one, 1).await?;
    }
    let written = (held() - before - (disk_bytes(&kernel) - disk)) / count;
    numbers.insert("partition-written".into(), empty + written);
    Ok(())
}

/// The files are in memory, too; they do not count.
fn disk_bytes(kernel: &Kernel) -> f64 {
    kernel.stats().wal_bytes_on_disk as f64
}

async fn operations(numbers: &mut Numbers) -> Result<()> {
    const TIMES: u64 = 1000;
    for (name, template) in [("one", Template::one()?), ("64k", Template::kib64()?)] {
        let kernel = open(|_| {})?;
        let partition = *load::stream(&kernel, "bench", 1, &[])
            .await?
            .first()
            .context("no partition")?;
        let batches = (0..TIMES)
            .map(|_| template.batch())
            .collect::<Result<Vec<_>>>()?;
        let region = Region::new(ALLOCATOR);
        for batch in batches {
            kernel.append(partition, batch, SequenceRule::None).await?;
        }
        count(numbers, &format!("append-{name}"), &region, TIMES);
        let (name, max_bytes) = match name {
            "one" => ("fetch-one", 1),
            _ => ("fetch-1m", 1 << 20),
        };
        let step = i64::try_from(template.records)?;
        let region = Region::new(ALLOCATOR);
        for number in 0..i64::try_from(TIMES)? - 16 {
            let read = kernel.read(partition, number * step, max_bytes).await?;
            anyhow::ensure!(!read.batches.is_empty(), "nothing was read");
        }
        count(numbers, name, &region, TIMES - 16);
    }
    Ok(())
}

fn count(numbers: &mut Numbers, name: &str, region: &Region<'_, System>, times: u64) {
    let change = region.change();
    let allocations = (change.allocations + change.reallocations) as f64 / times as f64;
    numbers.insert(format!("{name}-allocations"), allocations);
    numbers.insert(
        format!("{name}-bytes"),
        change.bytes_allocated as f64 / times as f64,
    );
}

async fn queue(numbers: &mut Numbers, messages: u64) -> Result<()> {
    const TOGETHER: u64 = 1000;
    let kernel = open(|config| config.tail_bytes = 16 << 20)?;
    let partitions = load::stream(&kernel, "bench", 4, &[]).await?;
    let template = Template::new(TOGETHER as usize, 8)?;
    let producers = Producers {
        count: 4,
        window: 8,
    };
    load::produce(
        &kernel,
        &partitions,
        &template,
        producers,
        messages / TOGETHER,
    )
    .await?;
    let before = held();
    let queue = kernel.queue(&QueueName::from("bench"), Arc::new(()));
    let sources = partitions.iter().map(|partition| QueueSource {
        partition: *partition,
        from: 0,
    });
    queue.set_sources(sources.collect()).await?;
    queue.catch_up().await;
    anyhow::ensure!(queue.ready() == messages, "{} ready", queue.ready());
    numbers.insert("queue-messages".into(), messages as f64);
    numbers.insert("queue-bytes".into(), held() - before);
    Ok(())
}
