//! Writing the segment that takes the place of others.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use record::Retained;

use super::filter::{Filter, Left};
use super::plan::Group;
use super::{Job, Trouble, damaged};
use crate::cold::InFlight;
use crate::kernel::Kernel;
use crate::ports::cold::Upload;
use crate::segment::{Compacted, PartHead, SegmentMeta, SegmentWriter};
use crate::stream::PartitionId;

/// What compaction says of the parts that were written, by partition and first offset.
type Marks = BTreeMap<(PartitionId, i64), Compacted>;

impl Kernel {
    /// Writes what is left of the jobs' ranges, or that nothing is.
    pub(super) async fn write_segment(
        &self,
        flight: &InFlight,
        jobs: &[Job],
    ) -> Result<SegmentMeta, Trouble> {
        let key = flight.id.key(flight.log);
        let mut upload = self.core.ports.cold.upload(&key).await?;
        match self.fill(flight, jobs, &mut *upload).await {
            Ok(meta) => Ok(meta),
            Err(trouble) => {
                // What the store still holds of it is its own to clean up, should this fail.
                drop(upload.abort().await);
                Err(trouble)
            }
        }
    }

    async fn fill(
        &self,
        flight: &InFlight,
        jobs: &[Job],
        upload: &mut dyn Upload,
    ) -> Result<SegmentMeta, Trouble> {
        let mut writer = SegmentWriter::new(flight.id, flight.log);
        let mut marks = Marks::new();
        for job in jobs {
            for group in &job.groups {
                let compacted = self.write_group(&mut writer, job, group, upload).await?;
                marks.insert((job.partition.id, group.base_offset()), compacted);
            }
        }
        let (last, mut meta) = writer.finish();
        upload.part(last).await?;
        upload.finish().await?;
        // It is worn now, whatever the log says about it.
        self.core
            .cold
            .rewritten_bytes
            .fetch_add(meta.bytes, Ordering::Relaxed);
        for part in &mut meta.parts {
            if let Some(compacted) = marks.get(&(part.partition, part.base_offset)) {
                part.compacted = *compacted;
            }
        }
        Ok(meta)
    }

    /// Writes a part; returns what compaction says of it.
    async fn write_group(
        &self,
        writer: &mut SegmentWriter,
        job: &Job,
        group: &Group,
        upload: &mut dyn Upload,
    ) -> Result<Compacted, Trouble> {
        let partition = &job.partition;
        let first_index = group.pieces.first().map_or(0, |p| p.range.first_index);
        writer.begin_part(PartHead::new(
            &job.stream,
            partition.id.partition,
            group.base_offset(),
            first_index,
        ));
        let mut left = Left::default();
        for piece in &group.pieces {
            let filter = job.newest.as_ref().map(|newest| Filter {
                newest,
                aborted: &job.aborted,
                drop_tombstones: piece.drop_tombstones,
                last: job.last,
            });
            let mut offset = piece.from;
            'piece: while let Some(batches) =
                self.next_batches(partition, &piece.range, offset).await?
            {
                for batch in batches {
                    if batch.base_offset() >= piece.to {
                        break 'piece;
                    }
                    offset = batch.next_offset();
                    let retained = match &filter {
                        None => Retained::All,
                        Some(filter) => filter
                            .apply(&batch, &mut left)
                            .map_err(|error| damaged(partition.id, &piece.range, &batch, &error))?,
                    };
                    match retained {
                        Retained::All => writer.push(&batch),
                        Retained::Some(batch) => writer.push(&batch),
                        Retained::None => {}
                    }
                }
                while let Some(part) = writer.take_upload() {
                    upload.part(part).await?;
                }
            }
        }
        let (from, to) = (group.base_offset(), group.next_offset());
        let aborted = job.aborted.iter();
        let aborted = aborted.filter(|t| t.first_offset < to && t.last_offset >= from);
        writer.end_replacing(to, aborted.copied().collect());
        Ok(match group.compacted {
            Compacted::Since(_) if job.newest.is_some() && !left.tombstones => Compacted::Wholly,
            // The last record of the log is a deletion and stayed for that. It will not be the last for ever.
            Compacted::Wholly if left.tombstones => {
                Compacted::Since(self.core.ports.clock.now_ms())
            }
            compacted => compacted,
        })
    }
}
