//! Shared subscriptions of one connection: what its groups gave and is not sent yet, what is asked for, what is being settled.
//!
//! A member asks only for what it can send now, so members that are full, or whose socket takes nothing, are passed over.

use crate::backend::{
    Backend, ClientId, FeedId, Position, ReadError, SharedMessage, StorageError, Taken,
};
use crate::limits;
use crate::running::Running;
use futures_util::future::BoxFuture;
use mqtt_codec::{QoS, TopicFilter};
use mqtt_session::{Offer, Session, SharedPlace, ToSettle};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

type Take = BoxFuture<'static, Result<Vec<Taken>, ReadError>>;

#[derive(Default)]
struct Group {
    taken: VecDeque<(SharedPlace, Arc<SharedMessage>)>,
    take: Option<Take>,
}

pub(crate) enum Done {
    Taken {
        share: TopicFilter,
        result: Result<Vec<Taken>, ReadError>,
    },
    Settled {
        places: Vec<SharedPlace>,
        result: Result<(), StorageError>,
    },
    Released(Result<(), StorageError>),
}

pub(crate) struct SharedDelivery<B> {
    backend: Arc<B>,
    client: ClientId,
    groups: BTreeMap<TopicFilter, Group>,
    /// Settlements and releases on their way.
    work: Running<Done>,
    settling: bool,
}

fn places(taken: VecDeque<(SharedPlace, Arc<SharedMessage>)>) -> Vec<(FeedId, Position)> {
    let taken = taken.into_iter();
    taken.map(|(place, _)| (place.feed, place.at)).collect()
}

fn by_share(places: &[SharedPlace]) -> BTreeMap<TopicFilter, Vec<(FeedId, Position)>> {
    let mut by_share: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for place in places {
        let share = by_share.entry(place.share.clone()).or_default();
        share.push((place.feed, place.at));
    }
    by_share
}

impl<B: Backend> SharedDelivery<B> {
    pub fn new(backend: Arc<B>, client: ClientId) -> SharedDelivery<B> {
        SharedDelivery {
            backend,
            client,
            groups: BTreeMap::new(),
            work: Running::default(),
            settling: false,
        }
    }

    /// Follows the session's subscriptions as they grow; [`SharedDelivery::leave`] ends one.
    pub fn sync(&mut self, session: &Session) {
        for (share, _) in session.shared() {
            self.groups.entry(share.clone()).or_default();
        }
    }

    /// What was not offered goes back first, so that the others have it.
    pub async fn leave(&mut self, share: &TopicFilter) -> Result<(), StorageError> {
        let taken = self.groups.remove(share).map(|group| group.taken);
        let taken = places(taken.unwrap_or_default());
        if !taken.is_empty() {
            self.backend
                .shared_release(share, &self.client, Some(taken))
                .await?;
        }
        self.backend.shared_leave(share, &self.client).await
    }

    /// Is something taken that was not sent?
    pub fn waits(&self) -> bool {
        self.groups.values().any(|group| !group.taken.is_empty())
    }

    /// `true` = there is more that could be offered at once.
    pub fn offer(&mut self, session: &mut Session, now_ms: i64) -> bool {
        let mut progress = false;
        for (share, group) in &mut self.groups {
            while let Some((place, message)) = group.taken.front() {
                if session.offer_shared(place, message, now_ms) == Offer::Full {
                    // It asked for more than it can send now: another subscription took the room.
                    let back = places(std::mem::take(&mut group.taken));
                    let (backend, client) = (self.backend.clone(), self.client.clone());
                    let share = share.clone();
                    self.work.push(Box::pin(async move {
                        Done::Released(backend.shared_release(&share, &client, Some(back)).await)
                    }));
                    break;
                }
                progress = true;
                group.taken.pop_front();
            }
        }
        progress
    }

    /// Asks the groups for more, if the client can take it, and tells them what the client is done with.
    pub fn begin(&mut self, session: &mut Session, can_send: bool) {
        if !self.settling {
            // One at a time: what is done with meanwhile goes together.
            let to_settle = session.begin_settling();
            if !to_settle.places.is_empty() {
                self.settling = true;
                self.work.push(self.settle(to_settle));
            }
        }
        let room = session.send_room();
        let held_back = session.deliveries_waiting() >= limits::MAX_HELD_BACK;
        for (share, subscription) in session.shared() {
            let Some(group) = self.groups.get_mut(share) else {
                continue;
            };
            let room = match subscription.options.qos {
                QoS::AtMostOnce => limits::SHARED_TAKE,
                _ => room.min(limits::SHARED_TAKE),
            };
            if room == 0 || !can_send || held_back {
                group.take = None; // whoever can send is asked instead
            } else if group.take.is_none() && group.taken.is_empty() {
                let (backend, client) = (self.backend.clone(), self.client.clone());
                let share = share.clone();
                group.take = Some(Box::pin(async move {
                    backend
                        .shared_take(&share, &client, room, limits::SHARED_TAKE_BYTES)
                        .await
                }));
            }
        }
    }

    fn settle(&self, to_settle: ToSettle) -> BoxFuture<'static, Done> {
        let (backend, client) = (self.backend.clone(), self.client.clone());
        let ToSettle { places, is_awaited } = to_settle;
        Box::pin(async move {
            let settle = async {
                for (share, of_share) in by_share(&places) {
                    backend.shared_settle(&share, &client, of_share).await?;
                    if is_awaited {
                        backend.shared_flush(&share).await?;
                    }
                }
                Ok(())
            };
            let result = settle.await;
            Done::Settled { places, result }
        })
    }

    /// The next thing that happens. Can be dropped and called again without loss.
    pub async fn next(&mut self) -> Done {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Done> {
        if let Poll::Ready(Some(done)) = self.work.poll_next(context) {
            return Poll::Ready(done);
        }
        for (share, group) in &mut self.groups {
            if let Some(take) = &mut group.take
                && let Poll::Ready(result) = take.as_mut().poll(context)
            {
                group.take = None;
                let share = share.clone();
                return Poll::Ready(Done::Taken { share, result });
            }
        }
        Poll::Pending
    }

    pub fn done(&mut self, done: Done, session: &mut Session) -> Result<(), StorageError> {
        match done {
            Done::Taken { share, result } => {
                let messages = result.map_err(|error| StorageError(error.to_string()))?;
                if let Some(group) = self.groups.get_mut(&share) {
                    let messages = messages.into_iter().map(|taken| {
                        let (feed, at) = (taken.feed, taken.at);
                        let share = share.clone();
                        (SharedPlace { share, feed, at }, taken.message)
                    });
                    group.taken.extend(messages);
                }
            }
            Done::Settled { places, result } => {
                self.settling = false;
                result?;
                session.settled(&places);
            }
            Done::Released(result) => result?,
        }
        Ok(())
    }

    /// Asks for nothing more, and lets the next of the line have its turn. To be called before the connection awaits anything but what happens next:
    /// nobody would poll the takes meanwhile, and what they have of the host, a lock or a place in the line for one, the host may need to answer.
    pub fn stop(&mut self) {
        for group in self.groups.values_mut() {
            group.take = None;
        }
    }

    /// The connection is over: settles what the client is done with, gives back what was not offered. The first error is given; the rest is done
    /// all the same.
    pub async fn finish(&mut self, session: &mut Session) -> Result<(), StorageError> {
        let mut result = Ok(());
        while let Some(done) = self.work.next().await {
            result = result.and(self.done(done, session));
        }
        let left = session.begin_settling();
        if !left.places.is_empty() {
            let done = self.settle(left).await;
            result = result.and(self.done(done, session));
        }
        for (share, group) in std::mem::take(&mut self.groups) {
            let taken = places(group.taken);
            if !taken.is_empty() {
                let released = self
                    .backend
                    .shared_release(&share, &self.client, Some(taken))
                    .await;
                result = result.and(released);
            }
        }
        result
    }
}

/// A session that was stored is there again: so are its memberships, and what it has of its groups.
pub(crate) async fn join_again<B: Backend>(
    backend: &B,
    session: &Session,
) -> Result<(), StorageError> {
    for (share, _) in session.shared() {
        let holds = session.holds(share);
        backend
            .shared_join(share, session.client_id(), holds)
            .await?;
    }
    Ok(())
}

/// What a session has of groups that it has left: sent before, and still its client's to acknowledge.
pub(crate) fn left_behind(session: &Session) -> Vec<(TopicFilter, Vec<(FeedId, Position)>)> {
    let shares = session.shares().into_iter();
    let left = shares.filter(|share| !session.is_member(share));
    left.map(|share| {
        let holds = session.holds(&share);
        (share, holds)
    })
    .collect()
}

/// Nobody else gets that after a restart, either. To be called when all members are there again: a group without any ends here.
pub(crate) async fn keep_left_behind<B: Backend>(
    backend: &B,
    client: &ClientId,
    left: Vec<(TopicFilter, Vec<(FeedId, Position)>)>,
) -> Result<(), StorageError> {
    for (share, holds) in left {
        backend.shared_join(&share, client, holds).await?;
        backend.shared_leave(&share, client).await?;
    }
    Ok(())
}

/// A session is over: what it had and others may get, they get now (section 4.8.2), also where it can not be written what nobody may get any more:
/// that stays this session's. The first error is given.
pub(crate) async fn session_ended<B: Backend>(
    backend: &B,
    session: &Session,
) -> Result<(), StorageError> {
    let client = session.client_id();
    let mut result = Ok(());
    for share in session.shares() {
        let ended = session.ended_for_all(&share);
        let mut back = None;
        if !ended.is_empty() {
            let settled = backend.shared_settle(&share, client, ended.clone()).await;
            if settled.is_err() {
                let mut holds = session.holds(&share);
                holds.retain(|place| !ended.contains(place));
                back = Some(holds);
            }
            result = result.and(settled);
        }
        let released = backend.shared_release(&share, client, back).await;
        let left = backend.shared_leave(&share, client).await;
        result = result.and(released).and(left);
    }
    result
}
