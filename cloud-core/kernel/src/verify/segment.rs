//! One segment in the cold store, read chunk by chunk.

use bytes::Bytes;

use super::damage::{Damage, records};
use crate::inspect::verify_chunk;
use crate::ports::ColdStore;
use crate::ports::cold::ColdError;
use crate::segment::{Footer, HEADER_BYTES, SegmentId, TRAILER_BYTES, Trailer, check_header};
use crate::state::State;
use crate::state::cold::SegmentState;

/// A segment that is being read.
pub(super) struct SegmentCheck {
    id: SegmentId,
    key: String,
    /// What is left to read; `None` = its end has been reached.
    footer: Option<Footer>,
    part: usize,
    chunk: usize,
}

impl SegmentCheck {
    /// Reads and verifies header, trailer and footer. With damage to the footer none of its records can be found: that ends it.
    pub async fn open(
        cold: &dyn ColdStore,
        state: &State,
        id: SegmentId,
        known: SegmentState,
    ) -> Result<(SegmentCheck, Vec<Damage>), ColdError> {
        let log = state.cold.lock().log.unwrap_or_default();
        let mut check = SegmentCheck {
            id,
            key: id.key(log),
            footer: None,
            part: 0,
            chunk: 0,
        };
        let mut damage = Vec::new();
        match check.footer(cold, known).await? {
            Ok(footer) => {
                let header = cold.get(&check.key, 0..HEADER_BYTES as u64).await?;
                if let Err(error) = check_header(&header) {
                    damage.push(Damage {
                        place: check.key.clone(),
                        at: Some(0),
                        bytes: Some(HEADER_BYTES as u64),
                        reason: format!("{error}; the rest can be read without it"),
                        records: Vec::new(),
                    });
                }
                check.footer = Some(footer);
            }
            Err((at, reason)) => damage.extend(check.lost(state, at, &reason)),
        }
        Ok((check, damage))
    }

    /// What the rest is called.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The footer, or where and why it cannot be had.
    async fn footer(
        &self,
        cold: &dyn ColdStore,
        known: SegmentState,
    ) -> Result<Result<Footer, (Option<u64>, String)>, ColdError> {
        let wrong = |at: Option<u64>, reason: &str| Ok(Err((at, reason.to_owned())));
        let size = match cold.size(&self.key).await {
            Ok(size) => size,
            Err(ColdError::NotFound(_)) => return wrong(None, "the object is missing"),
            Err(error) => return Err(error),
        };
        if size != known.bytes {
            let reason = format!("it has {size} bytes instead of {}", known.bytes);
            return wrong(None, &reason);
        }
        let trailer_at = size.saturating_sub(TRAILER_BYTES as u64);
        let trailer = cold.get(&self.key, trailer_at..size).await?;
        let trailer = match Trailer::decode(&trailer, size) {
            Ok(found)
                if (found.footer_bytes, found.footer_crc)
                    == (known.footer_bytes, known.footer_crc) =>
            {
                found
            }
            Ok(_) => return wrong(Some(trailer_at), "the trailer is another one"),
            Err(error) => return wrong(Some(trailer_at), &error.to_string()),
        };
        let at = match trailer.footer_at(size) {
            Ok(at) => at,
            Err(error) => return wrong(Some(trailer_at), &error.to_string()),
        };
        let bytes = cold.get(&self.key, at..trailer_at).await?;
        match Footer::decode(bytes, trailer.footer_crc, at) {
            Ok(footer) => Ok(Ok(footer)),
            Err(error) => wrong(Some(at), &error.to_string()),
        }
    }

    /// The whole segment cannot be read; nothing if nobody needs it any more.
    fn lost(&self, state: &State, at: Option<u64>, reason: &str) -> Option<Damage> {
        let mut lost = Vec::new();
        for partition in state.partitions() {
            let ranges: Vec<_> = {
                let log = partition.log.lock();
                let inside = log.cold.iter().filter(|r| r.segment == self.id);
                inside.map(|r| (r.base_offset, r.next_offset - 1)).collect()
            };
            for (first, last) in ranges {
                lost.extend(records(state, partition.id, first, last));
            }
        }
        lost.sort_by_key(|r| (r.partition, r.first_offset));
        let needed = state.cold.lock().segments.contains_key(&self.id);
        needed.then(|| Damage {
            place: self.key.clone(),
            at,
            bytes: None,
            reason: reason.to_owned(),
            records: lost,
        })
    }

    /// Reads the next chunk of which records can still be asked for: its bytes, and its damage. `None` = there is none left.
    pub async fn step(
        &mut self,
        cold: &dyn ColdStore,
        state: &State,
    ) -> Result<Option<(u64, Option<Damage>)>, ColdError> {
        let Some(footer) = &self.footer else {
            return Ok(None);
        };
        loop {
            let Some(part) = footer.parts.get(self.part) else {
                return Ok(None);
            };
            let place = self.chunk;
            let Some(chunk) = part.chunks.get(place) else {
                (self.part, self.chunk) = (self.part + 1, 0);
                continue;
            };
            self.chunk += 1;
            let end = part.chunk_end(place);
            // What is read from elsewhere meanwhile, or by nobody, is not looked at.
            let wanted = state.partition(part.partition).is_some_and(|partition| {
                let log = partition.log.lock();
                log.log_start < end
                    && log.cold.iter().any(|r| {
                        r.segment == self.id
                            && r.base_offset < end
                            && r.next_offset > chunk.base_offset
                    })
            });
            if !wanted || chunk.is_lost() {
                continue;
            }
            let found: Result<Bytes, ColdError> = cold.get(&self.key, chunk.range()).await;
            let reason = match found {
                Ok(bytes) => match verify_chunk(part, chunk, &bytes) {
                    Ok(_) => return Ok(Some((u64::from(chunk.length), None))),
                    Err(error) => error.to_string(),
                },
                Err(ColdError::NotFound(_)) => {
                    let damage = self.lost(state, None, "the object is missing");
                    self.footer = None;
                    return Ok(Some((0, damage)));
                }
                Err(error) => return Err(error),
            };
            let records = records(state, part.partition, chunk.base_offset, end - 1);
            let damage = Damage {
                place: self.key.clone(),
                at: Some(chunk.position),
                bytes: Some(u64::from(chunk.length)),
                reason,
                records: records.into_iter().collect(),
            };
            return Ok(Some((u64::from(chunk.length), Some(damage))));
        }
    }
}
