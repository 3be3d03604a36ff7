//! A backend in memory: a log for each first topic level, as the core has it. What is in it survives the broker, so a test
//! can kill a broker and start another one over the same storage.

use bytes::Bytes;
use mqtt_broker::backend::*;
use mqtt_broker::sweeping::{self, Sweep, Sweeper};
use mqtt_broker::{Joins, MemoryShares, convert};
use mqtt_codec::{PacketId, QoS, TopicFilter};
use record::{Record, StreamName, topic_for_record};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{MutexGuard, oneshot, watch};
use tokio::time::{Instant, sleep};

// Said, because an example reads this file by its path.
#[path = "memory/sweep.rs"]
mod sweep;

type Verdict = Result<(), PublishError>;

/// What was published while commits were held back.
struct Held {
    publish: Publish,
    exactly_once: Option<(ClientId, PacketId)>,
    done: oneshot::Sender<Verdict>,
}

#[derive(Default)]
struct State {
    holds: bool,
    held: VecDeque<Held>,
    accepted: u64,
    committed: u64,
    streams: Vec<(StreamName, Vec<Record>)>,
    retained: BTreeMap<String, Bytes>,
    sessions: BTreeMap<ClientId, SavedSession>,
    groups: BTreeMap<TopicFilter, SavedSession>,
    unreleased: BTreeMap<ClientId, BTreeSet<PacketId>>,
}

pub struct Memory {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    started: Instant,
    clock: watch::Sender<Option<ClockSet>>,
    /// What the clock was off by, when that is known: for what was read before.
    off: Arc<AtomicI64>,
    shares: Mutex<Arc<MemoryShares>>,
    /// QoS 0 is answered when it was accepted, and is readable when it was committed, as on the edge.
    pub answers_early: AtomicBool,
    /// Nothing is taken.
    pub full: AtomicBool,
    /// Sessions can neither be read nor written, nor is it written what nobody is to get any more.
    pub broken: AtomicBool,
    /// How long it takes to save a session, in milliseconds.
    pub slow: AtomicU64,
    /// Milliseconds that looking for retained messages takes.
    pub retained_slow: AtomicU64,
    pub retained_most: AtomicUsize,
    /// Milliseconds that a sweep takes.
    pub sweep_slow: AtomicU64,
    sweeper: Sweeper,
    /// Who waits for messages of a shared group keeps everybody from joining and leaving groups.
    pub locks: AtomicBool,
    lock: tokio::sync::Mutex<()>,
    /// Saves wait until it is false again.
    pub saves_wait: watch::Sender<bool>,
    /// Reads begin when it is false again.
    pub reads_wait: watch::Sender<bool>,
    /// A will that finds no room is kept, as in the core and on the edge.
    pub keeps: AtomicBool,
    pub kept: Mutex<Vec<Publish>>,
    /// Session saves: what durability costs.
    pub saves: AtomicU64,
    /// Messages given by `read`: what delivery costs.
    pub messages_read: AtomicU64,
}

#[allow(dead_code)] // the example does not look inside
impl Memory {
    pub fn new() -> Memory {
        Memory {
            state: Mutex::default(),
            changed: watch::Sender::new(0),
            started: Instant::now(),
            clock: watch::Sender::new(None),
            off: Arc::default(),
            shares: Mutex::default(),
            answers_early: Default::default(),
            full: Default::default(),
            broken: Default::default(),
            slow: Default::default(),
            retained_slow: Default::default(),
            retained_most: AtomicUsize::new(usize::MAX),
            sweep_slow: AtomicU64::new(1),
            sweeper: Sweeper::default(),
            locks: Default::default(),
            lock: Default::default(),
            saves_wait: watch::Sender::new(false),
            reads_wait: watch::Sender::new(false),
            keeps: Default::default(),
            kept: Default::default(),
            saves: Default::default(),
            messages_read: Default::default(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("the lock")
    }

    fn check_storage(&self) -> Result<(), StorageError> {
        match self.broken.load(Ordering::Relaxed) {
            true => Err(StorageError("broken".into())),
            false => Ok(()),
        }
    }

    async fn locked(&self) -> Option<MutexGuard<'_, ()>> {
        match self.locks.load(Ordering::Relaxed) {
            true => Some(self.lock.lock().await),
            false => None,
        }
    }

    fn woken(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// From now on nothing is committed but by [`Memory::commit`]; or everything at once again.
    pub fn hold(&self, hold: bool) {
        self.state().holds = hold;
        if !hold {
            self.commit(usize::MAX, |_| Ok(()));
        }
    }

    pub fn held(&self) -> usize {
        self.state().held.len()
    }

    /// Commits the oldest that are held back, or refuses them.
    pub fn commit(&self, most: usize, verdict: impl Fn(&Publish) -> Verdict) {
        for _ in 0..most {
            let Some(held) = self.state().held.pop_front() else {
                break;
            };
            let verdict = verdict(&held.publish);
            if verdict.is_ok() {
                self.store(&held.publish, held.exactly_once);
            }
            self.state().committed += 1;
            let _ = held.done.send(verdict);
        }
        self.woken();
    }

    fn store(&self, publish: &Publish, exactly_once: Option<(ClientId, PacketId)>) {
        let topic = publish.message.topic.as_str();
        let mut state = self.state();
        let name = record::stream_for_topic(topic);
        let new = convert::new_record(publish, self.now_ms());
        let index = match state.streams.iter().position(|(other, _)| *other == name) {
            Some(index) => index,
            None => {
                state.streams.push((name, Vec::new()));
                state.streams.len() - 1
            }
        };
        let records = &mut state.streams[index].1;
        records.push(Record {
            offset: records.len() as i64,
            timestamp: new.timestamp,
            key: new.key,
            value: new.value,
            headers: new.headers,
        });
        if publish.message.retain {
            if publish.message.payload.is_empty() {
                state.retained.remove(topic);
            } else {
                let bytes = convert::encode_retained(&publish.message);
                state.retained.insert(topic.to_owned(), bytes);
            }
        }
        if let Some((client, packet_id)) = exactly_once {
            let ids = state.unreleased.entry(client).or_default();
            let fresh = ids.insert(packet_id);
            assert!(fresh, "the broker stored a QoS 2 message twice");
        }
    }

    /// The clock was wrong by so much until now.
    pub fn set_clock(&self, add_ms: i64) {
        let (from_ms, to_ms) = (self.now_ms() - 3_600_000, self.now_ms());
        self.off.store(add_ms, Ordering::Relaxed);
        self.clock.send_replace(Some(ClockSet {
            from_ms,
            to_ms,
            add_ms,
        }));
    }

    fn shares(&self) -> Arc<MemoryShares> {
        self.shares.lock().expect("the lock").clone()
    }

    /// What a host does now and then; `stored`: before it saves that session.
    pub fn write_shares(&self, stored: Option<&ClientId>) {
        let write = |share: &TopicFilter, saved, kept| {
            let mut state = self.state();
            match kept {
                true => drop(state.groups.insert(share.clone(), saved)),
                false => drop(state.groups.remove(share)),
            }
            Ok(())
        };
        self.shares().write(stored, write).expect("written");
    }

    /// The process is gone: of shared groups there is what was written.
    pub fn forget_shares(&self) {
        *self.shares.lock().expect("the lock") = Arc::default();
    }

    pub fn stored_groups(&self) -> usize {
        self.state().groups.len()
    }

    pub fn stored_sessions(&self) -> usize {
        self.state().sessions.len()
    }

    pub fn stored_session(&self, client: &str) -> Option<SavedSession> {
        self.state().sessions.get(&ClientId::new(client)).cloned()
    }

    pub fn payloads(&self, stream: &str) -> Vec<Bytes> {
        let state = self.state();
        let found = state
            .streams
            .iter()
            .find(|(name, _)| name.as_str() == stream);
        found.map_or(Vec::new(), |(_, records)| {
            records
                .iter()
                .filter_map(|record| record.value.clone())
                .collect()
        })
    }
}

impl Backend for Memory {
    fn now_ms(&self) -> i64 {
        let added = self.clock.borrow().map_or(0, |set| set.add_ms);
        1_700_000_000_000 + added + self.started.elapsed().as_millis() as i64
    }

    fn expires_in(&self, ms: i64) -> Expiry {
        let at = self.now_ms() + ms;
        match *self.clock.borrow() {
            None => Expiry::blind(at, self.off.clone()),
            Some(_) => at.into(),
        }
    }

    async fn clock_set(&self) -> ClockSet {
        let mut clock = self.clock.subscribe();
        let set = clock.wait_for(Option::is_some).await;
        set.ok().and_then(|set| *set).expect("a setting")
    }

    async fn publish(
        &self,
        publish: Publish,
        exactly_once: Option<(ClientId, PacketId)>,
    ) -> Result<(), PublishError> {
        let topic = publish.message.topic.as_str();
        match topic {
            "quota" => return Err(PublishError::QuotaExceeded("full".into())),
            "forbidden" => return Err(PublishError::NotAuthorized),
            _ if self.full.load(Ordering::Relaxed) => {
                return Err(PublishError::Full("the disk is full".into()));
            }
            _ if self.lacks_room(&publish.message) => {
                return Err(PublishError::QuotaExceeded("too many".into()));
            }
            _ => {}
        }
        let held = {
            let mut state = self.state();
            state.holds.then(|| {
                let (done, verdict) = oneshot::channel();
                let at_once = publish.message.qos == QoS::AtMostOnce
                    && self.answers_early.load(Ordering::Relaxed);
                state.accepted += 1;
                state.held.push_back(Held {
                    publish: publish.clone(),
                    exactly_once: exactly_once.clone(),
                    done,
                });
                (verdict, at_once)
            })
        };
        match held {
            Some((_, true)) => return Ok(()),
            Some((verdict, false)) => return verdict.await.expect("a verdict"),
            None => self.store(&publish, exactly_once),
        }
        self.woken();
        tokio::task::yield_now().await; // a real one waits for the disk here
        Ok(())
    }

    async fn make_retained_room(&self, message: &Message) {
        sweeping::make_room(self, message).await;
    }

    async fn keep_will(&self, will: Publish, rest: Rest) -> Result<(), StorageError> {
        if !self.keeps.load(Ordering::Relaxed) {
            return Err(StorageError("full".into()));
        }
        let client = will.publisher.clone();
        match rest {
            Rest::Nothing => {}
            Rest::Save(session) => self.save_session(&client, session).await?,
            Rest::Delete => self.delete_session(&client).await?,
        }
        self.kept.lock().expect("the lock").push(will);
        Ok(())
    }

    async fn release(
        &self,
        client: &ClientId,
        packet_ids: &[PacketId],
    ) -> Result<(), StorageError> {
        if let Some(ids) = self.state().unreleased.get_mut(client) {
            ids.retain(|id| !packet_ids.contains(id));
        }
        Ok(())
    }

    async fn unreleased(&self, client: &ClientId) -> Result<Vec<PacketId>, StorageError> {
        let state = self.state();
        Ok(state
            .unreleased
            .get(client)
            .map_or(Vec::new(), |ids| ids.iter().copied().collect()))
    }

    async fn load_session(&self, client: &ClientId) -> Result<Option<SavedSession>, StorageError> {
        self.check_storage()?;
        Ok(self.state().sessions.get(client).cloned())
    }

    async fn save_session(
        &self,
        client: &ClientId,
        session: SavedSession,
    ) -> Result<(), StorageError> {
        self.check_storage()?;
        self.write_shares(Some(client));
        let mut waits = self.saves_wait.subscribe();
        waits.wait_for(|waits| !waits).await.expect("the sender");
        match self.slow.load(Ordering::Relaxed) {
            0 => tokio::task::yield_now().await,
            slow => sleep(Duration::from_millis(slow)).await,
        }
        self.saves.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        if let Some(old) = state.sessions.get(client)
            && old.epoch > session.epoch
        {
            return Err(StorageError("a stale connection".into()));
        }
        state.sessions.insert(client.clone(), session);
        Ok(())
    }

    async fn delete_session(&self, client: &ClientId) -> Result<(), StorageError> {
        self.check_storage()?;
        self.write_shares(None);
        let mut state = self.state();
        state.sessions.remove(client);
        state.unreleased.remove(client);
        Ok(())
    }

    async fn sessions(&self) -> Result<Vec<(ClientId, SavedSession)>, StorageError> {
        Ok(self
            .state()
            .sessions
            .iter()
            .map(|(id, saved)| (id.clone(), saved.clone()))
            .collect())
    }

    async fn retained(&self, filter: &TopicFilter) -> Result<Vec<Message>, StorageError> {
        let slow = self.retained_slow.load(Ordering::Relaxed);
        if slow > 0 {
            sleep(Duration::from_millis(slow)).await;
        }
        let (state, now_ms) = (self.state(), self.now_ms());
        let all = state
            .retained
            .values()
            .filter_map(|bytes| convert::decode_retained(bytes.clone()));
        Ok(all
            .filter(|message| filter.matches(&message.topic) && !message.is_expired(now_ms))
            .collect())
    }

    fn feeds_for(&self, filter: &TopicFilter) -> Vec<(FeedId, Position)> {
        let state = self.state();
        let first = filter.levels().next().unwrap_or_default();
        let streams = state.streams.iter().enumerate();
        let wanted = streams.filter(|(_, (name, _))| {
            matches!(first, "+" | "#") || *name == record::stream_for_topic(filter.as_str())
        });
        wanted
            .map(|(index, (_, records))| {
                (
                    FeedId {
                        stream: index as u64,
                        partition: 0,
                    },
                    Position(records.len() as u64),
                )
            })
            .collect()
    }

    fn accepted(&self) -> Vec<u64> {
        match self.answers_early.load(Ordering::Relaxed) {
            true => vec![self.state().accepted],
            false => vec![0],
        }
    }

    fn is_readable(&self, accepted: &[u64]) -> bool {
        self.state().committed >= accepted[0]
    }

    fn feeds_generation(&self) -> u64 {
        self.state().streams.len() as u64
    }

    async fn read(
        &self,
        feed: FeedId,
        from: Position,
        max_bytes: usize,
        wanted: Wanted<'_>,
    ) -> Result<FeedRead, ReadError> {
        let mut waits = self.reads_wait.subscribe();
        waits.wait_for(|waits| !waits).await.expect("the sender");
        let state = self.state();
        let (name, records) = state
            .streams
            .get(feed.stream as usize)
            .ok_or(ReadError::Gone)?;
        let mut read = FeedRead {
            next: from,
            ..FeedRead::default()
        };
        let mut bytes = 0;
        for record in records.iter().skip(from.0 as usize) {
            if bytes >= max_bytes {
                break;
            }
            bytes += record.value.as_ref().map_or(0, |value| value.len());
            read.next = Position(record.offset as u64 + 1);
            let topic = topic_for_record(name, record.key.as_deref());
            if !wanted(Position(record.offset as u64), &topic) {
                continue;
            }
            if let Some(mut message) = convert::message(name, record) {
                let set = *self.clock.borrow();
                // As on the edge: put right as it is read, or afterwards.
                message.expires_at = message.expires_at.map(|at| match set {
                    None => Expiry::blind(at.at(), self.off.clone()),
                    Some(set) if (set.from_ms..=set.to_ms).contains(&record.timestamp) => {
                        at.later(set.add_ms)
                    }
                    Some(_) => at,
                });
                read.messages
                    .push((Position(record.offset as u64), message));
            }
        }
        self.messages_read
            .fetch_add(read.messages.len() as u64, Ordering::Relaxed);
        Ok(read)
    }

    async fn wait(&self, positions: &[(FeedId, Position)], feeds_generation: u64) -> Vec<FeedId> {
        let mut changed = self.changed.subscribe();
        let moved = || {
            let state = self.state();
            let moved = positions.iter().filter(|(feed, at)| {
                let stream = state.streams.get(feed.stream as usize);
                stream.is_none_or(|(_, records)| records.len() as u64 > at.0)
            });
            moved.map(|(feed, _)| *feed).collect::<Vec<_>>()
        };
        let _ = changed
            .wait_for(|_| {
                self.state().streams.len() as u64 != feeds_generation || !moved().is_empty()
            })
            .await;
        moved()
    }

    async fn shared_join(
        &self,
        share: &TopicFilter,
        client: &ClientId,
        holds: Vec<(FeedId, Position)>,
    ) -> Result<(), StorageError> {
        let _locked = self.locked().await;
        let joins = Joins {
            client,
            is_stored: self.state().sessions.contains_key(client),
            holds,
        };
        let saved = || {
            let state = self.state();
            Ok(state.groups.get(share).map(|saved| saved.bytes.clone()))
        };
        self.shares().join(self, share, joins, saved)
    }

    async fn shared_take(
        &self,
        share: &TopicFilter,
        client: &ClientId,
        max_messages: usize,
        max_bytes: usize,
    ) -> Result<Vec<Taken>, ReadError> {
        let _locked = self.locked().await;
        self.shares()
            .take(self, share, client, max_messages, max_bytes)
            .await
    }

    async fn shared_settle(
        &self,
        share: &TopicFilter,
        client: &ClientId,
        places: Vec<(FeedId, Position)>,
    ) -> Result<(), StorageError> {
        self.check_storage()?;
        self.shares().settle(share, client, &places);
        Ok(())
    }

    async fn shared_flush(&self, _: &TopicFilter) -> Result<(), StorageError> {
        self.write_shares(None);
        Ok(())
    }

    async fn shared_release(
        &self,
        share: &TopicFilter,
        client: &ClientId,
        places: Option<Vec<(FeedId, Position)>>,
    ) -> Result<(), StorageError> {
        self.shares().release(share, client, places.as_deref());
        Ok(())
    }

    async fn shared_leave(
        &self,
        share: &TopicFilter,
        client: &ClientId,
    ) -> Result<(), StorageError> {
        let _locked = self.locked().await;
        let end = || {
            self.state().groups.remove(share);
            Ok(())
        };
        self.shares().leave(share, client, end)
    }

    async fn shared_recovered(&self) -> Result<(), StorageError> {
        let shares = self.shares();
        let groups = &mut self.state().groups;
        groups.retain(|share, _| shares.is_there(share));
        Ok(())
    }
}
