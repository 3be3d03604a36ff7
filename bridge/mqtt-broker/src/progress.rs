//! When who hears of positions that moved, of those attached to a follower who want to. Each saves its session then: were all told at once, thousands
//! would be written in one moment, and nothing between.

use crate::limits;
use std::future::pending;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

#[derive(Debug)]
pub(crate) struct Progress {
    /// Between one part of them and the next.
    every: Duration,
    next: Instant,
    /// The part that is told next.
    part: u64,
    /// Parts that have not been told since the position moved.
    left: u64,
}

impl Progress {
    /// Everybody once in `each`.
    pub fn new(each: Duration) -> Progress {
        let every = each / u32::try_from(limits::PROGRESS_PARTS).unwrap_or(1);
        Progress {
            every,
            next: Instant::now() + every,
            part: 0,
            left: 0,
        }
    }

    pub fn moved(&mut self) {
        self.left = limits::PROGRESS_PARTS;
    }

    /// Never, while the position stays.
    pub async fn due(&self) {
        match self.left {
            0 => pending().await,
            _ => sleep_until(self.next).await,
        }
    }

    /// Who is told now: those whose id is this, modulo [`limits::PROGRESS_PARTS`].
    pub fn next_part(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self.left == 0 || now < self.next {
            return None;
        }
        let part = self.part;
        self.part = (part + 1) % limits::PROGRESS_PARTS;
        self.left -= 1;
        self.next = now + self.every;
        Some(part)
    }
}
