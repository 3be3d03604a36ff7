//! Shared subscriptions over the kernel's queues: one queue a group, named by `$share/{ShareName}/{filter}`. Where a group is and what was
//! settled is the queue's, and durable; who is a member follows from the sessions; what a member has is a lease of the queue, and after
//! a restart it is taken again for the stored session that has it in flight, before anybody else can get it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kernel::{
    Acquired, DeliveryId, HolderId, Kernel, PartitionId, Queue, QueueName, QueueSource, Selector,
    Stream, Verdict,
};
use mqtt_broker::backend::{ClientId, FeedId, Position, ReadError, StorageError, Taken};
use mqtt_broker::{Turns, convert};
use mqtt_codec::{TopicFilter, filter_matches};
use parking_lot::Mutex;
use record::{Namespace, Record, topic_for_record};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::feeds::{feed, offset, partition, position, streams_for};
use crate::limits;

type Place = (PartitionId, i64);

/// The groups take for all their members under this number, and keep the ids: a lease is given back by its id.
const HOLDER: HolderId = HolderId(0);

/// All groups of a namespace.
pub struct Shares {
    sources: Arc<Sources>,
    groups: Mutex<HashMap<TopicFilter, Arc<Group>>>,
    /// All groups that go on after the start are there. What is durable of another one is left of one that has ended.
    recovered: AtomicBool,
}

/// Where the groups look for their sources.
struct Sources {
    kernel: Kernel,
    namespace: Namespace,
    generation: watch::Receiver<u64>,
    /// Held by who makes, ends or extends a group. Never by a [`Shares::take`]: nobody may poll that for a while.
    change: tokio::sync::Mutex<()>,
}

struct Group {
    queue: Arc<Queue>,
    filter: TopicFilter,
    /// Of the streams, when its sources were looked for.
    generation: AtomicU64,
    state: Mutex<State>,
    /// One member at a time takes from the queue.
    turns: Turns,
    ended: CancellationToken,
}

#[derive(Default)]
struct State {
    members: HashSet<ClientId>,
    held: HashMap<Place, Held>,
    /// Of what is held: done with, and to be settled with the next, since nobody is settling it.
    done: Vec<Place>,
}

struct Held {
    client: ClientId,
    /// `None`: a stored session has it, and it was not met in the queue yet.
    id: Option<DeliveryId>,
    /// The client is done with it. It is here until the queue knows that durably, and goes to nobody.
    done: bool,
}

struct Matching(TopicFilter);

impl Selector for Matching {
    fn selects(&self, stream: &Stream, _: PartitionId, record: &Record) -> bool {
        let name = &stream.address.name;
        let topic = topic_for_record(name, record.key.as_deref());
        filter_matches(self.0.as_str(), &topic) && convert::message(name, record).is_some()
    }
}

fn storage(error: impl ToString) -> StorageError {
    StorageError(error.to_string())
}

fn places(of: &[(FeedId, Position)]) -> impl Iterator<Item = Place> {
    of.iter()
        .map(|(feed, position)| (partition(*feed), offset(*position)))
}

impl Sources {
    /// A group begins at the ends of the streams there are. Streams that come later it reads from their beginning.
    async fn look(&self, group: &Group, new: bool) -> Result<(), StorageError> {
        let generation = *self.generation.borrow();
        let mut sources = group.queue.sources();
        let there = sources.len();
        sources.retain(|s| self.kernel.stream_by_id(s.partition.stream).is_some());
        let mut changed = new || sources.len() < there;
        let known: HashSet<PartitionId> = sources.iter().map(|s| s.partition).collect();
        let streams = streams_for(&self.kernel, &self.namespace, &group.filter);
        for partition in streams.iter().flat_map(|stream| stream.partition_ids()) {
            if known.contains(&partition) {
                continue;
            }
            let end = self.kernel.watermarks(partition).map_or(0, |w| w.end);
            let from = if new { end } else { 0 };
            sources.push(QueueSource { partition, from });
            changed = true;
        }
        if changed {
            group.queue.set_sources(sources).await.map_err(storage)?;
        }
        group.generation.store(generation, Ordering::Release);
        Ok(())
    }

    /// In a task of its own, which is polled whatever becomes of who asks for it: it has the lock that all groups share.
    async fn look_again(self: &Arc<Self>, group: &Arc<Group>) -> Result<(), StorageError> {
        let (this, group) = (self.clone(), group.clone());
        let looking = tokio::spawn(async move {
            let _change = this.change.lock().await;
            this.look(&group, false).await
        });
        looking.await.map_err(storage)?
    }
}

impl Shares {
    pub fn new(kernel: Kernel, namespace: Namespace) -> Shares {
        let generation = kernel.watch_streams();
        Shares {
            sources: Arc::new(Sources {
                kernel,
                namespace,
                generation,
                change: tokio::sync::Mutex::default(),
            }),
            groups: Mutex::default(),
            recovered: AtomicBool::new(false),
        }
    }

    fn prefix(&self) -> String {
        format!("mqtt/{}/", self.sources.namespace)
    }

    fn queue_name(&self, share: &TopicFilter) -> QueueName {
        QueueName::from(format!("{}{share}", self.prefix()).as_str())
    }

    fn group(&self, share: &TopicFilter) -> Option<Arc<Group>> {
        self.groups.lock().get(share).cloned()
    }

    pub async fn join(
        &self,
        share: &TopicFilter,
        client: &ClientId,
        holds: &[(FeedId, Position)],
    ) -> Result<(), StorageError> {
        let _change = self.sources.change.lock().await;
        let group = match self.group(share) {
            Some(group) => group,
            None => self.open(share).await?,
        };
        let (stray, missing) = {
            let mut state = group.state.lock();
            state.members.insert(client.clone());
            let holds: HashSet<Place> = places(holds).collect();
            let stray = state.take(client, |place| !holds.contains(place));
            for place in holds {
                state.held.entry(place).or_insert_with(|| Held {
                    client: client.clone(),
                    id: None,
                    done: false,
                });
            }
            let missing = state.held.values().any(|held| held.id.is_none());
            (stray, missing)
        };
        group.give_back(stray).await?;
        if missing {
            group.claim().await?;
        }
        group.settle_left();
        Ok(())
    }

    async fn open(&self, share: &TopicFilter) -> Result<Arc<Group>, StorageError> {
        let Some((_, filter)) = share.share() else {
            return Err(StorageError(format!("{share} is no shared subscription")));
        };
        self.forget_ended(share).await?;
        let name = self.queue_name(share);
        let kernel = &self.sources.kernel;
        let existed = kernel.has_queue(&name);
        let selector = Arc::new(Matching(filter.clone()));
        let group = Arc::new(Group {
            queue: kernel.queue(&name, selector),
            filter,
            generation: AtomicU64::new(0),
            state: Mutex::default(),
            turns: Turns::default(),
            ended: CancellationToken::new(),
        });
        self.sources.look(&group, !existed).await?;
        self.groups.lock().insert(share.clone(), group.clone());
        Ok(group)
    }

    /// A group that is not there has ended, also where that could not be written: the next one of its name does not go on where it was.
    async fn forget_ended(&self, share: &TopicFilter) -> Result<(), StorageError> {
        let (kernel, name) = (&self.sources.kernel, self.queue_name(share));
        if self.recovered.load(Ordering::Acquire) && kernel.has_queue(&name) {
            kernel.queue_delete(&name).await.map_err(storage)?;
        }
        Ok(())
    }

    pub async fn take(
        &self,
        share: &TopicFilter,
        client: &ClientId,
        max_messages: usize,
        max_bytes: usize,
    ) -> Result<Vec<Taken>, ReadError> {
        let group = self.group(share).ok_or(ReadError::Gone)?;
        let turn = group.turns.line_up();
        turn.first().await;
        let mut streams = self.sources.generation.clone();
        loop {
            let generation = *streams.borrow_and_update();
            if group.generation.load(Ordering::Acquire) != generation {
                self.sources.look_again(&group).await?;
            }
            let ready = usize::try_from(group.queue.ready()).unwrap_or(usize::MAX);
            if ready > 0 {
                // Those who wait share what is there, as if it were dealt out one by one.
                let share = ready / group.turns.waiting().max(1);
                let most = max_messages.min(share.max(1));
                let acquired = group.queue.acquire(HOLDER, most, max_bytes).await;
                // Nothing is awaited between here and the answer: what was taken has its holder.
                let taken = group.hand_out(client, acquired);
                if !taken.is_empty() {
                    return Ok(taken);
                }
            }
            let kernel_gone = async { streams.wait_for(|now| *now != generation).await.is_err() };
            tokio::select! {
                () = group.queue.wait_ready() => {}
                gone = kernel_gone => if gone {
                    return Err(ReadError::Gone);
                },
                () = group.ended.cancelled() => return Err(ReadError::Gone),
            }
        }
    }

    pub async fn settle(
        &self,
        share: &TopicFilter,
        client: &ClientId,
        done: &[(FeedId, Position)],
    ) -> Result<(), StorageError> {
        let Some(group) = self.group(share) else {
            return Ok(());
        };
        let leases = {
            let mut state = group.state.lock();
            places(done).for_each(|place| state.end(client, place));
            state.take_done()
        };
        group.settle(leases).await
    }

    pub async fn release(
        &self,
        share: &TopicFilter,
        client: &ClientId,
        back: Option<&[(FeedId, Position)]>,
    ) -> Result<(), StorageError> {
        let Some(group) = self.group(share) else {
            return Ok(());
        };
        let back: Option<HashSet<Place>> = back.map(|back| places(back).collect());
        let wanted = |place: &Place| back.as_ref().is_none_or(|back| back.contains(place));
        let ids = group.state.lock().take(client, wanted);
        group.give_back(ids).await
    }

    pub async fn leave(&self, share: &TopicFilter, client: &ClientId) -> Result<(), StorageError> {
        let _change = self.sources.change.lock().await;
        let Some(group) = self.group(share) else {
            return self.forget_ended(share).await;
        };
        let empty = {
            let mut state = group.state.lock();
            state.members.remove(client);
            state.members.is_empty()
        };
        if empty {
            self.groups.lock().remove(share);
            group.ended.cancel();
            group.queue.delete().await.map_err(storage)?;
        }
        Ok(())
    }

    /// Groups that only had members whose sessions ended with the process.
    pub async fn recovered(&self) -> Result<(), StorageError> {
        let (prefix, kernel) = (self.prefix(), &self.sources.kernel);
        for name in kernel.queues() {
            let Some(share) = name.0.strip_prefix(&prefix) else {
                continue;
            };
            let lives = TopicFilter::new(share).is_ok_and(|share| self.group(&share).is_some());
            if !lives {
                kernel.queue_delete(&name).await.map_err(storage)?;
            }
        }
        self.recovered.store(true, Ordering::Release);
        Ok(())
    }
}

impl State {
    /// Takes away what the client has, is not done with, and `wanted` says; gives the leases of it.
    fn take(&mut self, client: &ClientId, wanted: impl Fn(&Place) -> bool) -> Vec<DeliveryId> {
        let mut ids = Vec::new();
        self.held.retain(|place, held| {
            let taken = held.client == *client && !held.done && wanted(place);
            if taken {
                ids.extend(held.id);
            }
            !taken
        });
        ids
    }

    fn end(&mut self, client: &ClientId, place: Place) {
        let held = self.held.get_mut(&place);
        if let Some(held) = held.filter(|h| h.client == *client && !h.done) {
            held.done = true;
            self.done.extend(held.id.is_some().then_some(place));
        }
    }

    /// A record of the queue: does somebody have it, since before a restart?
    fn met(&mut self, id: DeliveryId) -> bool {
        let place = (id.partition, id.offset);
        let Some(held) = self.held.get_mut(&place) else {
            return false;
        };
        held.id = Some(id);
        self.done.extend(held.done.then_some(place));
        true
    }

    /// What is to be settled now.
    fn take_done(&mut self) -> Vec<(Place, DeliveryId)> {
        let done = std::mem::take(&mut self.done).into_iter();
        done.filter_map(|place| Some((place, self.held.get(&place)?.id?)))
            .collect()
    }
}

/// Leases that are being settled. Those for which that fails, or is given up, are settled with the next.
struct Settling<'a> {
    group: &'a Group,
    leases: Vec<(Place, DeliveryId)>,
}

impl Settling<'_> {
    fn ids(&self) -> Vec<DeliveryId> {
        self.leases.iter().map(|(_, id)| *id).collect()
    }

    fn ended(mut self) {
        let mut state = self.group.state.lock();
        for (place, _) in std::mem::take(&mut self.leases) {
            state.held.remove(&place);
        }
    }
}

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        if !self.leases.is_empty() {
            let mut state = self.group.state.lock();
            let left = self.leases.iter().map(|(place, _)| *place);
            state.done.extend(left);
        }
    }
}

impl Group {
    fn hand_out(self: &Arc<Self>, client: &ClientId, acquired: Vec<Acquired>) -> Vec<Taken> {
        let mut state = self.state.lock();
        let mut taken = Vec::with_capacity(acquired.len());
        for acquired in acquired {
            if state.met(acquired.id) {
                continue;
            }
            let stream = &acquired.stream.address.name;
            let Some(message) = convert::message(stream, &acquired.record) else {
                // The selector has asked the same question.
                tracing::error!(%stream, offset = acquired.id.offset, "a record of a shared group is no message");
                continue;
            };
            let held = Held {
                client: client.clone(),
                id: Some(acquired.id),
                done: false,
            };
            let place = (acquired.id.partition, acquired.id.offset);
            state.held.insert(place, held);
            taken.push(Taken {
                feed: feed(place.0),
                at: position(place.1),
                message: Arc::new(message.into()),
            });
        }
        drop(state);
        self.settle_left();
        taken
    }

    /// Takes from the queue what stored sessions have in flight, before members can.
    async fn claim(&self) -> Result<(), StorageError> {
        let mut others = Vec::new();
        let mut seen = 0;
        loop {
            let last: HashMap<PartitionId, i64> = {
                let state = self.state.lock();
                let wanted = state.held.iter().filter(|(_, held)| held.id.is_none());
                let mut last = HashMap::new();
                for ((partition, offset), _) in wanted {
                    let last = last.entry(*partition).or_insert(*offset);
                    *last = (*last).max(*offset);
                }
                last
            };
            if last.is_empty() || seen >= limits::SHARED_CLAIM {
                break;
            }
            let acquired = self.queue.acquire(HOLDER, 64, 1024 * 1024).await;
            if acquired.is_empty() {
                break;
            }
            seen += acquired.len();
            let mut state = self.state.lock();
            let mut looked: HashMap<PartitionId, i64> = HashMap::new();
            for acquired in acquired {
                let id = acquired.id;
                if !state.met(id) {
                    others.push(id);
                }
                let up_to = looked.entry(id.partition).or_insert(id.offset);
                *up_to = (*up_to).max(id.offset);
            }
            // In order: what a session has and was not met up to here was settled already, or is gone.
            state.held.retain(|(partition, offset), held| {
                held.id.is_some() || looked.get(partition).is_none_or(|up_to| offset > up_to)
            });
        }
        self.give_back(others).await
    }

    /// Resolves when that is durable.
    async fn settle(&self, leases: Vec<(Place, DeliveryId)>) -> Result<(), StorageError> {
        if leases.is_empty() {
            return Ok(());
        }
        let group = self;
        let settling = Settling { group, leases };
        match self.queue.settle(&settling.ids(), Verdict::Accept).await {
            Ok(_) | Err(kernel::QueueError::Deleted) => {
                settling.ended();
                Ok(())
            }
            Err(error) => Err(storage(error)),
        }
    }

    /// What nobody settles any more: it could not be written then, or was not met yet.
    fn settle_left(self: &Arc<Self>) {
        let leases = self.state.lock().take_done();
        if leases.is_empty() {
            return;
        }
        let group = self.clone();
        tokio::spawn(async move {
            if let Err(error) = group.settle(leases).await {
                tracing::warn!(queue = %group.queue.name(), %error, "what a shared group is done with could not be written; trying again with the next");
            }
        });
    }

    async fn give_back(&self, ids: Vec<DeliveryId>) -> Result<(), StorageError> {
        if ids.is_empty() {
            return Ok(());
        }
        match self.queue.settle(&ids, Verdict::Release).await {
            Ok(_) | Err(kernel::QueueError::Deleted) => Ok(()),
            Err(error) => Err(storage(error)),
        }
    }
}
