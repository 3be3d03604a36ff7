//! The lanes as the uplink reads them: frames, the gaps between them, and how far the core has got.

use std::io;
use std::sync::Arc;

use super::{LaneLog, Store, fresh_id, producer_row, uplink_row};
use crate::frame::{Frame, Lane};
use crate::gap::{Gap, GapReason, records_between};
use crate::item::Control;
use crate::ledger::Ledger;
use crate::log::{End, Hole, Log, LogId, WriteError};
use crate::segment::Producer;

/// Frames of a lane for the core, and before them the gap that stands there.
#[derive(Debug, Clone, Default)]
pub struct OutboxRead {
    /// Comes before the frames.
    pub gap: Option<Gap>,
    pub frames: Vec<Arc<Frame>>,
    /// Where to read on.
    pub next: End,
}

impl Store {
    /// Reads a lane for the core, from the end of what was read before: a gap if one is there, then whole frames up to the next gap, about
    /// `max_bytes`, at least one if there is one.
    pub async fn read_outbox(
        self: &Arc<Self>,
        lane: Lane,
        from: End,
        max_bytes: usize,
    ) -> io::Result<OutboxRead> {
        let store = self.clone();
        let read = tokio::task::spawn_blocking(move || store.read_on(lane, from, max_bytes));
        read.await.map_err(io::Error::other)?
    }

    /// Goes on over entries that are not for the core, until there is something, or the end.
    fn read_on(&self, lane: Lane, mut from: End, max_bytes: usize) -> io::Result<OutboxRead> {
        loop {
            let read = self.read_lane(lane, from, max_bytes)?;
            let is_nothing = read.gap.is_none() && read.frames.is_empty();
            if !is_nothing || read.next.number <= from.number {
                return Ok(read);
            }
            from = read.next;
        }
    }

    fn read_lane(&self, lane: Lane, from: End, max_bytes: usize) -> io::Result<OutboxRead> {
        let inner = &self.inner;
        let Some(log) = self.log(LogId::Outbox(lane)) else {
            return Ok(OutboxRead::default());
        };
        let mut gap = inner.gaps.tell(lane, from.number);
        let mut start = gap.as_ref().map_or(from, |gap| gap.next);
        let mut read = log.read_to_hole(start, max_bytes)?;
        if let Some(hole) = read.hole.take() {
            if gap.is_some() {
                // The one gap, then the other.
                return Ok(OutboxRead {
                    gap,
                    frames: Vec::new(),
                    next: start,
                });
            }
            let found = match hole {
                // Where a segment was evicted while this was read, the gap is there by now.
                Hole::Missing { next } => match inner.gaps.tell(lane, start.number) {
                    Some(gap) => gap,
                    None => self.note_missing(lane, log, start, next)?,
                },
                Hole::Dropped(dropped) => Gap {
                    lane,
                    reason: GapReason::EvictedBytes,
                    first: start.number,
                    next: End {
                        number: start.number + 1,
                        ..start
                    },
                    records: dropped.records,
                    bytes: dropped.bytes,
                    first_time: dropped.first_time,
                    last_time: dropped.last_time,
                    producer_id: self.producer().id + i64::from(lane.0),
                    epoch: self.producer().epoch,
                    sequences: Vec::new(),
                },
            };
            start = found.next;
            gap = Some(found);
            read = log.read_to_hole(start, max_bytes)?;
            if read.hole.is_some() {
                read.next = start;
            }
        }
        // A frame that was refused stands there still, and is behind its gap.
        if let Some(stop) = inner.gaps.after(lane, start.number.saturating_sub(1)) {
            let before = read.frames.partition_point(|frame| frame.number < stop);
            if let Some(frame) = read.frames.get(before) {
                read.next = End {
                    number: stop,
                    position: frame.position,
                };
                read.frames.truncate(before);
            }
        }
        Ok(OutboxRead {
            gap,
            frames: read.frames,
            next: read.next,
        })
    }

    /// Keeps a gap for entries that are not where they should be.
    fn note_missing(&self, lane: Lane, log: &Log, first: End, next: u64) -> io::Result<Gap> {
        let landing = log.landing(next)?;
        let gap = Gap {
            lane,
            reason: GapReason::Damaged,
            first: first.number,
            next: landing.next,
            records: records_between(first.position, landing.next.position),
            bytes: 0,
            first_time: -1,
            last_time: landing.time,
            producer_id: landing.producer.id + i64::from(lane.0),
            epoch: landing.producer.epoch,
            sequences: landing.sequences,
        };
        let gaps = &self.inner.gaps;
        gaps.add(gap.clone()).map_err(io::Error::other)?;
        Ok(gaps.tell(lane, first.number).unwrap_or(gap))
    }

    /// Waits until messages of a lane were dropped because it was full, and puts their count where [`Store::read_outbox`] meets it. The next
    /// message that is stored has it before it anyway: this is for when none comes. Resolves when it is durable.
    pub async fn count_dropped(&self, lane: Lane) -> Result<(), WriteError> {
        match self.log(LogId::Outbox(lane)) {
            Some(log) => log.count_dropped().await,
            None => Err(WriteError::NoSuchLane(lane.0)),
        }
    }

    /// Where the uplink of a lane goes on after a reconnect: all before it is committed in the core.
    pub fn uplink(&self, lane: Lane) -> End {
        let lane = self.inner.lane(lane);
        lane.map(LaneLog::sent).unwrap_or_default()
    }

    /// The core has committed everything of the lane before `to`. Never goes back.
    pub fn advance_uplink(&self, lane: Lane, to: End) {
        let Some(lane) = self.inner.lane(lane) else {
            return;
        };
        let mut uplink = lane.uplink.lock();
        if to.number > uplink.number {
            *uplink = to;
            drop(uplink);
            let row = uplink_row(LogId::Outbox(lane.info.lane), to);
            if let Err(error) = self.inner.gaps.settle(lane.info.lane, to.number, row) {
                tracing::warn!(%error, "a gap that the core knows can not be forgotten");
            }
            self.keeper.touch();
        }
    }

    /// Gaps that the core has not been told of yet, by lane and place.
    pub fn gaps(&self) -> Vec<Gap> {
        self.inner.gaps.all()
    }

    /// Takes a fresh producer id, after a new enrolment of an edge that was fenced as a copy. What is in the outbox is set aside in the
    /// quarantine, as far as there is room, and the core will be told of it as a gap: nobody can say which of it the core has. Blocks on
    /// the disk.
    pub fn fresh_identity(&self, random: u64) -> io::Result<Producer> {
        let inner = &self.inner;
        let producer = {
            let mut producer = inner.producer.lock();
            *producer = Producer {
                id: fresh_id(random),
                previous: Some(producer.id),
                epoch: 0,
            };
            *producer
        };
        inner
            .ledger
            .apply(vec![producer_row(producer)])
            .and_then(|()| inner.ledger.flush())
            .map_err(io::Error::other)?;
        for (id, log) in inner.logs() {
            let became = log.control(Control::Become(producer));
            log.wait_for(became).map_err(io::Error::other)?;
            let LogId::Outbox(lane) = id else { continue };
            let from = self.uplink(lane);
            let (end, segments) = log.written_before(producer);
            if from.number >= end.number {
                continue;
            }
            for (name, path) in segments {
                self.quarantine
                    .keep_segment(&format!("fenced-{}-{name}", lane.0), &path)?;
            }
            let gap = Gap {
                lane,
                reason: GapReason::Fenced,
                first: from.number,
                next: end,
                records: records_between(from.position, end.position)
                    + log.dropped_between(from.number, end.number)?,
                bytes: log.bytes_from(from.position),
                first_time: -1,
                last_time: -1,
                producer_id: producer.id + i64::from(lane.0),
                epoch: producer.epoch,
                sequences: Vec::new(),
            };
            inner.gaps.add(gap).map_err(io::Error::other)?;
        }
        Ok(producer)
    }

    /// Keeps a frame that the core will never take apart from the outbox, and a gap in its place, which [`Store::read_outbox`] gives from
    /// then on. Blocks on the disk.
    pub fn quarantine(&self, frame: &Frame) -> io::Result<()> {
        self.quarantine.put(frame)?;
        let gap = Gap {
            lane: frame.lane,
            reason: GapReason::Refused,
            first: frame.number,
            next: End {
                number: frame.number + 1,
                position: frame.end(),
            },
            records: frame.batch.record_count().into(),
            bytes: frame.batch.len() as u64,
            first_time: frame.batch.base_timestamp(),
            last_time: frame.batch.max_timestamp(),
            producer_id: frame.batch.producer_id(),
            epoch: frame.batch.producer_epoch(),
            sequences: vec![(
                frame.stream.clone(),
                record::next_sequence(frame.batch.last_sequence()),
            )],
        };
        self.inner.gaps.add(gap).map_err(io::Error::other)
    }
}
