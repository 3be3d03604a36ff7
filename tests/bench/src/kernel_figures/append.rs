//! Append bandwidth: synced, against raw writes of the same size; into the page cache, against plain `write`.

use std::time::Duration;

use anyhow::Result;

use crate::device::{self, CopyTarget, Layout, RawFile};
use crate::figure::{Figure, Goal, number};
use crate::load::{self, Producers, Template};
use crate::run::Run;
use crate::timing::{cpu_time, mb_per_s, median};

/// A few producers, each with a few batches on its way.
pub const PRODUCERS: Producers = Producers {
    count: 4,
    window: 16,
};

/// Sizes of raw writes that are reported whatever sizes ours has.
const SIZES: [usize; 4] = [64 << 10, 256 << 10, 1 << 20, 4 << 20];

/// A tail that is full soon.
const TAIL: usize = 64 << 20;

/// One turn of a raw write size.
struct RawTurns {
    layout: Layout,
    size: usize,
    mb_per_s: Vec<f64>,
}

/// Before sealing starts.
pub fn measure(run: &mut Run) -> Result<()> {
    const GROUP: &str = "append";
    let turns = run.size(8, 3);
    let bytes = run.size(96_u64 << 20, 32 << 20);
    let template = Template::kib64()?;
    let batches = bytes / template.len();
    let dir = run.scratch.fresh(GROUP)?;
    // No checkpoint and no seal comes into it: nothing but the log is measured here.
    let kernel = load::open(&dir.join("ours"), |config| config.tail_bytes = TAIL)?;
    let runtime = &run.runtime;
    let partitions = runtime.block_on(load::stream(&kernel, "bench", 4, &[]))?;
    let produce = |batches| {
        runtime.block_on(load::produce(
            &kernel,
            &partitions,
            &template,
            PRODUCERS,
            batches,
        ))
    };
    produce(2 * TAIL as u64 / template.len())?;
    let group = {
        let before = kernel.stats();
        produce(batches / 2)?;
        let after = kernel.stats();
        (after.wal_bytes_written - before.wal_bytes_written) / (after.fsyncs - before.fsyncs).max(1)
    };
    let same = (usize::try_from(group)?).next_multiple_of(4096);
    let mut files = [
        RawFile::new(&dir, Layout::Growing)?,
        RawFile::new(&dir, Layout::Recycled)?,
    ];
    let mut raws: Vec<RawTurns> = [Layout::Growing, Layout::Recycled]
        .into_iter()
        .flat_map(|layout| {
            SIZES.into_iter().chain([same]).map(move |size| RawTurns {
                layout,
                size,
                mb_per_s: Vec::new(),
            })
        })
        .collect();
    let mut ours = Vec::new();
    let before = (kernel.stats(), device::bytes_written()?, cpu_time());
    let (mut written, mut spent) = (0, Duration::ZERO);
    for _ in 0..turns {
        for raw in &mut raws {
            let file = &mut files[usize::from(raw.layout == Layout::Recycled)];
            let total = if raw.size == same { bytes } else { bytes / 3 };
            let time = file.sequential(raw.size, total)?;
            raw.mb_per_s
                .push(mb_per_s(total.next_multiple_of(raw.size as u64), time));
        }
        let (io, cpu) = (device::bytes_written()?, cpu_time());
        let time = produce(batches)?;
        written += device::bytes_written()? - io;
        spent += cpu_time() - cpu;
        ours.push(mb_per_s(batches * template.len(), time));
    }
    let after = kernel.stats();
    drop(kernel);
    let mean_group = (after.wal_bytes_written - before.0.wal_bytes_written)
        / (after.fsyncs - before.0.fsyncs).max(1);
    let appended = turns * batches * template.len();

    for raw in &raws {
        if raw.size != same {
            let what = format!(
                "raw write + fdatasync, {} KiB, {}",
                raw.size >> 10,
                layout_name(raw.layout)
            );
            run.add(Figure::new(
                GROUP,
                what,
                median(raw.mb_per_s.clone()),
                "MB/s",
            ));
        }
    }
    // 100 % is the better of the two ways to write a file.
    let best = raws
        .iter()
        .filter(|raw| raw.size == same)
        .max_by(|a, b| median(a.mb_per_s.clone()).total_cmp(&median(b.mb_per_s.clone())));
    let Some(best) = best else { return Ok(()) };
    let ratios = ours
        .iter()
        .zip(&best.mb_per_s)
        .map(|(ours, raw)| ours / raw);
    run.add(
        Figure::new(
            GROUP,
            "1 KiB records in 64 KiB batches, quorum+fsync, before sealing",
            median(ours.clone()),
            "MB/s",
        )
        .against(
            format!("write + fdatasync, {} KiB, {}", best.size >> 10, layout_name(best.layout)),
            median(best.mb_per_s.clone()),
        )
        .ratio(median(ratios.collect()))
        .goal(Goal::RatioAtLeast(0.8))
        .note(format!(
            "{} producers, {} batches each on their way; on average {} KiB a sync; {} GB per second on the CPU",
            PRODUCERS.count,
            PRODUCERS.window,
            mean_group >> 10,
            number(appended as f64 / 1e9 / spent.as_secs_f64()),
        )),
    );
    run.add(
        Figure::new(
            GROUP,
            "bytes written by bytes of batches appended, before sealing",
            written as f64 / appended as f64,
            "×",
        )
        .goal(Goal::AtMost(1.1))
        .note("write_bytes of /proc/self/io"),
    );
    Ok(())
}

fn layout_name(layout: Layout) -> &'static str {
    match layout {
        Layout::Growing => "growing file",
        Layout::Recycled => "recycled file",
    }
}

/// Class `quorum`: acknowledged from the page cache.
pub fn page_cache(run: &mut Run) -> Result<()> {
    const GROUP: &str = "page-cache";
    let turns = run.size(6, 2);
    let bytes = run.size(192_u64 << 20, 64 << 20);
    let template = Template::kib64()?;
    let batches = bytes / template.len();
    let size = template.len() as usize;
    let dir = run.scratch.fresh(GROUP)?;
    let kernel = load::open(&dir.join("ours"), |config| config.tail_bytes = TAIL)?;
    let runtime = &run.runtime;
    let partitions = runtime.block_on(load::stream(
        &kernel,
        "bench",
        4,
        &[("durability", "quorum")],
    ))?;
    let mut raw = RawFile::new(&dir, Layout::Recycled)?;
    // Until the tail is full every batch costs fresh memory, too: that is not the state it lives in.
    let full = 2 * TAIL as u64 / template.len();
    runtime.block_on(load::produce(
        &kernel,
        &partitions,
        &template,
        PRODUCERS,
        full,
    ))?;
    let mut target = CopyTarget::default();
    let (mut cached, mut copied, mut ours, mut wall) = (vec![], vec![], vec![], vec![]);
    let before = kernel.stats();
    for _ in 0..turns {
        cached.push(mb_per_s(bytes, raw.cached(size, bytes)?));
        copied.push(mb_per_s(bytes, target.copy(size, bytes)));
        let cpu = cpu_time();
        let time = runtime.block_on(load::produce(
            &kernel,
            &partitions,
            &template,
            PRODUCERS,
            batches,
        ))?;
        ours.push(mb_per_s(batches * template.len(), cpu_time() - cpu));
        wall.push(mb_per_s(batches * template.len(), time));
    }
    let after = kernel.stats();
    drop(kernel);
    let bound = median(cached.clone()).min(median(copied.clone()));
    let note = format!(
        "{} MB/s by the clock; {} syncs for {} batches",
        number(median(wall)),
        after.fsyncs - before.fsyncs,
        after.batches_appended - before.batches_appended
    );
    run.add(Figure::new(
        GROUP,
        "memory copy, 64 KiB",
        median(copied),
        "MB/s of a core",
    ));
    let ratios = ours.iter().zip(&cached).map(|(ours, raw)| ours / raw);
    let ratio = median(ratios.collect());
    run.add(
        Figure::new(
            GROUP,
            "64 KiB batches, quorum (page cache)",
            median(ours),
            "MB/s of a core",
        )
        .against("write of 64 KiB into the page cache", median(cached))
        .ratio(ratio)
        .goal(Goal::AtLeast(bound.min(1000.0)))
        .note(note),
    );
    Ok(())
}
