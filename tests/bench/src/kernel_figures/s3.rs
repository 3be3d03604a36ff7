//! Catching up from an S3 server that is 20 ms away, against plain parallel GETs of the same server over the same way.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use cold_store::Patience;
use kernel::ports::ColdStore;
use kernel::{Kernel, KernelConfig, PartitionId, Ports};
use tokio::task::JoinSet;

use super::append::PRODUCERS;
use super::sealing::{beside, read_cold};
use crate::delay;
use crate::figure::{Figure, Goal};
use crate::load::{self, Template};
use crate::run::Run;
use crate::timing::{mb_per_s, median};

const GROUP: &str = "s3";
const BUCKET: &str = "cold";
/// Added to the way of every request.
const LATENCY: Duration = Duration::from_millis(20);
/// Plain GETs: how many at a time, and how many bytes each. The best of them is 100 %.
const GETS: [(usize, u64); 3] = [(8, 1 << 20), (8, 4 << 20), (16, 1 << 20)];
/// Names the server (versitygw); `tests/run` installs one.
const SERVER: &str = "TOWLINE_S3_SERVER";

/// The server, ended when dropped.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(program: &str, data: &Path) -> Result<Server> {
        std::fs::create_dir_all(data.join(BUCKET))?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let process = Command::new(program)
            .args(["--port", &address, "--quiet", "--keep-alive", "posix"])
            .arg(data)
            .env("ROOT_ACCESS_KEY", std::env::var("AWS_ACCESS_KEY_ID")?)
            .env("ROOT_SECRET_KEY", std::env::var("AWS_SECRET_ACCESS_KEY")?)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let server = Server { process, address };
        let started = Instant::now();
        while std::net::TcpStream::connect(&server.address).is_err() {
            ensure!(
                started.elapsed() < Duration::from_secs(20),
                "{program} does not listen"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn measure(run: &mut Run) -> Result<()> {
    let Some(program) = std::env::var_os(SERVER).map(PathBuf::from) else {
        println!("s3 is left out: {SERVER} names no S3 server (tests/run installs one)\n");
        return Ok(());
    };
    let dir = run.scratch.fresh(GROUP)?;
    // In memory where there is such a directory: a server elsewhere does not share the log's device.
    let shared = Path::new("/dev/shm");
    let data = match shared.is_dir() {
        true => tempfile::tempdir_in(shared)?,
        false => tempfile::tempdir_in(&dir)?,
    };
    let server = Server::start(&program.to_string_lossy(), data.path())?;
    let turns = run.size(4, 2);
    // More than the cache in memory has room for: what is read in one turn is forgotten in the next.
    let bytes = run.size(512_u64 << 20, 256 << 20);
    let template = Template::kib64()?;
    let (mut raws, mut rates, mut best) = (Vec::new(), Vec::new(), (0, 0));
    let (kernel, partitions) = run.runtime.block_on(async {
        let near = delay::proxy(server.address.clone(), Duration::ZERO).await?;
        let far = delay::proxy(server.address.clone(), LATENCY).await?;
        let open = |through: &str| {
            let url = format!("s3://{BUCKET}/bench?endpoint=http://{through}&region=us-east-1");
            cold_store::open(&url, Patience::default())
        };
        let config = KernelConfig {
            segment_bytes: 32 << 20,
            tail_bytes: 1 << 20,
            cold_cache_disk_bytes: 0,
            ..KernelConfig::default()
        };
        let hot = dir.join("hot");
        let partitions;
        {
            let ports = Ports::system(&hot, open(&near)?)?;
            let kernel = Kernel::open(ports, config.clone())?;
            partitions = load::stream(&kernel, "bench", 4, &[]).await?;
            let batches = bytes / template.len();
            load::produce(&kernel, &partitions, &template, PRODUCERS, batches).await?;
            kernel.seal_all().await?;
            kernel.shutdown().await;
        }
        let cold = open(&far)?;
        let kernel = Kernel::open(Ports::system(&hot, cold.clone())?, config.clone())?;
        let log = kernel.stats().cold_log.context("nothing was sealed")?;
        let objects = cold.list(&format!("{log}/segments/")).await?;
        for _ in 0..turns {
            let mut fastest = 0.0;
            for gets in GETS {
                let start = Instant::now();
                let mut read = 0;
                for object in &objects {
                    read += get_all(&cold, &object.key, object.bytes, gets).await?;
                }
                let rate = mb_per_s(read, start.elapsed());
                if rate > fastest {
                    (fastest, best) = (rate, gets);
                }
            }
            raws.push(fastest);
            rates.push(catch_up(&kernel, &partitions, bytes).await?);
        }
        kernel.shutdown().await;
        drop(kernel);
        // Parts are kept on the disk now, which is the log's; fewer than there are, so that they are fetched and written all the time.
        let config = KernelConfig {
            cold_cache_disk_bytes: bytes / 2,
            ..config
        };
        let kernel = Kernel::open(Ports::system(&hot, open(&near)?)?, config)?;
        anyhow::Ok((kernel, partitions))
    })?;
    let ratios = rates.iter().zip(&raws).map(|(ours, raw)| ours / raw);
    let ratio = median(ratios.collect());
    run.add(
        Figure::new(
            GROUP,
            "catch-up read from S3, 20 ms away, one consumer",
            median(rates),
            "MB/s",
        )
        .against(
            format!("plain GETs, the best of 8 × 1 MiB, 8 × 4 MiB and 16 × 1 MiB at a time (last: {} × {} MiB)", best.0, best.1 >> 20),
            median(raws),
        )
        .ratio(ratio)
        .goal(Goal::RatioAtLeast(0.6))
        .note("versitygw on this machine; nothing cached"),
    );
    let what = "one record, one producer, beside a catch-up read from S3 that is cached on the log's device";
    let note = match shared.is_dir() {
        true => "the server is on this machine, its data in memory",
        false => "the server is on this machine, its data on the same device",
    };
    beside(run, GROUP, what, &kernel, &partitions, || Ok(()), note)
}

async fn catch_up(kernel: &Kernel, partitions: &[PartitionId], bytes: u64) -> Result<f64> {
    let start = Instant::now();
    let mut read = 0;
    for partition in partitions {
        read += read_cold(kernel, *partition, bytes / partitions.len() as u64).await?;
    }
    Ok(mb_per_s(read, start.elapsed()))
}

/// Reads an object with several requests at a time.
async fn get_all(
    cold: &Arc<dyn ColdStore>,
    key: &str,
    bytes: u64,
    (at_a_time, piece): (usize, u64),
) -> Result<u64> {
    let mut running: JoinSet<Result<Bytes, kernel::ports::cold::ColdError>> = JoinSet::new();
    let mut read = 0;
    for from in (0..bytes).step_by(usize::try_from(piece)?) {
        if running.len() >= at_a_time
            && let Some(done) = running.join_next().await
        {
            read += done??.len() as u64;
        }
        let (cold, key) = (cold.clone(), key.to_owned());
        running.spawn(async move { cold.get(&key, from..(from + piece).min(bytes)).await });
    }
    while let Some(done) = running.join_next().await {
        read += done??.len() as u64;
    }
    Ok(read)
}
