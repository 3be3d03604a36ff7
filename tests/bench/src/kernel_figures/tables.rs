//! A table of a million small values: writing it, and having it again after a crash and after an orderly stop.

use anyhow::{Result, ensure};
use bytes::Bytes;
use kernel::Entry;

use crate::figure::{Figure, Goal};
use crate::load;
use crate::run::Run;
use crate::timing::timed;

/// Values in one entry.
const TOGETHER: u64 = 100;
/// Bytes of a value.
const VALUE: usize = 64;

fn key(number: u64) -> Bytes {
    // Spread, as client ids are.
    Bytes::from(format!(
        "{:016x}",
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    ))
}

pub fn measure(run: &mut Run) -> Result<()> {
    const GROUP: &str = "tables";
    let values = run.size(1_000_000, 200_000);
    let dir = run.scratch.fresh(GROUP)?;
    let kernel = load::open(&dir, |_| {})?;
    let value = Bytes::from(crate::device::noise(VALUE));
    let (written, time) = timed(|| {
        run.runtime.block_on(async {
            let mut waiting = std::collections::VecDeque::new();
            for first in (0..values).step_by(TOGETHER as usize) {
                let entry = (first..first + TOGETHER).fold(Entry::new(), |entry, number| {
                    entry.put("bench", key(number), value.clone())
                });
                if waiting.len() >= 64
                    && let Some(oldest) = waiting.pop_front()
                {
                    wait(oldest).await?;
                }
                waiting.push_back(kernel.write(entry));
            }
            for rest in waiting {
                wait(rest).await?;
            }
            anyhow::Ok(())
        })
    });
    written?;
    run.add(
        Figure::new(
            GROUP,
            format!("{values} values of {VALUE} bytes: written durably"),
            time.as_secs_f64(),
            "s",
        )
        .note(format!(
            "{:.0} values/s, {TOGETHER} in an entry",
            values as f64 / time.as_secs_f64()
        )),
    );
    drop(kernel);
    for how in ["a crash", "an orderly stop"] {
        let (kernel, time) = timed(|| load::open(&dir, |_| {}));
        let kernel = kernel?;
        ensure!(
            kernel.table_get("bench", &key(values - 1)).as_ref() == Some(&value),
            "a value is lost"
        );
        run.add(
            Figure::new(
                GROUP,
                format!("{values} values: opened after {how}"),
                time.as_secs_f64(),
                "s",
            )
            .goal(Goal::AtMost(5.0)),
        );
        run.runtime.block_on(kernel.shutdown());
    }
    Ok(())
}

async fn wait<F>(write: F) -> Result<()>
where
    F: Future<Output = Result<Vec<kernel::Outcome>, kernel::WriteError>>,
{
    write.await?;
    Ok(())
}
