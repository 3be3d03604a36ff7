//! Reading a log: the newest frames from memory, the others from segments, whatever is damaged there passed over or said.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{End, FrameRead, From, Hint, Hole, Log, Segment};
use crate::evict::dropped_in;
use crate::frame::{Entry, Frame};
use crate::limits;
use crate::segment::{ReadEntryError, SegmentReader};

struct Place {
    segment: u64,
    /// Its length as the reader knows it.
    end: u64,
    reader: SegmentReader,
}

impl Log {
    /// Frames that are in memory, or `None` if the place is only on disk: then [`Log::read`] may block.
    pub fn read_tail(&self, from: From, max_bytes: usize) -> Option<FrameRead> {
        let end = self.end();
        let index = self.shared.index.lock();
        let at_end = match from {
            From::Number(n) => n >= end.number,
            From::Position(p) => p >= end.position,
        };
        if at_end {
            return Some(FrameRead {
                next: end,
                ..FrameRead::default()
            });
        }
        let first = index.tail.front()?;
        let covered = match from {
            From::Number(n) => first.number <= n,
            From::Position(p) => first.position <= p,
        };
        if !covered {
            return None;
        }
        let start = index.tail.partition_point(|frame| match from {
            From::Number(n) => frame.number < n,
            From::Position(p) => frame.end() <= p,
        });
        let mut frames = Vec::new();
        let mut bytes = 0;
        for frame in index.tail.range(start..) {
            if !frames.is_empty() && bytes + frame.batch.len() > max_bytes {
                break;
            }
            bytes += frame.batch.len();
            frames.push(frame.clone());
        }
        let next = after(&frames).unwrap_or(end);
        Some(FrameRead {
            frames,
            next,
            hole: None,
        })
    }

    /// Reads whole frames of about `max_bytes`, at least one if there is one; what is missing is passed over. Blocks on the disk.
    pub fn read(&self, from: From, max_bytes: usize) -> io::Result<FrameRead> {
        self.read_disk(from, max_bytes, None)
    }

    /// Like [`Log::read`] from a number on, but only up to where something is missing; if that is at once, it says so.
    pub fn read_to_hole(&self, from: End, max_bytes: usize) -> io::Result<FrameRead> {
        self.read_disk(From::Number(from.number), max_bytes, Some(from))
    }

    /// `strict`: where the entries must go on.
    fn read_disk(
        &self,
        from: From,
        max_bytes: usize,
        strict: Option<End>,
    ) -> io::Result<FrameRead> {
        let mut from = from;
        // The next entry number that must come.
        let mut expected = strict.map(|end| end.number);
        let position = strict.map_or(0, |end| end.position);
        let hole = |at: u64, hole: Hole| FrameRead {
            frames: Vec::new(),
            next: End {
                number: at,
                position,
            },
            hole: Some(hole),
        };
        loop {
            if let Some(read) = self.read_tail(from, max_bytes) {
                return Ok(read);
            }
            let Some(mut place) = self.place(from)? else {
                // Nothing but the end is left.
                return Ok(FrameRead {
                    next: self.end(),
                    ..FrameRead::default()
                });
            };
            let mut frames: Vec<Arc<Frame>> = Vec::new();
            let mut bytes = 0;
            let mut damage = None;
            while bytes < max_bytes {
                let entry = match place.reader.next() {
                    Ok(Some(entry)) => entry,
                    Ok(None) => break,
                    Err(ReadEntryError::Io(error)) => return Err(error),
                    Err(error) => {
                        damage = Some(error);
                        if matches!(place.reader.resync(), Ok(true)) {
                            continue;
                        }
                        break;
                    }
                };
                let number = entry.number();
                if matches!(from, From::Number(n) if number < n) {
                    continue;
                }
                if let Some(at) = expected {
                    let missing = (number > at).then_some(Hole::Missing { next: number });
                    let found = match &entry {
                        Entry::Dropped { dropped, .. } => Some(Hole::Dropped(*dropped)),
                        _ => None,
                    };
                    match missing.or(found) {
                        Some(_) if !frames.is_empty() => break,
                        Some(found) => {
                            self.note_damage(&place, damage);
                            return Ok(hole(at, found));
                        }
                        None => expected = number.checked_add(1),
                    }
                }
                if let Entry::Frame(frame) = entry
                    && !matches!(from, From::Position(p) if frame.end() <= p)
                {
                    bytes += frame.batch.len();
                    frames.push(Arc::new(frame));
                }
            }
            if let Some(mut next) = after(&frames) {
                // Strictly: also over what are no frames.
                next.number = expected.unwrap_or(next.number);
                if place.reader.at() == next.number {
                    self.remember(Hint {
                        segment: place.segment,
                        number: next.number,
                        position: next.position,
                        offset: place.reader.offset(),
                    });
                }
                return Ok(FrameRead {
                    frames,
                    next,
                    hole: None,
                });
            }
            self.note_damage(&place, damage);
            // Nothing in the rest of this segment: go on with the next one.
            let index = self.shared.index.lock();
            if index
                .segments
                .get(&place.segment)
                .is_some_and(|s| s.len > place.end)
            {
                // It was written to in the meantime.
                continue;
            }
            let next = match index.segments.range(place.segment + 1..).next() {
                Some((number, segment)) => End {
                    number: *number,
                    position: segment.first_position,
                },
                None => self.end(),
            };
            drop(index);
            if let Some(at) = expected.filter(|at| *at < next.number) {
                return Ok(hole(at, Hole::Missing { next: next.number }));
            }
            if next == self.end() {
                return Ok(FrameRead {
                    next,
                    ..FrameRead::default()
                });
            }
            from = match from {
                From::Number(n) => From::Number(n.max(next.number)),
                From::Position(p) => From::Position(p.max(next.position)),
            };
        }
    }

    /// Messages that were dropped, and whose counts stand between two entries. Blocks on the disk.
    pub fn dropped_between(&self, first: u64, next: u64) -> io::Result<u64> {
        let segments: Vec<Segment> = {
            let index = self.shared.index.lock();
            let of_next = index.segments.range(next..).next();
            let segments = index.segments.range(..next).chain(of_next);
            segments.map(|(_, segment)| segment.clone()).collect()
        };
        let mut records = 0;
        for pair in segments.windows(2) {
            let [segment, after] = pair else { continue };
            let counts = dropped_in(&*self.shared.disk, segment, after.dropped)?;
            let between = |number: &u64| (first..next).contains(number);
            let counts = counts.iter().filter(|(number, _)| between(number));
            records += counts.map(|(_, dropped)| dropped.records).sum::<u64>();
        }
        Ok(records)
    }

    fn note_damage(&self, place: &Place, damage: Option<ReadEntryError>) {
        if let Some(damage) = damage {
            self.shared.counters.damaged.fetch_add(1, Ordering::Relaxed);
            tracing::error!(log = %self.shared.config.name, segment = place.segment, offset = place.reader.offset(), %damage,
                "damage in a segment: what can not be read is passed over");
        }
    }

    fn place(&self, from: From) -> io::Result<Option<Place>> {
        let index = self.shared.index.lock();
        let found = match from {
            From::Number(n) => index.segments.range(..=n).next_back(),
            // Segments that hold only releases share a position: the last of them has the records.
            From::Position(p) => index
                .segments
                .iter()
                .rev()
                .find(|(_, segment)| segment.first_position <= p),
        };
        let Some((&number, segment)) = found.or_else(|| index.segments.iter().next()) else {
            return Ok(None);
        };
        let mut offset = segment.data_start;
        let mut best = 0;
        for hint in index.hints.iter().filter(|hint| hint.segment == number) {
            let fits = match from {
                From::Number(n) => hint.number <= n,
                From::Position(p) => hint.position <= p,
            };
            if fits && hint.number > best {
                best = hint.number;
                offset = hint.offset;
            }
        }
        // Opened under the lock, so that the segment is not deleted in between.
        let file = self.shared.disk.open(&segment.path)?;
        Ok(Some(Place {
            segment: number,
            end: segment.len,
            reader: SegmentReader::new(file, offset, segment.len, None),
        }))
    }

    fn remember(&self, hint: Hint) {
        let mut index = self.shared.index.lock();
        if index.hints.len() >= limits::READ_HINTS {
            index.hints.pop_front();
        }
        index.hints.push_back(hint);
    }
}

fn after(frames: &[Arc<Frame>]) -> Option<End> {
    frames.last().map(|frame| End {
        number: frame.number + 1,
        position: frame.end(),
    })
}
