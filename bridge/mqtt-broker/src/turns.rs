//! Those who wait for something that is dealt out one after the other, in a line: whoever got something goes to its end.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub struct Turns {
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    last: u64,
    /// By ticket. Each is woken alone: were all, every message to a group would wake all its members.
    waiting: BTreeMap<u64, Arc<Notify>>,
}

/// A place in the line. It ends when it is dropped, and the next moves up.
#[derive(Debug)]
pub struct Turn<'a> {
    turns: &'a Turns,
    ticket: u64,
    /// It is at the front.
    moved: Arc<Notify>,
}

impl Turns {
    /// At the end of the line.
    pub fn line_up(&self) -> Turn<'_> {
        let moved = Arc::new(Notify::new());
        let mut line = self.line.lock();
        line.last += 1;
        let ticket = line.last;
        line.waiting.insert(ticket, moved.clone());
        Turn {
            turns: self,
            ticket,
            moved,
        }
    }

    /// How many are in the line.
    pub fn waiting(&self) -> usize {
        self.line.lock().waiting.len()
    }
}

impl Line {
    fn is_first(&self, ticket: u64) -> bool {
        let first = self.waiting.first_key_value();
        first.is_some_and(|(first, _)| *first == ticket)
    }
}

impl Turn<'_> {
    /// Waits until nobody is before it.
    pub async fn first(&self) {
        // Listens before it looks. Once at the front it stays there, so one wake is enough.
        let moved = self.moved.notified();
        tokio::pin!(moved);
        moved.as_mut().enable();
        if !self.turns.line.lock().is_first(self.ticket) {
            moved.await;
        }
    }
}

impl Drop for Turn<'_> {
    /// Nobody can be forgotten: whoever is at the front passes it on here, also one that was woken and has not run since.
    fn drop(&mut self) {
        let mut line = self.turns.line.lock();
        let was_first = line.is_first(self.ticket);
        line.waiting.remove(&self.ticket);
        let next = line.waiting.first_key_value();
        let next = next.map(|(_, moved)| moved.clone());
        drop(line);
        if let Some(next) = next.filter(|_| was_first) {
            next.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    /// How often a task was woken.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Somebody who lines up, and holds the front until dropped.
    struct Member<'a> {
        future: Pin<Box<dyn Future<Output = ()> + 'a>>,
        wakes: Arc<Wakes>,
        is_first: Arc<AtomicBool>,
    }

    impl Member<'_> {
        fn new(turns: &Turns) -> Member<'_> {
            let is_first: Arc<AtomicBool> = Arc::default();
            let got = is_first.clone();
            let mut member = Member {
                future: Box::pin(async move {
                    let turn = turns.line_up();
                    turn.first().await;
                    got.store(true, Ordering::Relaxed);
                    std::future::pending().await
                }),
                wakes: Arc::default(),
                is_first,
            };
            member.poll();
            member
        }

        fn poll(&mut self) {
            self.wakes.0.store(0, Ordering::Relaxed);
            let waker = Waker::from(self.wakes.clone());
            let polled = self.future.as_mut().poll(&mut Context::from_waker(&waker));
            assert_eq!(polled, Poll::Pending);
        }

        fn wakes(&self) -> usize {
            self.wakes.0.load(Ordering::Relaxed)
        }

        fn is_first(&self) -> bool {
            self.is_first.load(Ordering::Relaxed)
        }
    }

    fn woken(members: &[Member<'_>]) -> usize {
        members.iter().map(Member::wakes).sum()
    }

    #[test]
    fn only_the_next_is_woken() {
        let turns = Turns::default();
        let mut members: Vec<Member<'_>> = (0..1_000).map(|_| Member::new(&turns)).collect();
        assert!(members[0].is_first() && !members[1].is_first());
        drop(members.remove(500));
        assert_eq!(woken(&members), 0, "nobody is nearer to the front");
        drop(members.remove(0));
        assert_eq!((woken(&members), members[0].wakes()), (1, 1));
        // It leaves before it runs.
        drop(members.remove(0));
        assert_eq!((woken(&members), members[0].wakes()), (1, 1));
        members[0].poll();
        assert!(members[0].is_first());
        assert_eq!(turns.waiting(), 997);
    }

    #[test]
    fn nobody_at_the_front_waits_for_ever() {
        let turns = Turns::default();
        let mut state = 7_u64;
        let mut below = |end: usize| {
            // Knuth's MMIX.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % end
        };
        let mut members: Vec<Member<'_>> = Vec::new();
        for step in 0..50_000 {
            match below(8) {
                0..3 => members.push(Member::new(&turns)),
                3 if !members.is_empty() => drop(members.remove(0)),
                4 if !members.is_empty() => {
                    let place = below(members.len());
                    drop(members.remove(place));
                }
                // Not always: some leave between being woken and running.
                5 => {
                    let woken = members.iter_mut().filter(|member| member.wakes() > 0);
                    woken.for_each(Member::poll);
                }
                _ => {}
            }
            let first = members.first();
            let is_served = first.is_none_or(|first| first.is_first() || first.wakes() > 0);
            assert!(is_served, "step {step}: nobody wakes the first");
            let others = members.iter().skip(1);
            assert_eq!(others.filter(|one| one.is_first()).count(), 0);
            assert_eq!(turns.waiting(), members.len());
        }
    }
}
