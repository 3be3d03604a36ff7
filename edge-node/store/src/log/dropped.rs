//! Messages that a full lane did not keep, until an entry of its log counts them.

use super::{Log, WriteError};
use crate::frame::Dropped;
use crate::item::Control;

/// Messages dropped since the log began, and the times of those that the log has not counted yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DroppedSoFar {
    pub records: u64,
    pub bytes: u64,
    /// How many of them an entry of the log counts, durably.
    pub counted: u64,
    pub first_time: i64,
    pub last_time: i64,
}

impl DroppedSoFar {
    /// One more.
    pub fn add(&mut self, time: i64, bytes: u64) {
        self.records += 1;
        self.bytes += bytes;
        if self.first_time < 0 {
            self.first_time = time;
        }
        self.last_time = time;
    }

    /// An entry counts these. The next drop begins a new count, unless there was one meanwhile.
    pub fn count(&mut self, dropped: &Dropped) {
        self.counted += dropped.records;
        self.first_time = if self.counted < self.records {
            // About: the first of them came after the last that is counted.
            dropped.last_time
        } else {
            -1
        };
    }
}

impl Log {
    /// Messages that were dropped since the log began.
    pub fn dropped(&self) -> DroppedSoFar {
        *self.shared.dropped.borrow()
    }

    /// Waits until messages were dropped that no entry of the log counts, and has them counted.
    pub async fn count_dropped(&self) -> Result<(), WriteError> {
        let mut dropped = self.shared.dropped.subscribe();
        let any = dropped.wait_for(|dropped| dropped.records > dropped.counted);
        if any.await.is_err() {
            return Err(WriteError::Closed);
        }
        let counted = self.control(Control::Count).await;
        counted.unwrap_or(Err(WriteError::Closed))
    }
}
