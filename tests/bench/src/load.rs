//! Kernels to measure, and producers.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use kernel::ports::MemoryColdStore;
use kernel::{Kernel, KernelConfig, PartitionId, Ports, SequenceRule, StreamSpec};
use record::{Batch, BatchBuilder, Namespace, NewRecord, StreamAddress, StreamName};

use crate::device::noise;

/// A batch as it comes from the network: every use gets bytes of its own, checked like those of a client.
#[derive(Debug, Clone)]
pub struct Template {
    bytes: Vec<u8>,
    /// Records in it.
    pub records: u64,
}

impl Template {
    /// A batch of `records` records with values of `value` bytes each.
    pub fn new(records: usize, value: usize) -> Result<Template> {
        let mut builder = BatchBuilder::new();
        let values = noise(records * value);
        for value in values.chunks(value.max(1)) {
            builder.push(&NewRecord {
                timestamp: 1_760_000_000_000,
                key: None,
                value: Some(Bytes::copy_from_slice(value)),
                headers: Vec::new(),
            })?;
        }
        Ok(Template {
            bytes: builder.build()?.into_bytes().to_vec(),
            records: records as u64,
        })
    }

    /// Records of 1 KiB, together just below 64 KiB.
    pub fn kib64() -> Result<Template> {
        Template::new(63, 1024)
    }

    /// One record of 1 KiB.
    pub fn one() -> Result<Template> {
        Template::new(1, 1024)
    }

    /// A copy stands for the read from the socket; its checksum is verified, as front ends do.
    pub fn batch(&self) -> Result<Batch> {
        Ok(Batch::parse(Bytes::from(self.bytes.clone()))?)
    }

    /// Bytes of the batch.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of the batch.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Never: a batch has a header.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Opens a kernel below `dir`.
pub fn open(dir: &Path, change: impl FnOnce(&mut KernelConfig)) -> Result<Kernel> {
    let ports = Ports::system(dir, Arc::new(MemoryColdStore::default()))?;
    let mut config = KernelConfig::default();
    change(&mut config);
    Kernel::open(ports, config).context("cannot open the kernel")
}

/// A stream name in the default namespace.
pub fn address(name: &str) -> Result<StreamAddress> {
    Ok(StreamAddress::new(
        Namespace::default(),
        StreamName::new(name)?,
    ))
}

/// Makes a stream; its partitions.
pub async fn stream(
    kernel: &Kernel,
    name: &str,
    partitions: u32,
    config: &[(&str, &str)],
) -> Result<Vec<PartitionId>> {
    let spec = StreamSpec {
        partitions,
        config: config
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    };
    let stream = kernel.create_stream(&address(name)?, spec).await?;
    Ok(stream.partition_ids().collect())
}

/// How many write at the same time, and how much each has on its way.
#[derive(Debug, Clone, Copy)]
pub struct Producers {
    pub count: usize,
    /// Batches that a producer sends before it waits for the oldest.
    pub window: usize,
}

/// Appends `batches` batches; how long until the last was acknowledged.
pub async fn produce(
    kernel: &Kernel,
    partitions: &[PartitionId],
    template: &Template,
    producers: Producers,
    batches: u64,
) -> Result<Duration> {
    let template = Arc::new(template.clone());
    let start = Instant::now();
    let mut running = Vec::new();
    for producer in 0..producers.count {
        let share = batches / producers.count as u64
            + u64::from((producer as u64) < batches % producers.count as u64);
        let partition = *partitions
            .get(producer % partitions.len())
            .context("no partition")?;
        let (kernel, template) = (kernel.clone(), template.clone());
        running.push(tokio::spawn(async move {
            let mut waiting = VecDeque::with_capacity(producers.window);
            for _ in 0..share {
                if waiting.len() >= producers.window
                    && let Some(oldest) = waiting.pop_front()
                {
                    acknowledged(oldest).await?;
                }
                waiting.push_back(kernel.append(partition, template.batch()?, SequenceRule::None));
            }
            for rest in waiting {
                acknowledged(rest).await?;
            }
            anyhow::Ok(())
        }));
    }
    for producer in running {
        producer.await??;
    }
    Ok(start.elapsed())
}

async fn acknowledged<F>(append: F) -> Result<()>
where
    F: Future<Output = Result<kernel::Appended, kernel::AppendError>>,
{
    append.await?;
    Ok(())
}

/// Bytes that the kernel writes with one fdatasync, on average, while something runs.
pub fn bytes_a_sync<T>(kernel: &Kernel, run: impl FnOnce() -> Result<T>) -> Result<u64> {
    let before = kernel.stats();
    run()?;
    let after = kernel.stats();
    let bytes = after.wal_bytes_written - before.wal_bytes_written;
    Ok(bytes / (after.fsyncs - before.fsyncs).max(1))
}

/// Retention, checkpoints and the files of the log, as a server tends to them; never ends.
pub async fn maintain(kernel: Kernel, pause: Duration) {
    loop {
        kernel.maintain().await;
        tokio::time::sleep(pause).await;
    }
}
