//! Shared groups over a backend's feeds, in memory. Of a group with a member whose session is stored the host writes where it is, see
//! [`MemoryShares::write`]: after a restart it goes on from there, and what stored sessions have in flight of it stays theirs.
//!
//! What is written may be older than what members have acknowledged: those messages are given again. It is never older than a stored session of
//! a member, since the groups are written first. So a QoS 2 message that a member has, or had, goes to nobody else: while it was dealt out, the session
//! tells; when the session does not tell any more, the group was written without it. Before it is sent to a member whose session is not stored, the group
//! is written without it as well.

use crate::backend::{
    Backend, ClientId, FeedId, Position, ReadError, SavedSession, SharedMessage, StorageError,
    Taken,
};
use crate::limits;
use crate::turns::Turns;
use bytes::{Buf, BufMut, Bytes};
use mqtt_codec::{TopicFilter, filter_matches};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tokio::sync::Notify;

type Place = (FeedId, Position);

/// The groups of one backend, which hands its own `shared_...` calls on to this.
#[derive(Default)]
pub struct MemoryShares {
    groups: Mutex<HashMap<TopicFilter, Arc<Group>>>,
    /// A group is not where it was written.
    moved: Arc<Notify>,
}

/// Who becomes a member of a group.
pub struct Joins<'a> {
    pub client: &'a ClientId,
    /// There is a stored session of it.
    pub is_stored: bool,
    pub holds: Vec<(FeedId, Position)>,
}

struct Group {
    share: TopicFilter,
    filter: TopicFilter,
    moved: Arc<Notify>,
    state: Mutex<State>,
    /// Something was put back.
    changed: Notify,
    /// One member at a time reads the feeds and takes.
    turns: Turns,
}

#[derive(Default)]
struct State {
    /// Is the session of the member stored?
    members: BTreeMap<ClientId, bool>,
    generation: u64,
    next: BTreeMap<FeedId, Position>,
    /// What is ready below it came back: it was dealt out before, or before a restart.
    dealt: BTreeMap<FeedId, Position>,
    /// Since it was written.
    moved: bool,
    /// `None`: to be read again, it was in flight before a restart.
    ready: BTreeMap<Place, Option<Arc<SharedMessage>>>,
    held: BTreeMap<Place, (ClientId, Option<Arc<SharedMessage>>)>,
}

/// Of what is written.
const VERSION: u8 = 1;
/// Of the feeds: no host counts as far, so they are looked for again.
const UNKNOWN: u64 = u64::MAX;

impl State {
    fn begun<B: Backend>(backend: &B, filter: &TopicFilter) -> State {
        State {
            generation: backend.feeds_generation(),
            next: backend.feeds_for(filter).into_iter().collect(),
            ..State::default()
        }
    }

    /// Is it to be there after a restart?
    fn is_kept(&self) -> bool {
        self.members.values().any(|stored| *stored)
    }

    /// As a session: where the group goes on to deal out, and what before that is not settled.
    fn to_saved(&self) -> SavedSession {
        let next = self.next.iter();
        let mut feeds: BTreeMap<FeedId, (Position, Vec<Position>)> =
            next.map(|(feed, at)| (*feed, (*at, Vec::new()))).collect();
        for (feed, at) in self.held.keys().chain(self.ready.keys()) {
            let Some((next, left)) = feeds.get_mut(feed) else {
                continue; // the feed is gone
            };
            let was_dealt = self.dealt.get(feed).is_some_and(|dealt| at < dealt);
            if was_dealt || self.held.contains_key(&(*feed, *at)) {
                left.push(*at);
            } else {
                *next = (*next).min(*at);
            }
        }
        let (mut bytes, mut checkpoints) = (vec![VERSION], Vec::new());
        for (feed, (next, left)) in feeds {
            bytes.put_u64(feed.stream);
            bytes.put_u32(feed.partition);
            bytes.put_u64(next.0);
            bytes.put_u32(left.len() as u32);
            left.iter().for_each(|at| bytes.put_u64(at.0));
            checkpoints.push((feed, left.into_iter().min().unwrap_or(next).min(next)));
        }
        SavedSession {
            epoch: 0,
            checkpoints,
            bytes: bytes.into(),
        }
    }

    fn from_saved(mut bytes: Bytes) -> Option<State> {
        let mut state = State {
            generation: UNKNOWN,
            ..State::default()
        };
        if bytes.try_get_u8().ok()? != VERSION {
            return None;
        }
        while bytes.has_remaining() {
            let feed = FeedId {
                stream: bytes.try_get_u64().ok()?,
                partition: bytes.try_get_u32().ok()?,
            };
            let next = Position(bytes.try_get_u64().ok()?);
            state.next.insert(feed, next);
            state.dealt.insert(feed, next);
            for _ in 0..bytes.try_get_u32().ok()? {
                let at = Position(bytes.try_get_u64().ok()?);
                state.ready.insert((feed, at), None);
            }
        }
        Some(state)
    }

    /// Puts back what the client has and `back` says.
    fn put_back(&mut self, client: &ClientId, back: impl Fn(&Place) -> bool) {
        let places: Vec<Place> = self
            .held
            .iter()
            .filter(|(place, (holder, _))| holder == client && back(place))
            .map(|(place, _)| *place)
            .collect();
        for place in places {
            if let Some((_, message)) = self.held.remove(&place) {
                self.ready.insert(place, message);
            }
        }
    }
}

impl MemoryShares {
    fn group(&self, share: &TopicFilter) -> Option<Arc<Group>> {
        self.groups.lock().get(share).cloned()
    }

    /// Resolves when there is something for [`MemoryShares::write`]. Cancel-safe.
    pub async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Writes where the groups are that have moved. The last argument of `write`: is this to be there after a restart? A host calls it now and then, and
    /// before it stores the session of a client, `stored`, or deletes one: what it writes then must not be missing where that is found.
    pub fn write(
        &self,
        stored: Option<&ClientId>,
        mut write: impl FnMut(&TopicFilter, SavedSession, bool) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let groups: Vec<_> = self.groups.lock().values().cloned().collect();
        for group in groups {
            let mut state = group.state.lock();
            let member = stored.and_then(|client| state.members.get_mut(client));
            let is_new = member.is_some_and(|stored| !std::mem::replace(stored, true));
            // One without members has ended.
            if (is_new || state.moved) && !state.members.is_empty() {
                write(&group.share, state.to_saved(), state.is_kept())?;
                state.moved = false;
            }
        }
        Ok(())
    }

    /// `saved`: what was written of it before a restart.
    pub fn join<B: Backend>(
        &self,
        backend: &B,
        share: &TopicFilter,
        joins: Joins<'_>,
        saved: impl FnOnce() -> Result<Option<Bytes>, StorageError>,
    ) -> Result<(), StorageError> {
        let Some((_, filter)) = share.share() else {
            return Err(StorageError(format!("{share} is no shared subscription")));
        };
        let mut groups = self.groups.lock();
        let group = match groups.get(share) {
            Some(group) => group.clone(),
            None => {
                let state = saved()?.map(|saved| State::from_saved(saved).ok_or(()));
                if let Some(Err(())) = state {
                    tracing::error!(%share, "where the group was can not be read: it begins anew");
                }
                let state = state.and_then(Result::ok);
                let state = state.unwrap_or_else(|| State::begun(backend, &filter));
                let group = Arc::new(Group {
                    share: share.clone(),
                    filter,
                    moved: self.moved.clone(),
                    state: Mutex::new(state),
                    changed: Notify::new(),
                    turns: Turns::default(),
                });
                groups.insert(share.clone(), group.clone());
                group
            }
        };
        let mut state = group.state.lock();
        drop(groups);
        let client = joins.client;
        *state.members.entry(client.clone()).or_default() |= joins.is_stored;
        let holds: BTreeSet<Place> = joins.holds.into_iter().collect();
        state.put_back(client, |place| !holds.contains(place));
        for place in holds {
            if !state.held.contains_key(&place) {
                let message = state.ready.remove(&place).flatten();
                state.held.insert(place, (client.clone(), message));
            }
        }
        group.has_moved(&mut state);
        drop(state);
        group.changed.notify_waiters();
        Ok(())
    }

    pub async fn take<B: Backend>(
        &self,
        backend: &B,
        share: &TopicFilter,
        client: &ClientId,
        max_messages: usize,
        max_bytes: usize,
    ) -> Result<Vec<Taken>, ReadError> {
        let group = self.group(share).ok_or(ReadError::Gone)?;
        let turn = group.turns.line_up();
        turn.first().await;
        loop {
            let changed = group.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            group.read_again(backend).await?;
            let taken = group.hand_out(client, max_messages, max_bytes);
            if !taken.is_empty() {
                return Ok(taken);
            }
            tokio::select! {
                () = changed => {}
                result = group.read_on(backend) => result?,
            }
        }
    }

    pub fn settle(&self, share: &TopicFilter, client: &ClientId, places: &[Place]) {
        let Some(group) = self.group(share) else {
            return;
        };
        let mut state = group.state.lock();
        for place in places {
            if state
                .held
                .get(place)
                .is_some_and(|(holder, _)| holder == client)
            {
                state.held.remove(place);
                group.has_moved(&mut state);
            }
        }
    }

    pub fn release(&self, share: &TopicFilter, client: &ClientId, places: Option<&[Place]>) {
        let Some(group) = self.group(share) else {
            return;
        };
        let back = |place: &Place| places.is_none_or(|places| places.contains(place));
        group.state.lock().put_back(client, back);
        group.changed.notify_waiters();
    }

    /// `end`: what was written of the group goes, its last member has left.
    pub fn leave(
        &self,
        share: &TopicFilter,
        client: &ClientId,
        end: impl FnOnce() -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut groups = self.groups.lock();
        let Some(group) = groups.get(share) else {
            return Ok(());
        };
        let mut state = group.state.lock();
        state.members.remove(client);
        if !state.members.is_empty() {
            group.has_moved(&mut state);
            return Ok(());
        }
        drop(state);
        groups.remove(share);
        // Still locked: one that begins now is another.
        end()
    }

    /// Is it there after a restart?
    pub fn is_kept(&self, share: &TopicFilter) -> bool {
        let group = self.group(share);
        group.is_some_and(|group| group.state.lock().is_kept())
    }

    pub fn is_there(&self, share: &TopicFilter) -> bool {
        self.groups.lock().contains_key(share)
    }
}

impl Group {
    fn has_moved(&self, state: &mut State) {
        if !std::mem::replace(&mut state.moved, true) {
            self.moved.notify_one();
        }
    }

    fn hand_out(&self, client: &ClientId, max_messages: usize, max_bytes: usize) -> Vec<Taken> {
        let mut state = self.state.lock();
        // Those who wait share what is there, as if it were dealt out one by one.
        let share = state.ready.len() / self.turns.waiting().max(1);
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < max_messages.min(share.max(1)) && bytes < max_bytes {
            let Some(entry) = state.ready.first_entry() else {
                break;
            };
            let Some(message) = entry.get().clone() else {
                break; // it is read first
            };
            let (feed, at) = *entry.key();
            entry.remove();
            bytes += message.size();
            state
                .held
                .insert((feed, at), (client.clone(), Some(message.clone())));
            let dealt = state.dealt.entry(feed).or_insert(at);
            *dealt = (*dealt).max(Position(at.0.saturating_add(1)));
            taken.push(Taken { feed, at, message });
        }
        if !taken.is_empty() {
            self.has_moved(&mut state);
        }
        taken
    }

    /// Reads what came back and was in flight before a restart.
    async fn read_again<B: Backend>(&self, backend: &B) -> Result<(), ReadError> {
        loop {
            let place = {
                let state = self.state.lock();
                let first = state.ready.first_key_value();
                first
                    .filter(|(_, message)| message.is_none())
                    .map(|(place, _)| *place)
            };
            let Some(place) = place else {
                return Ok(());
            };
            let this = |at: Position, _: &str| at == place.1;
            let message = match backend.read(place.0, place.1, 1, &this).await {
                Ok(read) => read
                    .messages
                    .into_iter()
                    .find(|(at, _)| *at == place.1)
                    .map(|(_, message)| Arc::new(message.into())),
                Err(ReadError::Gone) => None,
                Err(error) => return Err(error),
            };
            let mut state = self.state.lock();
            if let Some(slot) = state.ready.get_mut(&place) {
                match message {
                    Some(message) => *slot = Some(message),
                    None => {
                        state.ready.remove(&place);
                        self.has_moved(&mut state);
                    }
                }
            }
        }
    }

    /// Reads the feeds until something is ready, or waits for them.
    async fn read_on<B: Backend>(&self, backend: &B) -> Result<(), ReadError> {
        loop {
            let generation = backend.feeds_generation();
            let positions: Vec<Place> = {
                let mut state = self.state.lock();
                if !state.ready.is_empty() {
                    return Ok(());
                }
                if state.generation != generation {
                    state.generation = generation;
                    for (feed, _) in backend.feeds_for(&self.filter) {
                        state.next.entry(feed).or_insert(Position::START);
                    }
                }
                state.next.iter().map(|(feed, at)| (*feed, *at)).collect()
            };
            for (feed, from) in &positions {
                let wanted = |_: Position, topic: &str| filter_matches(self.filter.as_str(), topic);
                let read = backend.read(*feed, *from, limits::FEED_READ, &wanted).await;
                let mut state = self.state.lock();
                match read {
                    Ok(read) => {
                        for (at, message) in read.messages {
                            state
                                .ready
                                .insert((*feed, at), Some(Arc::new(message.into())));
                        }
                        if read.next > *from {
                            state.next.insert(*feed, read.next);
                            self.has_moved(&mut state);
                        }
                    }
                    Err(ReadError::Gone) => drop(state.next.remove(feed)),
                    Err(error) => return Err(error),
                }
            }
            let ready = !self.state.lock().ready.is_empty();
            if ready {
                return Ok(());
            }
            let positions: Vec<Place> = {
                let state = self.state.lock();
                state.next.iter().map(|(feed, at)| (*feed, *at)).collect()
            };
            backend.wait(&positions, generation).await;
        }
    }
}
