//! What a log knows of its segments.

use std::io;
use std::path::PathBuf;

use super::{End, Log, segment_name};
use crate::segment::Producer;

impl Log {
    /// The segments that others than this producer wrote, name and path, and where they end.
    pub fn written_before(&self, producer: Producer) -> (End, Vec<(String, PathBuf)>) {
        let index = self.shared.index.lock();
        let mut segments = Vec::new();
        for (number, segment) in &index.segments {
            if segment.producer == producer {
                let end = End {
                    number: *number,
                    position: segment.first_position,
                };
                return (end, segments);
            }
            segments.push((segment_name(*number), segment.path.clone()));
        }
        drop(index);
        (self.end(), segments)
    }

    /// The oldest place that can still be read.
    pub fn oldest(&self) -> End {
        let index = self.shared.index.lock();
        let first = index.segments.iter().next();
        first.map_or_else(
            || self.end(),
            |(number, segment)| End {
                number: *number,
                position: segment.first_position,
            },
        )
    }

    /// How many bytes of segments hold something at or after a position.
    pub fn bytes_from(&self, position: u64) -> u64 {
        let index = self.shared.index.lock();
        let mut bytes = 0;
        for segment in index.segments.values().rev() {
            bytes += segment.len - segment.data_start;
            if segment.first_position <= position {
                break;
            }
        }
        bytes
    }

    /// The first position of the newest segments that together have at most `bytes`.
    pub fn position_before_end(&self, bytes: u64) -> u64 {
        let index = self.shared.index.lock();
        let mut sum = 0;
        let mut position = self.end().position;
        for segment in index.segments.values().rev() {
            sum += segment.len;
            if sum > bytes {
                break;
            }
            position = segment.first_position;
        }
        position
    }

    /// Deletes segments of which everything is before `keep`, except the newest two: readers that are only a little behind
    /// need no cursor. Where there is little room, except the newest.
    pub fn trim(&self, keep: End) -> io::Result<()> {
        let _going = self.shared.bound.going();
        loop {
            let stay = if self.shared.bound.is_tight() { 1 } else { 2 };
            let number = {
                let index = self.shared.index.lock();
                let mut ahead = index.segments.iter();
                let (Some((&number, _)), Some((&next_number, next))) = (ahead.next(), ahead.next())
                else {
                    return Ok(());
                };
                if index.segments.len() <= stay
                    || next_number > keep.number
                    || next.first_position > keep.position
                {
                    return Ok(());
                }
                number
            };
            self.shared.remove_segment(number)?;
        }
    }
}
