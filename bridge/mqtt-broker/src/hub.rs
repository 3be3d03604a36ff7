//! Messages from the feeds to those who are connected: who subscribes to what, and one follower a feed.

use crate::backend::{Backend, FeedId, Position};
use crate::follower::Follower;
use crate::mailbox::{Mailbox, Recipient};
use mqtt_codec::TopicFilter;
use parking_lot::Mutex;
use router::{Dialect, PatternError, Router};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub(crate) struct Hub<B> {
    backend: Arc<B>,
    router: Router<Recipient>,
    followers: Mutex<BTreeMap<FeedId, Arc<Follower>>>,
    mailboxes: AtomicU64,
    shutdown: CancellationToken,
}

impl<B: Backend> Hub<B> {
    pub fn new(backend: Arc<B>, shutdown: CancellationToken) -> Arc<Hub<B>> {
        Arc::new(Hub {
            backend,
            router: Router::new(Dialect::SLASHED),
            followers: Mutex::default(),
            mailboxes: AtomicU64::new(0),
            shutdown,
        })
    }

    pub fn backend(&self) -> &B {
        &self.backend
    }

    pub fn router(&self) -> &Router<Recipient> {
        &self.router
    }

    pub fn progress_every(&self) -> Duration {
        self.backend.progress_every()
    }

    pub async fn stopped(&self) {
        self.shutdown.cancelled().await;
    }

    /// A follower that nobody is attached to ends. `false` = somebody is attached again.
    pub fn end(&self, follower: &Arc<Follower>, feed: FeedId) -> bool {
        let mut followers = self.followers.lock();
        if !follower.is_deserted() {
            return false;
        }
        if followers
            .get(&feed)
            .is_some_and(|known| Arc::ptr_eq(known, follower))
        {
            followers.remove(&feed);
        }
        true
    }

    /// See [`Follower::attach`]. Nobody follows the feed yet: a follower begins at `at`, if that is the end of the feed.
    fn attach(
        self: &Arc<Self>,
        mailbox: &Arc<Mailbox>,
        feed: FeedId,
        at: Position,
        is_end: bool,
        wants_progress: bool,
    ) -> Option<(Arc<Follower>, Position)> {
        let mut followers = self.followers.lock();
        if let Some(follower) = followers.get(&feed) {
            let from = follower.attach(mailbox, at, wants_progress)?;
            return Some((follower.clone(), from));
        }
        if !is_end {
            return None;
        }
        let follower = Arc::new(Follower::new(feed, at));
        let from = follower.attach(mailbox, at, wants_progress)?;
        followers.insert(feed, follower.clone());
        tokio::spawn(follower.clone().run(self.clone()));
        Some((follower, from))
    }
}

/// A connection's place in the hub; ends when dropped.
pub(crate) struct Subscriber<B: Backend> {
    hub: Arc<Hub<B>>,
    mailbox: Arc<Mailbox>,
    filters: BTreeSet<TopicFilter>,
    attached: BTreeMap<FeedId, Arc<Follower>>,
}

impl<B: Backend> Subscriber<B> {
    pub fn new(hub: Arc<Hub<B>>) -> Subscriber<B> {
        let id = hub.mailboxes.fetch_add(1, Ordering::Relaxed);
        Subscriber {
            hub,
            mailbox: Arc::new(Mailbox::new(id)),
            filters: BTreeSet::new(),
            attached: BTreeMap::new(),
        }
    }

    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// To be called before the ends of the feeds are asked for: see `follower.rs`.
    pub fn subscribe(&mut self, filter: &TopicFilter) -> Result<(), PatternError> {
        let recipient = Recipient(self.mailbox.clone());
        self.hub.router.insert(filter.as_str(), recipient)?;
        self.filters.insert(filter.clone());
        Ok(())
    }

    pub fn unsubscribe(&mut self, filter: &TopicFilter) {
        if self.filters.remove(filter) {
            let recipient = Recipient(self.mailbox.clone());
            self.hub.router.remove(filter.as_str(), &recipient);
        }
    }

    /// From where on the mailbox brings what this feed has. `None` = it does not, read on.
    pub fn attach(
        &mut self,
        feed: FeedId,
        at: Position,
        is_end: bool,
        wants_progress: bool,
    ) -> Option<Position> {
        let (follower, from) = self
            .hub
            .attach(&self.mailbox, feed, at, is_end, wants_progress)?;
        self.attached.insert(feed, follower);
        Some(from)
    }

    /// Nothing of the feed comes into the mailbox any more.
    pub fn detach(&mut self, feed: FeedId) {
        if let Some(follower) = self.attached.remove(&feed) {
            follower.detach(self.mailbox.id());
        }
    }

    /// Nothing comes into the mailbox any more.
    pub fn leave(&mut self) {
        let recipient = Recipient(self.mailbox.clone());
        while let Some(filter) = self.filters.pop_first() {
            self.hub.router.remove(filter.as_str(), &recipient);
        }
        while let Some((_, follower)) = self.attached.pop_first() {
            follower.detach(self.mailbox.id());
        }
    }

    /// How far the attached feeds are: see [`Follower::given`].
    pub fn given(&self) -> Vec<(FeedId, Position)> {
        let attached = self.attached.iter();
        attached
            .map(|(feed, follower)| (*feed, follower.given()))
            .collect()
    }
}

impl<B: Backend> Drop for Subscriber<B> {
    fn drop(&mut self) {
        self.leave();
    }
}
