//! Messages from the feeds to those who are connected: who subscribes to what, and one follower a feed.

use crate::backend::{Backend, FeedId, Position};
use crate::early::Early;
use crate::extra::{PersistRules, RetainedLimits};
use crate::follower::Follower;
use crate::mailbox::{Mailbox, Recipient};
use crate::unstored::{Route, Unstored};
use mqtt_codec::{QoS, TopicFilter, TopicName};
use mqtt_session::Session;
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
    pub unstored: Unstored,
    pub early: Early,
    shutdown: CancellationToken,
}

impl<B: Backend> Hub<B> {
    /// `number`: of the first message that is given before it is stored, see [`Early::new`].
    pub fn new(
        backend: Arc<B>,
        rules: PersistRules,
        retained: RetainedLimits,
        number: u64,
        shutdown: CancellationToken,
    ) -> Arc<Hub<B>> {
        Arc::new(Hub {
            backend,
            router: Router::new(Dialect::SLASHED),
            followers: Mutex::default(),
            mailboxes: AtomicU64::new(0),
            unstored: Unstored::new(rules, retained),
            early: Early::new(number),
            shutdown,
        })
    }

    pub fn backend(&self) -> &B {
        &self.backend
    }

    pub fn router(&self) -> &Router<Recipient> {
        &self.router
    }

    /// Who gets what is published to this topic now; `None` = it is stored, and the followers bring it.
    pub fn unstored_route(&self, topic: &TopicName) -> Option<Arc<Route>> {
        self.unstored.route(&self.router, topic)
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
    /// In order. Mostly there is one, for which a tree would have room for eleven.
    filters: Vec<TopicFilter>,
    /// Groups of which it is a member for what is not stored.
    shares: BTreeSet<TopicFilter>,
    attached: BTreeMap<FeedId, Arc<Follower>>,
}

impl<B: Backend> Subscriber<B> {
    pub fn new(hub: Arc<Hub<B>>, takes_early: bool) -> Subscriber<B> {
        let id = hub.mailboxes.fetch_add(1, Ordering::Relaxed);
        Subscriber {
            hub,
            mailbox: Arc::new(Mailbox::new(id, takes_early)),
            filters: Vec::new(),
            shares: BTreeSet::new(),
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
        if let Err(place) = self.filters.binary_search(filter) {
            if self.filters.is_empty() {
                self.filters.reserve_exact(1);
            }
            self.filters.insert(place, filter.clone());
        }
        Ok(())
    }

    pub fn unsubscribe(&mut self, filter: &TopicFilter) {
        if let Ok(place) = self.filters.binary_search(filter) {
            self.filters.remove(place);
            let recipient = Recipient(self.mailbox.clone());
            self.hub.router.remove(filter.as_str(), &recipient);
        }
    }

    /// Follows the session's subscriptions, for what is not stored.
    pub fn sync_unstored(&mut self, session: &Session) {
        let unstored = &self.hub.unstored;
        if !unstored.is_used() {
            return;
        }
        let left = self.shares.iter().filter(|share| !session.is_member(share));
        for share in left.cloned().collect::<Vec<_>>() {
            unstored.groups.leave(&share, &self.mailbox);
            self.shares.remove(&share);
        }
        for (share, _) in session.shared() {
            if !self.shares.contains(share) {
                match unstored.groups.join(share, &self.mailbox) {
                    Ok(()) => drop(self.shares.insert(share.clone())),
                    Err(error) => {
                        tracing::warn!(%share, %error, "a group gets nothing that is not stored");
                    }
                }
            }
        }
        let granted = session.subscriptions().iter();
        let granted = granted.map(|(_, subscription)| subscription.options.qos);
        let shared = session.shared().map(|(_, shared)| shared.options.qos);
        let highest = granted.chain(shared).max();
        self.mailbox
            .set_wants_all(highest.is_some_and(|qos| qos != QoS::AtMostOnce));
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
        while let Some(filter) = self.filters.pop() {
            self.hub.router.remove(filter.as_str(), &recipient);
        }
        while let Some(share) = self.shares.pop_first() {
            self.hub.unstored.groups.leave(&share, &self.mailbox);
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
