//! Append bandwidth: synced, against raw writes of the same size; into the page cache, against plain `write`.

use std::time::Duration;

use anyhow::{Context, Result};

use super::wear;
use crate::device::{CopyTarget, Layout, RawFile, WriteCounter};
use crate::figure::{Figure, Goal, number};
use crate::load::{self, Producers, Template};
use crate::run::Run;
use crate::timing::{cpu_time, mb_per_s, median};

const GROUP: &str = "append";

/// A few producers, together with 4 MiB on their way.
pub const PRODUCERS: Producers = Producers {
    count: 4,
    window: 16,
};

/// Sizes of raw writes that are reported whatever sizes ours has.
const SIZES: [usize; 4] = [64 << 10, 256 << 10, 1 << 20, 4 << 20];

/// A tail that is full soon.
const TAIL: usize = 64 << 20;

/// The turns of one kind of raw write.
struct RawTurns {
    layout: Layout,
    size: usize,
    mb_per_s: Vec<f64>,
}

impl RawTurns {
    fn name(&self) -> String {
        format!(
            "write + fdatasync, {} KiB, {}",
            self.size >> 10,
            self.layout.name()
        )
    }

    fn median(&self) -> f64 {
        median(self.mb_per_s.clone())
    }
}

/// Before sealing starts: everything goes to blocks that were never written before.
pub fn measure(run: &mut Run) -> Result<()> {
    let turns = run.size(8, 3);
    let bytes = run.size(96_u64 << 20, 32 << 20);
    let template = Template::kib64()?;
    let batches = bytes / template.len();
    let dir = run.scratch.fresh(GROUP)?;
    let device = WriteCounter::of(&dir)?;
    // No checkpoint and no seal comes into it: nothing but the log is measured here.
    let kernel = load::open(&dir.join("ours"), |config| config.tail_bytes = TAIL)?;
    let runtime = &run.runtime;
    let partitions = runtime.block_on(load::stream(&kernel, "bench", 4, &[]))?;
    let produce = |batches| {
        let all = load::produce(&kernel, &partitions, &template, PRODUCERS, batches);
        runtime.block_on(all)
    };
    produce(2 * TAIL as u64 / template.len())?;
    let group = load::bytes_a_sync(&kernel, || produce(batches / 2))?;
    let same = usize::try_from(group)?.next_multiple_of(4096);
    let mut files = Vec::new();
    let mut raws = Vec::new();
    for layout in Layout::ALL {
        files.push(RawFile::new(&dir, layout)?);
        raws.extend(SIZES.into_iter().chain([same]).map(|size| RawTurns {
            layout,
            size,
            mb_per_s: Vec::new(),
        }));
    }
    let mut rates = Vec::new();
    let (mut written, mut spent) = (0, Duration::ZERO);
    let mean_group = load::bytes_a_sync(&kernel, || {
        for turn in 0..turns {
            for raw in &mut raws {
                // The other sizes are only for the table.
                if raw.size != same && turn > 2 {
                    continue;
                }
                let total = if raw.size == same { bytes } else { bytes / 3 };
                let file = Layout::ALL.iter().position(|layout| *layout == raw.layout);
                let file = file
                    .and_then(|file| files.get_mut(file))
                    .context("no file")?;
                let time = file.sequential(raw.size, total)?;
                let total = total.next_multiple_of(raw.size as u64);
                raw.mb_per_s.push(mb_per_s(total, time));
            }
            let (io, cpu) = (device.bytes()?, cpu_time());
            let time = produce(batches)?;
            written += device.bytes()? - io;
            spent += cpu_time() - cpu;
            rates.push(mb_per_s(batches * template.len(), time));
        }
        Ok(())
    })?;
    drop(kernel);
    let appended = turns * batches * template.len();
    for raw in raws.iter().filter(|raw| raw.size != same) {
        run.add(Figure::new(GROUP, raw.name(), raw.median(), "MB/s"));
    }
    let note = format!(
        "{} producers, {} batches each on their way; on average {} KiB a sync; {} GB per second on the CPU",
        PRODUCERS.count,
        PRODUCERS.window,
        mean_group >> 10,
        number(appended as f64 / 1e9 / spent.as_secs_f64()),
    );
    let against = |raw: &RawTurns, what: &str| {
        let ratios = rates
            .iter()
            .zip(&raw.mb_per_s)
            .map(|(ours, raw)| ours / raw);
        Figure::new(GROUP, what, median(rates.clone()), "MB/s")
            .against(raw.name(), raw.median())
            .ratio(median(ratios.collect()))
    };
    let what = "1 KiB records in 64 KiB batches, quorum+fsync, before sealing";
    let (recycled, new): (Vec<_>, Vec<_>) = raws
        .iter()
        .filter(|raw| raw.size == same)
        .partition(|raw| raw.layout == Layout::Recycled);
    // 100 % is the better of the two ways to write to new blocks.
    if let Some(best) = new.iter().max_by(|a, b| a.median().total_cmp(&b.median())) {
        let goal = Goal::RatioAtLeast(0.8);
        run.add(against(best, what).goal(goal).note(note));
    }
    if let Some(recycled) = recycled.first() {
        run.add(against(
            recycled,
            "the same, against blocks that were written before",
        ));
    }
    run.add(wear(GROUP, "before sealing", written, appended, &device).goal(Goal::AtMost(1.1)));
    Ok(())
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
    // A small log whose files are used over and over, as those of a full one are.
    let kernel = load::open(&dir.join("ours"), |config| {
        config.tail_bytes = TAIL;
        config.wal_file_bytes = 16 << 20;
        config.checkpoint_wal_bytes = 32 << 20;
    })?;
    let runtime = &run.runtime;
    let keep = (16 << 20).to_string();
    let settings = [("durability", "quorum"), ("retention.bytes", &keep)];
    let partitions = runtime.block_on(load::stream(&kernel, "bench", 4, &settings))?;
    let tending = runtime.spawn(load::maintain(kernel.clone(), Duration::from_millis(30)));
    let mut raw = RawFile::new(&dir, Layout::Recycled)?;
    // Until the tail is full every batch costs fresh memory, too: that is not the state it lives in.
    let full = 4 * TAIL as u64 / template.len();
    let first = load::produce(&kernel, &partitions, &template, PRODUCERS, full);
    runtime.block_on(first)?;
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
    tending.abort();
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
