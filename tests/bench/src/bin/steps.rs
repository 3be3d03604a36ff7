//! One scenario, so many times, on one thread and on files in memory: for callgrind. See `bench::instructions`.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use anyhow::{Context as _, Result, bail, ensure};
use bench::load::{self, Template};
use bench::memory_disk;
use bytes::Bytes;
use kernel::{Kernel, KernelConfig, PartitionId, SequenceRule, Stepper, StreamSpec};
use record::{Batch, BatchBuilder, NewRecord};

struct Steps {
    kernel: Kernel,
    stepper: Stepper,
    partition: PartitionId,
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let name = args.next().context("which scenario?")?;
    let times: u64 = args.next().context("how many times?")?.parse()?;
    match name.as_str() {
        "append-one" => append(&Template::one()?, times, 1),
        "append-64k" => append(&Template::kib64()?, times, 1),
        "append-together" => append(&Template::one()?, times, 64),
        "append-sequence" => sequence(times),
        "fetch-one" => fetch(&Template::one()?, times, 1, 64 << 20),
        "fetch-1m" => fetch(&Template::kib64()?, times, 1 << 20, 64 << 20),
        "fetch-wal" => fetch(&Template::kib64()?, times, 1, 0),
        "wait" => wait(&Template::one()?, times),
        other => bail!("there is no scenario {other}"),
    }
}

impl Steps {
    fn new(tail_bytes: usize) -> Result<Steps> {
        let config = KernelConfig {
            tail_bytes,
            reader_threads: 0,
            ..KernelConfig::default()
        };
        let (kernel, mut stepper) = Kernel::open_stepped(memory_disk::ports(), config)?;
        let address = load::address("bench")?;
        let created = kernel.create_stream(&address, StreamSpec::default());
        let stream = drive(&mut stepper, created)??;
        Ok(Steps {
            partition: stream.id.partition(0),
            kernel,
            stepper,
        })
    }

    fn append(&mut self, batch: Batch, rule: SequenceRule) -> Result<()> {
        let append = self.kernel.append(self.partition, batch, rule);
        drive(&mut self.stepper, append)??;
        Ok(())
    }
}

fn poll<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Drives the writer until the future is done.
fn drive<F: Future>(stepper: &mut Stepper, future: F) -> Result<F::Output> {
    let mut future = pin!(future);
    loop {
        if let Some(output) = poll(future.as_mut()) {
            return Ok(output);
        }
        ensure!(stepper.step(), "it waits for something that never comes");
    }
}

/// Only the kernel's part is in it: the batches are made before, so they cost the same in both runs only by their number. Making one is a
/// copy and a checksum, and is in the figure.
fn append(template: &Template, times: u64, together: u64) -> Result<()> {
    let mut steps = Steps::new(1 << 20)?;
    for _ in 0..times / together {
        let mut group = Vec::new();
        for _ in 0..together {
            let batch = template.batch()?;
            group.push(
                steps
                    .kernel
                    .append(steps.partition, batch, SequenceRule::None),
            );
        }
        for append in group {
            drive(&mut steps.stepper, append)??;
        }
    }
    Ok(())
}

fn sequence(times: u64) -> Result<()> {
    let mut steps = Steps::new(1 << 20)?;
    let value = Bytes::from(bench::device::noise(1024));
    for sequence in 0..i32::try_from(times)? {
        let mut builder = BatchBuilder::new().producer(1, 0, sequence);
        builder.push(&NewRecord {
            timestamp: 1_760_000_000_000,
            key: None,
            value: Some(value.clone()),
            headers: Vec::new(),
        })?;
        steps.append(builder.build()?, SequenceRule::Window)?;
    }
    Ok(())
}

fn fetch(template: &Template, times: u64, max_bytes: usize, tail_bytes: usize) -> Result<()> {
    let mut steps = Steps::new(tail_bytes)?;
    let batches = 64;
    for _ in 0..batches {
        steps.append(template.batch()?, SequenceRule::None)?;
    }
    let step = i64::try_from(template.records)?;
    for time in 0..i64::try_from(times)? {
        let offset = time % (batches - 16) * step;
        let read = steps.kernel.read(steps.partition, offset, max_bytes);
        let read = drive(&mut steps.stepper, read)??;
        ensure!(!read.batches.is_empty(), "nothing was read");
    }
    Ok(())
}

fn wait(template: &Template, times: u64) -> Result<()> {
    let mut steps = Steps::new(1 << 20)?;
    for offset in 0..i64::try_from(times)? {
        let kernel = steps.kernel.clone();
        let position = [(steps.partition, offset)];
        let mut past = pin!(kernel.wait_past(&position));
        ensure!(poll(past.as_mut()).is_none(), "there is something already");
        steps.append(template.batch()?, SequenceRule::None)?;
        drive(&mut steps.stepper, past)?;
        let read = steps.kernel.read(steps.partition, offset, 1 << 20);
        let read = drive(&mut steps.stepper, read)??;
        ensure!(read.batches.len() == 1, "nothing was read");
    }
    Ok(())
}
