//! Looking for a time: the first record that is as late.

use kernel::{Kernel, PartitionId, ReadError};
use rand::{RngExt, rngs::StdRng};
use record::Batch;

/// Times that are looked for in one partition.
const TIMES: usize = 3;

/// What the kernel says about a time.
pub struct Sought {
    timestamp: i64,
    found: Result<Option<(i64, i64)>, ReadError>,
}

/// Looks for times around those of the records.
pub async fn seek(
    kernel: &Kernel,
    partition: PartitionId,
    batches: &[Batch],
    rng: &mut StdRng,
) -> Vec<Sought> {
    let mut sought = Vec::new();
    for _ in 0..TIMES.min(batches.len()) {
        let near = batches[rng.random_range(0..batches.len())].max_timestamp();
        let timestamp = near + rng.random_range(-2..=2);
        let found = kernel.offset_for_timestamp(partition, timestamp).await;
        sought.push(Sought { timestamp, found });
    }
    sought
}

impl Sought {
    /// Compares with what was read of the partition, from the log start on.
    pub fn check(&self, log_start: i64, batches: &[Batch], damaged: bool) -> Result<(), String> {
        let mut first = None;
        'batches: for batch in batches {
            for record in batch.records().map_err(|error| error.to_string())? {
                let record = record.map_err(|error| error.to_string())?;
                if record.offset >= log_start && record.timestamp >= self.timestamp {
                    first = Some((record.offset, record.timestamp));
                    break 'batches;
                }
            }
        }
        if self.found == Ok(first) {
            return Ok(());
        }
        if damaged && matches!(self.found, Err(ReadError::Corrupt { .. })) {
            return Ok(());
        }
        Err(format!(
            "the first record at {} or later is {first:?}, not {:?}",
            self.timestamp, self.found
        ))
    }
}
