//! Opening after a stop without a checkpoint: the whole log is read, checked and applied.

use anyhow::Result;

use super::append::PRODUCERS;
use crate::device;
use crate::figure::{Figure, Goal};
use crate::load::{self, Template};
use crate::run::Run;
use crate::timing::{mb_per_s, timed};

/// The default bound of the log, in bytes: what must be recovered in time.
const FULL_LOG: f64 = 4.0 * 1024.0 * 1024.0 * 1024.0;

pub fn measure(run: &mut Run) -> Result<()> {
    let bytes = run.size(1_u64 << 30, 256 << 20);
    recover(run, "64 KiB batches", &Template::kib64()?, bytes)?;
    recover(
        run,
        "batches of one 1 KiB record",
        &Template::one()?,
        bytes / 4,
    )
}

fn recover(run: &mut Run, what: &str, template: &Template, bytes: u64) -> Result<()> {
    const GROUP: &str = "recovery";
    let dir = run.scratch.fresh(GROUP)?;
    let written = {
        let kernel = load::open(&dir, |config| config.tail_bytes = 64 << 20)?;
        run.runtime.block_on(async {
            let partitions = load::stream(&kernel, "bench", 16, &[]).await?;
            let batches = bytes / template.len();
            load::produce(&kernel, &partitions, template, PRODUCERS, batches).await
        })?;
        kernel.stats().wal_bytes_written
    };
    device::drop_cached(&dir)?;
    let (read, raw) = device::read_all(&dir, 1 << 20)?;
    device::drop_cached(&dir)?;
    // Of a full log only the end is kept in memory, which costs more than reading: the same share here, else all of it would be.
    let share = written as f64 / FULL_LOG;
    let (kernel, time) = timed(|| {
        load::open(&dir, |config| {
            config.tail_bytes = (config.tail_bytes as f64 * share) as usize;
        })
    });
    let recovered = kernel?.stats().recovered_entries;
    // Files are allocated in full: what was written is less.
    let rate = mb_per_s(written, time);
    run.add(
        Figure::new(
            GROUP,
            format!("a full log of 4 GiB, {what}"),
            FULL_LOG / 1e6 / rate,
            "s",
        )
        .goal(Goal::AtMost(5.0))
        .note(format!(
            "from {} MiB, {recovered} entries in {:.2} s, not in the page cache",
            written >> 20,
            time.as_secs_f64()
        )),
    );
    run.add(
        Figure::new(GROUP, format!("recovery, {what}"), rate, "MB/s")
            .against("sequential read of the same files", mb_per_s(read, raw)),
    );
    Ok(())
}
