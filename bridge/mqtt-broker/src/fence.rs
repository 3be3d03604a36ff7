//! When a connection may be given messages before they are stored (`early.rs`), and when what it was given is forgotten, although no copy of it came.
//!
//! A fence is a number. It is passed when everything below it is stored or refused, and the owner has offered all that the feeds had by then: what of
//! that has not come will not come any more (it was refused, or the subscription that it was given for has ended).

use crate::backend::{Backend, FeedId, Position};
use crate::connection::Connection;
use crate::limits;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

#[derive(Debug)]
enum Stage {
    /// Begins at its time, if there is a reason then.
    Later,
    /// Not everything below it is answered.
    Answers,
    /// What was accepted is not readable yet.
    Readable(Vec<u64>),
    /// All up to here is to be offered.
    Offers(Vec<(FeedId, Position)>),
}

#[derive(Debug)]
pub(crate) struct Fence {
    below: u64,
    stage: Stage,
    every: Duration,
    pub at: Instant,
}

impl<B: Backend, S: AsyncRead + AsyncWrite + Send + 'static> Connection<B, S> {
    /// Its subscriptions are other ones, or too much went by the log: after a fence that begins now it may be given messages early.
    pub(crate) fn begin_fence(&mut self) {
        self.fence = None;
        if !self.mailbox.takes_early() || self.session.subscriptions().is_empty() {
            return;
        }
        // In this order: what has a later number goes into the notes.
        self.mailbox.with_given(|given| given.begin_fence());
        let below = self.broker.hub.early.next_number();
        self.fence = Some(Box::new(Fence {
            below,
            stage: Stage::Answers,
            every: limits::FENCE_FIRST,
            at: Instant::now(),
        }));
        self.try_fence();
    }

    /// Something has come: perhaps numbers are to be forgotten.
    pub(crate) fn fence_later(&mut self) {
        if self.fence.is_none() && self.mailbox.with_given(|given| !given.is_empty()) {
            self.fence = Some(Box::new(Fence {
                below: 0,
                stage: Stage::Later,
                every: limits::FENCE_FIRST,
                at: Instant::now() + limits::FENCE_IDLE,
            }));
        }
    }

    pub(crate) fn try_fence(&mut self) {
        let Some(mut fence) = self.fence.take() else {
            return;
        };
        if let Stage::Later = fence.stage {
            if self.mailbox.with_given(|given| !given.is_empty()) {
                self.begin_fence();
            }
            return;
        }
        if !self.has_passed(&mut fence) {
            fence.at = Instant::now() + fence.every;
            fence.every = (fence.every * 2).min(limits::FENCE_MOST);
            self.fence = Some(fence);
            return;
        }
        if self
            .mailbox
            .with_given(|given| given.pass_fence(fence.below))
        {
            self.fence_later();
        } else {
            self.begin_fence();
        }
    }

    fn has_passed(&mut self, fence: &mut Fence) -> bool {
        let backend = self.broker.backend.clone();
        if let Stage::Later | Stage::Answers = fence.stage {
            if self.broker.hub.early.answered() < fence.below {
                return false;
            }
            fence.stage = Stage::Readable(backend.accepted());
        }
        if let Stage::Readable(accepted) = &fence.stage {
            if !backend.is_readable(accepted) {
                return false;
            }
            let mut ends: BTreeMap<FeedId, Position> = BTreeMap::new();
            for (filter, _) in self.session.subscriptions().iter() {
                ends.extend(backend.feeds_for(filter));
            }
            fence.stage = Stage::Offers(ends.into_iter().collect());
        }
        let Stage::Offers(ends) = &fence.stage else {
            return false;
        };
        if !self.delivery.has_room() {
            return false;
        }
        let lost = self.delivery.settle(&mut self.session);
        self.lost(lost);
        // A feed that it does not know is new, and it will.
        let feeds = self.session.feeds();
        let offered =
            |(feed, end): &(FeedId, Position)| feeds.get(feed).is_some_and(|at| at >= end);
        ends.iter().all(offered)
    }
}
