//! Reading what has just been written: how much, and how soon after the append began.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kernel::{Kernel, PartitionId, SequenceRule};

use super::append::PRODUCERS;
use crate::device::CopyTarget;
use crate::figure::Figure;
use crate::load::{self, Template};
use crate::run::Run;
use crate::timing::{Times, mb_per_s};

/// Most bytes a consumer asks for at once.
const READ_BYTES: usize = 1 << 20;

/// When each append began, in nanoseconds since the start: the producer is one, so the offset says which append it was.
struct Begun {
    start: Instant,
    at: Vec<AtomicU64>,
}

impl Begun {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

pub fn measure(run: &mut Run) -> Result<()> {
    for consumers in [1, 100] {
        hot(run, consumers)?;
        full_speed(run, consumers)?;
        paced(run, consumers)?;
    }
    Ok(())
}

/// Everybody reads what is in memory, and copies it as the way to a socket does.
fn hot(run: &mut Run, consumers: usize) -> Result<()> {
    let bytes = run.size(128_u64 << 20, 32 << 20);
    let passes = run.size(16, 4) / if consumers > 1 { 8 } else { 1 } + 1;
    let template = Template::kib64()?;
    let dir = run.scratch.fresh("tail")?;
    let kernel = load::open(&dir, |_| {})?;
    let (time, read) = run.runtime.block_on(async {
        let partitions = load::stream(&kernel, "bench", 1, &[]).await?;
        let batches = bytes / template.len();
        load::produce(&kernel, &partitions, &template, PRODUCERS, batches).await?;
        let partition = *partitions.first().context("no partition")?;
        let start = Instant::now();
        let readers: Vec<_> = (0..consumers)
            .map(|_| {
                let kernel = kernel.clone();
                tokio::spawn(async move { copy_all(&kernel, partition, passes).await })
            })
            .collect();
        let mut read = 0;
        for reader in readers {
            read += reader.await??;
        }
        anyhow::Ok((start.elapsed(), read))
    })?;
    let missed = kernel.stats().tail_misses;
    drop(kernel);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let copy = mb_per_s(1 << 30, CopyTarget::default().copy(64 << 10, 1 << 30));
    run.add(
        Figure::new(
            "tail",
            format!("{consumers} reading the tail, copying it: all together"),
            mb_per_s(read, time),
            "MB/s",
        )
        .against(
            "memory copies of 64 KiB on as many cores",
            copy * consumers.min(cores) as f64,
        )
        .note(format!(
            "{:.0} records/s; {missed} batches were not in memory",
            (read / template.len() * template.records) as f64 / time.as_secs_f64()
        )),
    );
    Ok(())
}

/// Reads a partition from its beginning to its end, so many times; the bytes.
async fn copy_all(kernel: &Kernel, partition: PartitionId, passes: u64) -> Result<u64> {
    let mut socket = vec![0_u8; READ_BYTES];
    let mut total = 0;
    for _ in 0..passes {
        let mut offset = 0;
        loop {
            let read = kernel.read(partition, offset, READ_BYTES).await?;
            let mut at = 0;
            for batch in &read.batches {
                if let Some(room) = socket.get_mut(at..at + batch.len()) {
                    room.copy_from_slice(batch.bytes());
                }
                at += batch.len();
            }
            std::hint::black_box(&socket);
            total += at as u64;
            if read.batches.is_empty() {
                break;
            }
            offset = read.next_offset;
            tokio::task::yield_now().await;
        }
    }
    Ok(total)
}

/// Everybody reads while one producer writes as fast as it can.
fn full_speed(run: &mut Run, consumers: usize) -> Result<()> {
    let bytes = run.size(384_u64 << 20, 96 << 20) / if consumers > 1 { 2 } else { 1 };
    let template = Template::kib64()?;
    let batches = bytes / template.len();
    let (_, time, read) = follow(run, &template, batches, consumers, 8, Duration::ZERO)?;
    let records = read / template.len() * template.records;
    run.add(
        Figure::new(
            "tail",
            format!("{consumers} following, 64 KiB batches at full speed: all together"),
            mb_per_s(read, time),
            "MB/s",
        )
        .note(format!(
            "{:.0} records/s, beside {:.0} MB/s appended at quorum+fsync",
            records as f64 / time.as_secs_f64(),
            mb_per_s(batches * template.len(), time)
        )),
    );
    Ok(())
}

/// One record every two milliseconds: how soon is it seen.
fn paced(run: &mut Run, consumers: usize) -> Result<()> {
    let template = Template::one()?;
    let appends = run.size(3000, 500);
    let pause = Duration::from_millis(2);
    let (times, _, _) = follow(run, &template, appends, consumers, 1, pause)?;
    run.add(
        Figure::p99(
            "tail",
            format!("{consumers} following, one record at a time: from append to seen"),
            times.latency(),
        )
        .note("the fdatasync of the append is in it"),
    );
    Ok(())
}

/// Appends while consumers follow: times from append to seen, the time it took, the bytes that all read together.
fn follow(
    run: &Run,
    template: &Template,
    batches: u64,
    consumers: usize,
    window: usize,
    pause: Duration,
) -> Result<(Times, Duration, u64)> {
    let dir = run.scratch.fresh("tail")?;
    let kernel = load::open(&dir, |_| {})?;
    let result = run.runtime.block_on(async {
        let partition = *load::stream(&kernel, "bench", 1, &[])
            .await?
            .first()
            .context("no partition")?;
        let begun = Arc::new(Begun {
            start: Instant::now(),
            at: (0..batches).map(|_| AtomicU64::new(0)).collect(),
        });
        let records = template.records;
        let readers: Vec<_> = (0..consumers)
            .map(|_| {
                let (kernel, begun) = (kernel.clone(), begun.clone());
                tokio::spawn(async move { consume(&kernel, partition, &begun, records).await })
            })
            .collect();
        let mut waiting = std::collections::VecDeque::new();
        for begins in &begun.at {
            if waiting.len() >= window
                && let Some(oldest) = waiting.pop_front()
            {
                oldest.await?;
            }
            let batch = template.batch()?;
            begins.store(begun.now(), Ordering::Relaxed);
            waiting.push_back(kernel.append(partition, batch, SequenceRule::None));
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
        for rest in waiting {
            rest.await?;
        }
        let mut times = Times::default();
        let mut bytes = 0;
        for reader in readers {
            let (seen, read) = reader.await??;
            times.merge(&seen);
            bytes += read;
        }
        anyhow::Ok((times, begun.start.elapsed(), bytes))
    });
    drop(kernel);
    result
}

async fn consume(
    kernel: &Kernel,
    partition: PartitionId,
    begun: &Begun,
    records: u64,
) -> Result<(Times, u64)> {
    let mut times = Times::default();
    let (mut offset, mut bytes) = (0, 0);
    let end = i64::try_from(begun.at.len() as u64 * records)?;
    while offset < end {
        let read = kernel.read(partition, offset, READ_BYTES).await?;
        if read.batches.is_empty() {
            kernel.wait_past(&[(partition, offset)]).await;
            continue;
        }
        let now = begun.now();
        for batch in &read.batches {
            bytes += batch.len() as u64;
            let append = usize::try_from(batch.base_offset())? / usize::try_from(records)?;
            let began = begun.at.get(append).context("an offset past the end")?;
            times.add(Duration::from_nanos(
                now.saturating_sub(began.load(Ordering::Relaxed)),
            ));
        }
        offset = read.next_offset;
    }
    Ok((times, bytes))
}
