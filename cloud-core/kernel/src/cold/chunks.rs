//! Footers and chunks from the cold store, verified. What was damaged on the way is asked for again, once.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::limits::FOOTER_CACHE_BYTES;
use crate::ports::cold::{ColdError, ColdStore};
use crate::segment::{Footer, FooterPart, SegmentError, SegmentId, TRAILER_BYTES};

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

impl From<ColdError> for ChunkError {
    fn from(error: ColdError) -> Self {
        match error {
            ColdError::NotFound(key) => ChunkError::Missing(key),
            error => ChunkError::Unavailable(error.to_string()),
        }
    }
}

pub(crate) struct Chunks {
    store: Arc<dyn ColdStore>,
    /// The least recently used first.
    footers: Mutex<VecDeque<(SegmentId, Arc<Footer>, usize)>>,
}

impl Chunks {
    pub fn new(store: Arc<dyn ColdStore>) -> Chunks {
        Chunks {
            store,
            footers: Mutex::default(),
        }
    }

    pub async fn footer(&self, segment: &Located) -> Result<Arc<Footer>, ChunkError> {
        if let Some(footer) = self.known(segment.id) {
            return Ok(footer);
        }
        let end = segment.bytes.saturating_sub(TRAILER_BYTES as u64);
        let at = end.saturating_sub(u64::from(segment.footer_bytes));
        let decode = |bytes| {
            let footer = Footer::decode(bytes, segment.footer_crc, at)?;
            if footer.id == segment.id && footer.log == segment.log {
                Ok(footer)
            } else {
                Err(SegmentError::Malformed("it is another segment's"))
            }
        };
        let footer = Arc::new(self.get(segment, at..end, decode).await?);
        self.keep(segment, &footer);
        Ok(footer)
    }

    /// A chunk of a part, by its place in the part.
    pub async fn chunk(
        &self,
        segment: &Located,
        part: &FooterPart,
        place: usize,
    ) -> Result<Bytes, ChunkError> {
        let Some(chunk) = part.chunks.get(place) else {
            return Ok(Bytes::new());
        };
        let verify = |bytes: Bytes| chunk.verify(&bytes).map(|()| bytes);
        self.get(segment, chunk.range(), verify).await
    }

    #[allow(dead_code, reason = "the collector of orphans is on its way")]
    /// A segment that is gone is not needed any more.
    pub fn forget(&self, id: SegmentId) {
        self.footers.lock().retain(|(known, _, _)| *known != id);
    }

    async fn get<T>(
        &self,
        segment: &Located,
        range: Range<u64>,
        decode: impl Fn(Bytes) -> Result<T, SegmentError>,
    ) -> Result<T, ChunkError> {
        let key = segment.id.key(segment.log);
        let mut again = true;
        loop {
            let bytes = self.store.get(&key, range.clone()).await?;
            match decode(bytes) {
                Ok(value) => return Ok(value),
                Err(_) if again => again = false,
                Err(error) => return Err(ChunkError::Corrupt(format!("{key}: {error}"))),
            }
        }
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
