//! Shared groups over a backend's feeds, in memory. After a restart a group begins with what comes then; what stored sessions have in
//! flight of it stays theirs.

use crate::backend::{
    Backend, ClientId, FeedId, Position, ReadError, SharedMessage, StorageError, Taken,
};
use crate::limits;
use crate::turns::Turns;
use mqtt_codec::TopicFilter;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tokio::sync::Notify;

type Place = (FeedId, Position);

/// The groups of one backend, which hands its own `shared_...` calls on to this.
#[derive(Default)]
pub struct MemoryShares {
    groups: Mutex<HashMap<TopicFilter, Arc<Group>>>,
}

struct Group {
    filter: TopicFilter,
    state: Mutex<State>,
    /// Something was put back.
    changed: Notify,
    /// One member at a time reads the feeds and takes.
    turns: Turns,
}

#[derive(Default)]
struct State {
    members: BTreeSet<ClientId>,
    generation: u64,
    next: BTreeMap<FeedId, Position>,
    /// `None`: to be read again, it was in flight before a restart.
    ready: BTreeMap<Place, Option<Arc<SharedMessage>>>,
    held: BTreeMap<Place, (ClientId, Option<Arc<SharedMessage>>)>,
}

impl State {
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

    pub fn join<B: Backend>(
        &self,
        backend: &B,
        share: &TopicFilter,
        client: &ClientId,
        holds: Vec<Place>,
    ) -> Result<(), StorageError> {
        let Some((_, filter)) = share.share() else {
            return Err(StorageError(format!("{share} is no shared subscription")));
        };
        let group = {
            let mut groups = self.groups.lock();
            let group = groups.entry(share.clone()).or_insert_with(|| {
                let state = State {
                    generation: backend.feeds_generation(),
                    next: backend.feeds_for(&filter).into_iter().collect(),
                    ..State::default()
                };
                Arc::new(Group {
                    filter,
                    state: Mutex::new(state),
                    changed: Notify::new(),
                    turns: Turns::default(),
                })
            });
            group.clone()
        };
        let mut state = group.state.lock();
        state.members.insert(client.clone());
        let holds: BTreeSet<Place> = holds.into_iter().collect();
        state.put_back(client, |place| !holds.contains(place));
        for place in holds {
            if !state.held.contains_key(&place) {
                let message = state.ready.remove(&place).flatten();
                state.held.insert(place, (client.clone(), message));
            }
        }
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

    pub fn leave(&self, share: &TopicFilter, client: &ClientId) {
        let mut groups = self.groups.lock();
        let Some(group) = groups.get(share) else {
            return;
        };
        let mut state = group.state.lock();
        state.members.remove(client);
        let empty = state.members.is_empty();
        drop(state);
        if empty {
            groups.remove(share);
        }
    }
}

impl Group {
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
            bytes += message.payload.len();
            state
                .held
                .insert((feed, at), (client.clone(), Some(message.clone())));
            taken.push(Taken { feed, at, message });
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
            let message = match backend.read(place.0, place.1, 1).await {
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
                    None => drop(state.ready.remove(&place)),
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
                let read = backend.read(*feed, *from, limits::FEED_READ).await;
                let mut state = self.state.lock();
                match read {
                    Ok(read) => {
                        let wanted = read.messages.into_iter();
                        let wanted = wanted.filter(|(_, m)| self.filter.matches(&m.topic));
                        for (at, message) in wanted {
                            state
                                .ready
                                .insert((*feed, at), Some(Arc::new(message.into())));
                        }
                        state.next.insert(*feed, read.next.max(*from));
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
