//! How long one durable append takes, against a raw write and fdatasync of the same bytes, in turns.

use std::time::{Duration, Instant};

use anyhow::Result;
use kernel::SequenceRule;

use crate::device::{Layout, RawFile};
use crate::figure::{Figure, Goal};
use crate::load::{self, Template};
use crate::run::Run;
use crate::timing::Times;

/// Bytes around a batch of one append in the WAL, about.
const FRAME: usize = 80;
/// Producers that write at the same time.
const MANY: usize = 64;

pub fn measure(run: &mut Run) -> Result<()> {
    const GROUP: &str = "durable";
    let rounds = run.size(8, 2);
    let turns = run.size(400, 150);
    let burst = Duration::from_millis(run.size(600, 250));
    let template = Template::one()?;
    let dir = run.scratch.fresh(GROUP)?;
    let kernel = load::open(&dir.join("ours"), |_| {})?;
    let runtime = &run.runtime;
    let partitions = runtime.block_on(load::stream(&kernel, "bench", 64, &[]))?;
    let mut raw = RawFile::new(&dir, Layout::Recycled)?;
    let block = [template.bytes(), &[0; FRAME]].concat();
    let (mut device, mut one, mut many) = (Times::default(), Times::default(), Times::default());
    let (mut one_time, mut many_time) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..rounds {
        runtime.block_on(async {
            for _ in 0..turns {
                device.add(raw.write_synced(&block)?);
                let batch = template.batch()?;
                let start = Instant::now();
                kernel
                    .append(partitions[0], batch, SequenceRule::None)
                    .await?;
                one.add(start.elapsed());
            }
            anyhow::Ok(())
        })?;
        // The rate of one producer is taken without the raw writes between.
        runtime.block_on(async {
            let start = Instant::now();
            for _ in 0..turns {
                kernel
                    .append(partitions[0], template.batch()?, SequenceRule::None)
                    .await?;
            }
            one_time += start.elapsed();
            anyhow::Ok(())
        })?;
        runtime.block_on(async {
            let start = Instant::now();
            let producers: Vec<_> = (0..MANY)
                .map(|producer| {
                    let (kernel, template) = (kernel.clone(), template.clone());
                    let partition = partitions[producer % partitions.len()];
                    tokio::spawn(async move {
                        let mut times = Times::default();
                        while start.elapsed() < burst {
                            let batch = template.batch()?;
                            let begin = Instant::now();
                            kernel.append(partition, batch, SequenceRule::None).await?;
                            times.add(begin.elapsed());
                        }
                        anyhow::Ok(times)
                    })
                })
                .collect();
            for producer in producers {
                many.merge(&producer.await??);
            }
            many_time += start.elapsed();
            anyhow::Ok(())
        })?;
    }
    drop(kernel);
    let device = device.latency();
    let one_rate = (rounds * turns) as f64 / one_time.as_secs_f64();
    let many_rate = many.count() as f64 / many_time.as_secs_f64();
    let raw_name = "write + fdatasync of the same bytes, recycled file, in turns";
    run.add(Figure::p99(
        GROUP,
        "the device's own write + fdatasync, 1 KiB",
        device,
    ));
    run.add(
        Figure::p99(GROUP, "one record, one producer", one.latency())
            .against(raw_name, device.p99_us)
            .goal(Goal::RatioAtMost(1.5)),
    );
    run.add(
        Figure::p99(GROUP, "one record, 64 producers", many.latency())
            .against(raw_name, device.p99_us)
            .goal(Goal::RatioAtMost(3.0)),
    );
    run.add(Figure::new(
        GROUP,
        "one record, one producer",
        one_rate,
        "appends/s",
    ));
    run.add(
        Figure::new(GROUP, "one record, 64 producers", many_rate, "appends/s")
            .against("one producer", one_rate)
            .goal(Goal::RatioAtLeast(30.0)),
    );
    Ok(())
}
