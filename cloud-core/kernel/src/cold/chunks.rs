//! Footers and chunks of segments, by way of the cache.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use uuid::Uuid;

use super::cache::{ColdCache, ColdCacheStats, FetchError, Part};
use crate::config::KernelConfig;
use crate::limits::FOOTER_CACHE_BYTES;
use crate::ports::Ports;
use crate::ports::cold::{ColdError, Spawner};
use crate::segment::{Chunk, Footer, FooterPart, SegmentId, TRAILER_BYTES};
use crate::stream::PartitionId;
use crate::wal::writer::Written;

/// A segment, and where its footer is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Located {
    pub log: Uuid,
    pub id: SegmentId,
    /// Size of the object.
    pub bytes: u64,
    pub footer_bytes: u32,
    pub footer_crc: u32,
}

impl Located {
    fn object(&self) -> Arc<str> {
        self.id.key(self.log).into()
    }
}

impl From<&Chunk> for Part {
    fn from(chunk: &Chunk) -> Part {
        Part {
            position: chunk.position,
            length: chunk.length,
            crc: chunk.crc,
        }
    }
}

/// Why a footer or chunk could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChunkError {
    /// The object is not there.
    Missing(String),
    /// The store does not answer, or refuses.
    Unavailable(String),
    /// The bytes are not what was written.
    Corrupt(String),
}

impl From<FetchError> for ChunkError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Cold(ColdError::NotFound(key)) => ChunkError::Missing(key),
            FetchError::Cold(error) => ChunkError::Unavailable(error.to_string()),
            error @ FetchError::Corrupt { .. } => ChunkError::Corrupt(error.to_string()),
        }
    }
}

pub(crate) struct Chunks {
    cache: Arc<ColdCache>,
    spawner: Arc<dyn Spawner>,
    /// Bytes that are fetched ahead of one reader.
    readahead_bytes: usize,
    /// Decoded; the least recently used first.
    footers: Mutex<VecDeque<(SegmentId, Arc<Footer>, usize)>>,
}

impl Chunks {
    pub fn new(ports: &Ports, config: &KernelConfig, log: &Arc<Written>) -> Chunks {
        Chunks {
            cache: ColdCache::open(ports, config, log),
            spawner: ports.spawner.clone(),
            readahead_bytes: config.cold_readahead_bytes,
            footers: Mutex::default(),
        }
    }

    pub fn stats(&self) -> ColdCacheStats {
        self.cache.stats()
    }

    pub async fn footer(&self, segment: &Located) -> Result<Arc<Footer>, ChunkError> {
        if let Some(footer) = self.known(segment.id) {
            return Ok(footer);
        }
        let end = segment.bytes.saturating_sub(TRAILER_BYTES as u64);
        let at = end.saturating_sub(u64::from(segment.footer_bytes));
        let object = segment.object();
        let whole = Part {
            position: at,
            length: segment.footer_bytes,
            crc: segment.footer_crc,
        };
        let bytes = self.cache.get(&object, whole).await?;
        let footer = Footer::decode(bytes, segment.footer_crc, at)
            .map_err(|error| error.to_string())
            .and_then(|footer| {
                if footer.id == segment.id && footer.log == segment.log {
                    Ok(Arc::new(footer))
                } else {
                    Err("it is another segment's".to_owned())
                }
            })
            .map_err(|reason| ChunkError::Corrupt(format!("{object}: {reason}")))?;
        self.keep(segment, &footer);
        Ok(footer)
    }

    /// A chunk of a part, by its place in the part. For a reader that `goes_on` behind it, the next ones are fetched, too.
    pub async fn chunk(
        &self,
        segment: &Located,
        part: &FooterPart,
        place: usize,
        goes_on: bool,
    ) -> Result<Bytes, ChunkError> {
        let Some(chunk) = part.chunks.get(place) else {
            return Ok(Bytes::new());
        };
        let object = segment.object();
        if goes_on {
            self.read_ahead(&object, part, place, self.readahead_bytes);
        }
        Ok(self.cache.get(&object, chunk.into()).await?)
    }

    /// Fetches what a reader of a partition will need next in a segment, beside: its footer, and the first chunks, of so many bytes.
    pub fn prefetch(
        self: &Arc<Self>,
        segment: Located,
        partition: PartitionId,
        offset: i64,
        bytes: usize,
    ) {
        let chunks = self.clone();
        self.spawner.spawn(Box::pin(async move {
            // Whoever reads it will be told what is wrong with it.
            if let Ok(footer) = chunks.footer(&segment).await
                && let Some(part) = footer.part_with(partition, offset)
            {
                let from = part.chunk_with(offset);
                chunks.read_ahead(&segment.object(), part, from, bytes);
            }
        }));
    }

    fn read_ahead(&self, object: &Arc<str>, part: &FooterPart, from: usize, bytes: usize) {
        let next = part.chunks.iter().skip(from).filter(|c| !c.is_lost());
        self.cache.readahead(object, next.map(Part::from), bytes);
    }

    /// A segment that is gone is not needed any more.
    pub fn forget(&self, id: SegmentId) {
        self.footers.lock().retain(|(known, _, _)| *known != id);
    }

    fn known(&self, id: SegmentId) -> Option<Arc<Footer>> {
        let mut footers = self.footers.lock();
        let place = footers.iter().position(|(known, _, _)| *known == id)?;
        let found = footers.remove(place)?;
        let footer = found.1.clone();
        footers.push_back(found);
        Some(footer)
    }

    fn keep(&self, segment: &Located, footer: &Arc<Footer>) {
        let mut footers = self.footers.lock();
        if footers.iter().any(|(known, _, _)| *known == segment.id) {
            return;
        }
        // In memory a footer takes about what it takes in the segment.
        footers.push_back((segment.id, footer.clone(), segment.footer_bytes as usize));
        let mut bytes: usize = footers.iter().map(|(_, _, bytes)| bytes).sum();
        while bytes > FOOTER_CACHE_BYTES
            && footers.len() > 1
            && let Some((_, _, freed)) = footers.pop_front()
        {
            bytes -= freed;
        }
    }
}
