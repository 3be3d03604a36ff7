//! Reading the batches of a range from its segment.

use std::sync::Arc;

use record::Batch;

use super::{ChunkError, Located};
use crate::error::ReadError;
use crate::kernel::Core;
use crate::segment::{self, Footer, FooterPart, SegmentId};
use crate::state::cold::ColdRange;
use crate::stream::PartitionId;

/// Why a range gave no batches.
#[derive(Debug)]
pub(crate) enum ColdReadError {
    /// The segment is gone: replaced or trimmed meanwhile, if what the state says has changed; else somebody has taken it away.
    Gone(String),
    Failed(ReadError),
}

impl Core {
    /// Where a segment is; `None` when the state does not know it any more.
    pub fn locate(&self, id: SegmentId) -> Option<Located> {
        let cold = self.state.cold.lock();
        let segment = cold.segments.get(&id)?;
        Some(Located {
            log: cold.log?,
            id,
            bytes: segment.bytes,
            footer_bytes: segment.footer_bytes,
            footer_crc: segment.footer_crc,
        })
    }

    /// The first offset of the first chunk of a range, from `offset` on, that has a record with that timestamp (ms) or a later one; the
    /// range's end if there is none.
    pub async fn seek_cold(
        &self,
        partition: PartitionId,
        range: &ColdRange,
        offset: i64,
        timestamp: i64,
    ) -> Result<i64, ColdReadError> {
        let (_, footer) = self.footer_of(partition, range).await?;
        let part = footer.part_with(partition, range.base_offset);
        let found = part.and_then(|part| {
            let after = part.chunks.iter().skip(part.chunk_with(offset));
            let mut late = after.filter(|chunk| chunk.max_timestamp >= timestamp);
            late.next().map(|chunk| chunk.base_offset)
        });
        Ok(found.map_or(range.next_offset, |found| {
            found.clamp(offset, range.next_offset)
        }))
    }

    async fn footer_of(
        &self,
        partition: PartitionId,
        range: &ColdRange,
    ) -> Result<(Located, Arc<Footer>), ColdReadError> {
        let segment = self
            .locate(range.segment)
            .ok_or_else(|| ColdReadError::Gone(range.segment.to_string()))?;
        let footer = self.cold.chunks.footer(&segment).await;
        let footer = footer
            .map_err(|error| explain(partition, error, range.base_offset, range.next_offset - 1))?;
        Ok((segment, footer))
    }

    /// A reader that comes to the end of its range goes on in the next ones, in other segments: it shall not wait there.
    fn prefetch_after(&self, id: PartitionId, range: &ColdRange, part: &FooterPart, offset: i64) {
        let left = part.chunks.iter().skip(part.chunk_with(offset));
        let mut covered: u64 = left.map(|chunk| u64::from(chunk.length)).sum();
        let wanted = self.config.cold_readahead_bytes as u64;
        if covered >= wanted {
            return;
        }
        let found = {
            let directory = self.state.directory.read();
            directory.partitions.get(&id).cloned()
        };
        let Some(partition) = found else {
            return;
        };
        let mut at = range.next_offset;
        while covered < wanted {
            let next = partition.log.lock().cold_at(at).copied();
            let Some((next, segment)) = next.and_then(|n| Some((n, self.locate(n.segment)?)))
            else {
                return;
            };
            let room = usize::try_from(wanted - covered).unwrap_or(usize::MAX);
            self.cold
                .chunks
                .prefetch(segment, id, next.base_offset, room);
            covered += next.bytes;
            at = next.next_offset;
        }
    }

    /// The batches of a range from the one with `offset` on: up to `max_bytes`, but at least one. None if there is only a hole from there
    /// to the end of the range.
    pub async fn read_cold(
        &self,
        partition: PartitionId,
        range: &ColdRange,
        offset: i64,
        max_bytes: usize,
    ) -> Result<Vec<Batch>, ColdReadError> {
        let goes_on = self.cold.readers.goes_on(partition, offset);
        let read = self.read_range(partition, range, offset, max_bytes, goes_on);
        let batches = read.await?;
        let end = batches.last().map_or(range.next_offset, Batch::next_offset);
        self.cold.readers.stopped(partition, end);
        Ok(batches)
    }

    async fn read_range(
        &self,
        partition: PartitionId,
        range: &ColdRange,
        offset: i64,
        max_bytes: usize,
        goes_on: bool,
    ) -> Result<Vec<Batch>, ColdReadError> {
        let (segment, footer) = self.footer_of(partition, range).await?;
        let part = footer
            .part_with(partition, range.base_offset)
            .ok_or_else(|| {
                let reason = format!("segment {} has nothing of the partition", range.segment);
                corrupt(partition, range.base_offset, range.next_offset - 1, reason)
            })?;
        let offset = offset.max(range.base_offset);
        if goes_on {
            self.prefetch_after(partition, range, part, offset);
        }
        let mut found: Vec<Batch> = Vec::new();
        let mut bytes = 0;
        for (place, chunk) in part.chunks.iter().enumerate().skip(part.chunk_with(offset)) {
            if chunk.base_offset >= range.next_offset {
                break;
            }
            let last = part.chunk_end(place).min(range.next_offset) - 1;
            let batches = if chunk.is_lost() {
                let reason = "the records were damaged before they could be sealed".to_owned();
                Err(corrupt(partition, chunk.base_offset, last, reason))
            } else {
                let goes_on = goes_on || bytes > 0;
                let bytes = self.cold.chunks.chunk(&segment, part, place, goes_on);
                bytes
                    .await
                    .map_err(|error| explain(partition, error, chunk.base_offset, last))
                    .and_then(|bytes| {
                        segment::batches(&bytes).map_err(|error| {
                            corrupt(partition, chunk.base_offset, last, error.to_string())
                        })
                    })
            };
            let batches = match batches {
                Ok(batches) => batches,
                // The sound ones are the result: the next read meets what is wrong.
                Err(_) if !found.is_empty() => break,
                Err(error) => return Err(error),
            };
            for batch in batches {
                if batch.last_offset() < offset {
                    continue;
                }
                bytes += batch.len();
                if batch.base_offset() >= range.next_offset
                    || !found.is_empty() && bytes > max_bytes
                {
                    return Ok(found);
                }
                found.push(batch);
            }
            if bytes >= max_bytes {
                break;
            }
        }
        Ok(found)
    }
}

fn corrupt(partition: PartitionId, first: i64, last: i64, reason: String) -> ColdReadError {
    ColdReadError::Failed(ReadError::Corrupt {
        partition,
        first,
        last,
        reason,
    })
}

fn explain(partition: PartitionId, error: ChunkError, first: i64, last: i64) -> ColdReadError {
    match error {
        ChunkError::Missing(key) => ColdReadError::Gone(key),
        ChunkError::Unavailable(reason) => {
            ColdReadError::Failed(ReadError::Unavailable { partition, reason })
        }
        ChunkError::Corrupt(reason) => corrupt(partition, first, last, reason),
    }
}
