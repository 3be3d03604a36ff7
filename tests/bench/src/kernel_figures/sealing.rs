//! Sealing to a cold tier on the same device: appends in the steady state, what is written for what is appended, and reading it all again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cold_store::Patience;
use kernel::{Kernel, KernelConfig, PartitionId, Ports, SequenceRule};
use tokio::task::JoinHandle;

use super::append::PRODUCERS;
use super::wear;
use crate::device::{self, Layout, RawFile, WriteCounter};
use crate::figure::{Figure, Goal, number};
use crate::load::{self, Template};
use crate::run::Run;
use crate::timing::{Times, cpu_time, mb_per_s, median};

/// Everything that has a size or a time of day is this much smaller than by default, so that the steady state is reached soon.
const SCALE: u64 = 8;
/// Bytes a reader asks for at once.
const READ: usize = 1 << 20;
const GROUP: &str = "sealing";

/// A kernel whose cold tier is a directory beside its log, with the loops that a server runs.
struct Sealing {
    kernel: Kernel,
    segment_bytes: u64,
    cold: PathBuf,
    loops: Vec<JoinHandle<()>>,
}

impl Sealing {
    fn open(run: &Run, dir: &Path) -> Result<Sealing> {
        let cold = dir.join("cold");
        std::fs::create_dir_all(&cold)?;
        let url = format!("file://{}", cold.display());
        let store = cold_store::open(&url, Patience::default())?;
        let usual = KernelConfig::default();
        let config = KernelConfig {
            segment_bytes: usual.segment_bytes / SCALE,
            wal_bytes: usual.wal_bytes / SCALE,
            wal_file_bytes: usual.wal_file_bytes / SCALE,
            checkpoint_wal_bytes: usual.checkpoint_wal_bytes / SCALE,
            tail_bytes: usual.tail_bytes / SCALE as usize,
            ..usual
        };
        let segment_bytes = config.segment_bytes;
        let kernel = Kernel::open(Ports::system(dir.join("hot"), store)?, config)?;
        let loops = loops(run, &kernel);
        Ok(Sealing {
            kernel,
            segment_bytes,
            cold,
            loops,
        })
    }

    /// Waits until what is due is sealed.
    async fn settled(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let stats = self.kernel.stats();
            if stats.unsealed_bytes < self.segment_bytes {
                return Ok(());
            }
            let why = stats.seal_error.unwrap_or_default();
            ensure!(Instant::now() < deadline, "sealing does not keep up: {why}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Sealing {
    fn drop(&mut self) {
        self.loops.iter().for_each(JoinHandle::abort);
    }
}

/// What the server does beside the writes.
fn loops(run: &Run, kernel: &Kernel) -> Vec<JoinHandle<()>> {
    let seals = kernel.clone();
    let maintains = kernel.clone();
    let pause = Duration::from_millis(1000 / SCALE);
    vec![
        run.runtime.spawn(async move {
            loop {
                seals.wait_seal_due().await;
                if let Err(error) = seals.seal().await {
                    eprintln!("sealing: {error}");
                    tokio::time::sleep(pause).await;
                }
            }
        }),
        run.runtime.spawn(load::maintain(maintains, pause)),
    ]
}

pub fn measure(run: &mut Run) -> Result<()> {
    let turns = run.size(3, 2);
    let bytes = run.size(512_u64 << 20, 128 << 20);
    let template = Template::kib64()?;
    let batches = bytes / template.len();
    let dir = run.scratch.fresh(GROUP)?;
    let device = WriteCounter::of(&dir)?;
    let ours = Sealing::open(run, &dir)?;
    let runtime = &run.runtime;
    let partitions = runtime.block_on(load::stream(&ours.kernel, "bench", 16, &[]))?;
    // Timed until all that is due is sealed: what is put off is not won.
    let turn = |batches| {
        runtime.block_on(async {
            let start = Instant::now();
            load::produce(&ours.kernel, &partitions, &template, PRODUCERS, batches).await?;
            ours.settled().await?;
            anyhow::Ok(start.elapsed())
        })
    };
    // Until every file of the log has been used once.
    turn(KernelConfig::default().wal_bytes / SCALE * 5 / 4 / template.len())?;
    let group = load::bytes_a_sync(&ours.kernel, || turn(batches / 2))?;
    let size = usize::try_from(group)?.next_multiple_of(4096);
    let mut raw = RawFile::new(&dir, Layout::Recycled)?;
    let (mut raws, mut rates) = (Vec::new(), Vec::new());
    let (mut written, mut spent) = (0, Duration::ZERO);
    // Of what is written meanwhile, all is sealed meanwhile.
    runtime.block_on(ours.kernel.seal_all())?;
    for _ in 0..turns {
        raws.push(mb_per_s(bytes, raw.sequential(size, bytes)?));
        let (io, cpu) = (device.bytes()?, cpu_time());
        rates.push(mb_per_s(batches * template.len(), turn(batches)?));
        written += device.bytes()? - io;
        spent += cpu_time() - cpu;
    }
    let before = device.bytes()?;
    runtime.block_on(ours.kernel.seal_all())?;
    written += device.bytes()? - before;
    let appended = turns * batches * template.len();
    let stats = ours.kernel.stats();
    let ratios = rates.iter().zip(&raws).map(|(ours, raw)| ours / raw);
    let ratio = median(ratios.collect());
    let what =
        "1 KiB records in 64 KiB batches, quorum+fsync, sealing to a directory on the same device";
    run.add(
        Figure::new(GROUP, what, median(rates), "MB/s")
            .against(
                format!("write + fdatasync, {} KiB, recycled file", size >> 10),
                median(raws),
            )
            .ratio(ratio)
            .goal(Goal::RatioAtLeast(0.45))
            .note(format!(
                "until all that is due is sealed; {} segments; {} GB per second on the CPU",
                stats.segments,
                number(appended as f64 / 1e9 / spent.as_secs_f64()),
            )),
    );
    run.add(wear(GROUP, "sealing", written, appended, &device).goal(Goal::AtMost(2.05)));
    catch_up(run, &ours, &partitions)?;
    let what = "one record, one producer, beside a catch-up read from the local cold tier";
    let forget = || Ok(device::drop_cached(&ours.cold)?);
    let note = "from the same device";
    beside(run, GROUP, what, &ours.kernel, &partitions, forget, note)
}

/// One durable append at a time, alone and beside a consumer that reads the cold tier from the beginning, over and over, in turns.
pub(super) fn beside(
    run: &mut Run,
    group: &'static str,
    what: &str,
    kernel: &Kernel,
    partitions: &[PartitionId],
    forget: impl Fn() -> Result<()>,
    note: &str,
) -> Result<()> {
    let turns = run.size(6, 2);
    let appends = run.size(500, 200);
    let one = Template::one()?;
    let (hot, cold) = (partitions[0], partitions[1..].to_vec());
    let append = async |times: &mut Times| {
        for _ in 0..appends {
            let batch = one.batch()?;
            let start = Instant::now();
            kernel.append(hot, batch, SequenceRule::None).await?;
            times.add(start.elapsed());
        }
        anyhow::Ok(())
    };
    let (mut alone, mut together) = (Times::default(), Times::default());
    let (mut read, mut time) = (0, Duration::ZERO);
    for _ in 0..turns {
        run.runtime.block_on(append(&mut alone))?;
        forget()?;
        let (kernel, cold) = (kernel.clone(), cold.clone());
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&bytes);
        let reader = run.runtime.spawn(async move {
            for partition in cold.iter().cycle() {
                match read_cold(&kernel, *partition, 32 << 20).await {
                    Ok(some) => counted.fetch_add(some, Ordering::Relaxed),
                    Err(error) => return eprintln!("reading beside the appends: {error}"),
                };
            }
        });
        let start = Instant::now();
        let done = run.runtime.block_on(append(&mut together));
        time += start.elapsed();
        read += bytes.load(Ordering::Relaxed);
        reader.abort();
        done?;
    }
    let alone = alone.latency();
    run.add(
        Figure::p99(group, what, together.latency())
            .against("without that reader, in turns", alone.p99_us)
            .note(format!(
                "it read {} MB/s meanwhile, {note}",
                number(mb_per_s(read, time))
            )),
    );
    Ok(())
}

/// Reads all that is in the cold tier, which the system has forgotten, one partition after the other.
fn catch_up(run: &mut Run, ours: &Sealing, partitions: &[PartitionId]) -> Result<()> {
    let turns = run.size(4, 2);
    let (mut raws, mut rates) = (Vec::new(), Vec::new());
    let mut spent = Duration::ZERO;
    let mut total = 0;
    for _ in 0..turns {
        device::drop_cached(&ours.cold)?;
        let (bytes, time) = device::read_all(&ours.cold, READ)?;
        raws.push(mb_per_s(bytes, time));
        device::drop_cached(&ours.cold)?;
        let cpu = cpu_time();
        let (read, time) = run.runtime.block_on(async {
            let start = Instant::now();
            let mut read = 0;
            for partition in partitions {
                read +=
                    read_cold(&ours.kernel, *partition, bytes / partitions.len() as u64).await?;
            }
            anyhow::Ok((read, start.elapsed()))
        })?;
        spent += cpu_time() - cpu;
        total += read;
        rates.push(mb_per_s(read, time));
    }
    let ratios = rates.iter().zip(&raws).map(|(ours, raw)| ours / raw);
    let ratio = median(ratios.collect());
    run.add(
        Figure::new(
            GROUP,
            "catch-up read from the local cold tier, one consumer",
            median(rates),
            "MB/s",
        )
        .against("sequential read of the same files, 1 MiB", median(raws))
        .ratio(ratio)
        .goal(Goal::RatioAtLeast(0.8))
        .note(format!(
            "not in the page cache; {} GB per second on the CPU",
            number(total as f64 / 1e9 / spent.as_secs_f64())
        )),
    );
    Ok(())
}

/// Reads about `bytes` from the beginning of a partition; how many it were.
pub(super) async fn read_cold(kernel: &Kernel, partition: PartitionId, bytes: u64) -> Result<u64> {
    let mut offset = kernel
        .watermarks(partition)
        .context("the partition is gone")?
        .log_start;
    let mut total = 0;
    while total < bytes {
        let read = kernel.read(partition, offset, READ).await?;
        if read.batches.is_empty() {
            break;
        }
        total += read
            .batches
            .iter()
            .map(|batch| batch.len() as u64)
            .sum::<u64>();
        offset = read.next_offset;
    }
    Ok(total)
}
