//! Those who wait for something that is dealt out one after the other, in a line: whoever got something goes to its end.

use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub struct Turns {
    line: Mutex<Line>,
    moved: Notify,
}

#[derive(Debug, Default)]
struct Line {
    last: u64,
    waiting: VecDeque<u64>,
}

/// A place in the line. It ends when it is dropped, and the next moves up.
#[derive(Debug)]
pub struct Turn<'a> {
    turns: &'a Turns,
    ticket: u64,
}

impl Turns {
    /// At the end of the line.
    pub fn line_up(&self) -> Turn<'_> {
        let mut line = self.line.lock();
        line.last += 1;
        let ticket = line.last;
        line.waiting.push_back(ticket);
        Turn {
            turns: self,
            ticket,
        }
    }

    /// How many are in the line.
    pub fn waiting(&self) -> usize {
        self.line.lock().waiting.len()
    }
}

impl Turn<'_> {
    /// Waits until nobody is before it.
    pub async fn first(&self) {
        loop {
            let moved = self.turns.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if self.turns.line.lock().waiting.front() == Some(&self.ticket) {
                return;
            }
            moved.await;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.line.lock().waiting.retain(|t| *t != self.ticket);
        self.turns.moved.notify_waiters();
    }
}
