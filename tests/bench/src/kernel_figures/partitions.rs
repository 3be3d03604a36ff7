//! Ten thousand partitions: opening them.

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
    Ok(())
}
