//! Ten thousand partitions: opening them, and how long a checkpoint keeps the writer from writing.

use anyhow::Result;

use super::append::PRODUCERS;
use crate::figure::{Figure, Goal};
use crate::load::{self, Template};
use crate::run::Run;
use crate::timing::timed;

const STREAMS: u32 = 100;
const PARTITIONS: u32 = 100;

pub fn measure(run: &mut Run) -> Result<()> {
    const GROUP: &str = "partitions";
    let dir = run.scratch.fresh(GROUP)?;
    let template = Template::one()?;
    for (orderly, how) in [(true, "after an orderly stop"), (false, "after a crash")] {
        let kernel = load::open(&dir, |_| {})?;
        let (made, time) = timed(|| {
            run.runtime.block_on(async {
                let mut all = Vec::new();
                for stream in 0..STREAMS {
                    let name = format!("{how}-{stream}").replace(' ', "-");
                    all.extend(load::stream(&kernel, &name, PARTITIONS, &[]).await?);
                }
                anyhow::Ok(all)
            })
        });
        let made = made?;
        if orderly {
            run.add(Figure::new(
                GROUP,
                "10,000 partitions in 100 streams: created",
                time.as_secs_f64() * 1e3,
                "ms",
            ));
        }
        run.runtime.block_on(async {
            for partitions in made.chunks(PRODUCERS.count) {
                load::produce(&kernel, partitions, &template, PRODUCERS, 4).await?;
            }
            if orderly {
                kernel.shutdown().await;
            }
            anyhow::Ok(())
        })?;
        drop(kernel);
        let (kernel, time) = timed(|| load::open(&dir, |_| {}));
        let open = kernel?.stats().partitions;
        run.add(
            Figure::new(
                GROUP,
                format!("{open} partitions, each with a record: opened {how}"),
                time.as_secs_f64() * 1e3,
                "ms",
            )
            .goal(Goal::AtMost(2000.0)),
        );
        if orderly {
            std::fs::remove_dir_all(&dir)?;
        }
    }
    pauses(run, GROUP)
}

/// Batches in the index of what is not sealed.
const HOT: u64 = 100_000;

fn pauses(run: &mut Run, group: &'static str) -> Result<()> {
    let template = Template::new(1, 16)?;
    for (streams, batches) in [(STREAMS, 1), (1, HOT), (STREAMS, HOT)] {
        let dir = run.scratch.fresh(group)?;
        let kernel = load::open(&dir, |config| {
            // Each call of `maintain` after so much makes one; nothing is sealed.
            config.checkpoint_wal_bytes = 1 << 20;
            config.segment_bytes = 1 << 30;
        })?;
        let (mut worst, mut partitions) = (0_f64, 0);
        run.runtime.block_on(async {
            let mut all = Vec::new();
            for stream in 0..streams {
                all.extend(load::stream(&kernel, &format!("s{stream}"), PARTITIONS, &[]).await?);
            }
            partitions = all.len();
            // A record in each, so that none is empty, and the rest in the first ones.
            for some in all.chunks(PRODUCERS.count) {
                load::produce(&kernel, some, &template, PRODUCERS, some.len() as u64).await?;
            }
            load::produce(&kernel, &all, &template, PRODUCERS, batches).await?;
            for _ in 0..5 {
                let made = kernel.stats().checkpoints;
                while kernel.stats().checkpoints == made {
                    load::produce(&kernel, &all, &template, PRODUCERS, 2000).await?;
                    kernel.maintain().await;
                }
            }
            worst = kernel.stats().checkpoint_pause.as_secs_f64() * 1e3;
            kernel.shutdown().await;
            anyhow::Ok(())
        })?;
        run.add(Figure::new(
            group,
            format!("longest pause of the writer for a checkpoint: {partitions} partitions, {batches} batches not sealed"),
            worst,
            "ms",
        ));
        drop(kernel);
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(())
}
