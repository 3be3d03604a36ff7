//! The MQTT broker's storage: everything is in the store, and every message is read from its logs.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{select_all, try_join_all};
use mqtt_broker::backend::{
    ClientId, ClockSet, Expiry, FeedId, FeedRead, Message, Position, Publish, PublishError,
    ReadError, Rest, SavedSession, StorageError, Taken, Wanted, WillOf, everything,
};
use mqtt_broker::extra::{RetainedPlace, RetainedRoom, RetainedSum, RetainedThere};
use mqtt_broker::sweeping::{self, Sweeper};
use mqtt_broker::{Backend, Joins, MemoryShares, convert};
use mqtt_codec::{PacketId, QoS, TopicFilter, TopicName};
use record::topic_for_record;
use store::{
    Checkpoint, Frame, From, Lane, LogId, NewMessage, PacketRef, Session, Store, View, WillRef,
    WriteError,
};
use tokio_util::sync::CancellationToken;

use crate::outbox::Outbox;
use crate::shares;

pub struct EdgeBackend {
    pub store: Arc<Store>,
    pub outbox: Arc<Outbox>,
    /// Cancelled when the disk has failed and only a restart can tell what is on it.
    pub disk_failed: CancellationToken,
    /// In memory, and written by [`EdgeBackend::write_shares`].
    pub shares: MemoryShares,
    pub retained_room: RetainedRoom,
    pub sweeper: Sweeper,
}

/// The logs are the feeds, whatever the filter: those of the lanes by their numbers, and the inbox.
const OUTBOX: u64 = 0;
const INBOX: FeedId = FeedId {
    stream: 1,
    partition: 0,
};

fn log_of(feed: FeedId) -> Option<LogId> {
    match feed {
        INBOX => Some(LogId::Inbox),
        FeedId {
            stream: OUTBOX,
            partition,
        } => Some(LogId::Outbox(Lane(partition.try_into().ok()?))),
        _ => None,
    }
}

fn feed_of(log: LogId) -> FeedId {
    match log {
        LogId::Outbox(lane) => FeedId {
            stream: OUTBOX,
            partition: lane.0.into(),
        },
        LogId::Inbox => INBOX,
    }
}

fn to_checkpoints(positions: &[(FeedId, Position)]) -> Vec<Checkpoint> {
    let known = positions.iter().filter_map(|(feed, position)| {
        let log = log_of(*feed)?;
        let position = position.0;
        Some(Checkpoint { log, position })
    });
    known.collect()
}

fn to_saved(session: Session) -> SavedSession {
    let checkpoints = session.checkpoints.into_iter();
    SavedSession {
        epoch: session.epoch,
        checkpoints: checkpoints
            .map(|c| (feed_of(c.log), Position(c.position)))
            .collect(),
        bytes: session.bytes,
    }
}

/// The other way round.
pub fn to_stored(session: SavedSession) -> Session {
    Session {
        epoch: session.epoch,
        checkpoints: to_checkpoints(&session.checkpoints),
        bytes: session.bytes,
    }
}

pub fn failed(error: impl std::fmt::Display) -> StorageError {
    StorageError(error.to_string())
}

/// The messages of a frame for local readers, each with its position and the time of its record. Positions before `from` are left out.
/// What was stamped blind has its right time, as soon as that is known.
pub fn messages(
    store: &Store,
    frame: &Frame,
    from: u64,
    out: &mut Vec<(Position, i64, Message)>,
) -> Result<(), String> {
    let add = frame.blind.and_then(|boot| store.boot_offset(boot));
    messages_at(add.unwrap_or(0), frame, from, &everything, out)
}

fn messages_at(
    add: i64,
    frame: &Frame,
    from: u64,
    wanted: Wanted<'_>,
    out: &mut Vec<(Position, i64, Message)>,
) -> Result<(), String> {
    let batch = frame.batch.rebased(add);
    let mut records = batch.records().map_err(|error| error.to_string())?;
    for index in 0.. {
        let position = Position(frame.position + u64::from(index));
        let view = frame.view(index);
        let wanted = |_, key: Option<&[u8]>| {
            let wanted = |topic: &str| wanted(position, topic);
            position.0 >= from
                && match view {
                    None => wanted(&topic_for_record(&frame.stream, key)),
                    Some(View::Key(topic)) => wanted(topic),
                    Some(View::Hidden) => false,
                }
        };
        let Some(record) = records.next_if(wanted) else {
            break;
        };
        let Some(record) = record.map_err(|error| error.to_string())? else {
            continue;
        };
        let Some(mut message) = convert::message(&frame.stream, &record) else {
            continue;
        };
        if let Some(View::Key(topic)) = view {
            match TopicName::new(topic) {
                Ok(topic) => message.topic = topic,
                Err(_) => continue,
            }
        }
        // Upstream it may be another thing.
        message.retain |= frame.retained.binary_search(&index).is_ok();
        out.push((position, record.timestamp, message));
    }
    Ok(())
}

impl EdgeBackend {
    /// What waits in the broker with a time that was stamped blind is put right when that is.
    fn follow_clock(&self, message: &mut Message) {
        if let Some(expiry) = &message.expires_at {
            message.expires_at = Some(self.outbox.clock.blind(expiry.at()));
        }
    }

    pub fn retained_place(&self, message: &Message) -> Result<RetainedPlace<'_>, PublishError> {
        self.retained_room.take(message, self)
    }

    fn stored(&self, written: Result<(), WriteError>) -> Result<(), PublishError> {
        match written {
            // Counted and reported to the core: its publisher is done with it.
            Err(WriteError::Dropped(_)) => Ok(()),
            written => written.map_err(|error| self.refused(error)),
        }
    }

    async fn save_without_will(
        &self,
        client: &ClientId,
        session: SavedSession,
    ) -> Result<(), StorageError> {
        let session = self.storable(client, session)?;
        let saved = self.store.save_without_will(client.as_str(), session).await;
        saved.map_err(failed)
    }

    /// A session as it is stored. What its shared groups have for it is noted before.
    pub fn storable(
        &self,
        client: &ClientId,
        session: SavedSession,
    ) -> Result<Session, StorageError> {
        self.write_shares(Some(client))?;
        Ok(to_stored(session))
    }

    pub fn refused(&self, error: WriteError) -> PublishError {
        if self.store.failed() {
            self.disk_failed.cancel();
        }
        match error {
            WriteError::Full(_) | WriteError::DiskFull | WriteError::TooFast => {
                PublishError::Full(error.to_string())
            }
            WriteError::NoSuchLane(_)
            | WriteError::TooLarge(_)
            | WriteError::TooManyStreams
            | WriteError::TooMuchDelayed
            | WriteError::Encode(_) => PublishError::QuotaExceeded(error.to_string()),
            WriteError::Dropped(_) | WriteError::Failed(_) | WriteError::Closed => {
                PublishError::Unavailable(error.to_string())
            }
        }
    }
}

impl Backend for EdgeBackend {
    fn now_ms(&self) -> i64 {
        self.outbox.clock.now_ms()
    }

    fn expires_in(&self, ms: i64) -> Expiry {
        self.outbox.clock.expires_in(ms)
    }

    async fn clock_set(&self) -> ClockSet {
        self.outbox.clock.set().await
    }

    async fn publish(
        &self,
        publish: Publish,
        exactly_once: Option<(ClientId, PacketId)>,
    ) -> Result<(), PublishError> {
        let _place = self.retained_place(&publish.message)?;
        let message = self.outbox.message(&publish, exactly_once)?;
        let written = match publish.message.qos {
            QoS::AtMostOnce => self.store.publish_unacknowledged(message).await,
            QoS::AtLeastOnce | QoS::ExactlyOnce => self.store.publish(message).await,
        };
        self.stored(written)
    }

    async fn publish_will(
        &self,
        will: Publish,
        of: WillOf,
        session: Option<SavedSession>,
    ) -> Result<(), PublishError> {
        let unavailable = |error: StorageError| PublishError::Unavailable(error.to_string());
        let client = will.publisher.clone();
        let this = WillRef {
            client: client.as_str(),
            session: of.session,
            connection: of.connection,
        };
        // Then a crash came before its session could be told.
        let published = self.store.has_published(&this).map_err(failed);
        if !published.map_err(unavailable)? {
            let _place = self.retained_place(&will.message)?;
            let message = NewMessage {
                packet: this.packet(),
                ..self.outbox.message(&will, None)?
            };
            self.stored(self.store.publish(message).await)?;
        }
        let settled = match session {
            Some(session) => self.save_without_will(&client, session).await,
            None => self.delete_session(&client).await,
        };
        settled.map_err(unavailable)
    }

    async fn keep_will(&self, will: Publish, rest: Rest) -> Result<(), StorageError> {
        self.keep(will, rest).await
    }

    async fn publish_later(
        &self,
        publish: Publish,
        delay_ms: i64,
        exactly_once: Option<(ClientId, PacketId)>,
    ) -> Result<(), PublishError> {
        self.delay(publish, delay_ms, exactly_once).await
    }

    async fn make_retained_room(&self, message: &Message) {
        sweeping::make_room(self, message).await;
    }

    async fn release(
        &self,
        client: &ClientId,
        packet_ids: &[PacketId],
    ) -> Result<(), StorageError> {
        let packets = packet_ids.iter().map(|packet_id| PacketRef {
            client: client.as_str().to_owned(),
            packet_id: packet_id.get(),
        });
        let released = packets.map(|packet| self.store.release(packet));
        try_join_all(released).await.map(drop).map_err(failed)
    }

    async fn unreleased(&self, client: &ClientId) -> Result<Vec<PacketId>, StorageError> {
        let ids = self.store.unreleased(client.as_str()).map_err(failed)?;
        Ok(ids.into_iter().filter_map(PacketId::new).collect())
    }

    async fn load_session(&self, client: &ClientId) -> Result<Option<SavedSession>, StorageError> {
        let session = self.store.load_session(client.as_str()).map_err(failed)?;
        Ok(session.map(to_saved))
    }

    async fn save_session(
        &self,
        client: &ClientId,
        session: SavedSession,
    ) -> Result<(), StorageError> {
        let session = self.storable(client, session)?;
        let saved = self.store.save_session(client.as_str(), session).await;
        saved.map_err(failed)
    }

    async fn delete_session(&self, client: &ClientId) -> Result<(), StorageError> {
        // What nobody else may get is settled: only the session knew.
        self.write_shares(None)?;
        let deleted = self.store.delete_session(client.as_str()).await;
        deleted.map_err(failed)
    }

    async fn sessions(&self) -> Result<Vec<(ClientId, SavedSession)>, StorageError> {
        let sessions = self.store.sessions().map_err(failed)?;
        let named = sessions.into_iter();
        // Those of the reductions and of shared groups are no client's.
        let named = named.filter(|(client, _)| !client.starts_with('\0'));
        Ok(named
            .map(|(client, session)| (ClientId::new(&client), to_saved(session)))
            .collect())
    }

    fn progress(&self, client: &ClientId, positions: &[(FeedId, Position)]) {
        self.store
            .progress(client.as_str(), to_checkpoints(positions));
    }

    /// The store deletes what everybody has read.
    fn progress_every(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn keeps_for_readers(&self) -> bool {
        true
    }

    async fn retained(&self, filter: &TopicFilter) -> Result<Vec<Message>, StorageError> {
        let mut messages = Vec::new();
        let prefix = literal_prefix(filter.as_str());
        self.store
            .retained(prefix, &mut |retained| {
                let mut message = convert::message(&retained.stream, &retained.record);
                if retained.record.key.as_deref() != Some(retained.key.as_bytes()) {
                    message = message.and_then(|message| {
                        let topic = TopicName::new(&retained.key).ok()?;
                        Some(Message { topic, ..message })
                    });
                }
                let matching = message.filter(|message| filter.matches(&message.topic));
                messages.extend(matching.map(|mut message| {
                    if retained.blind.is_some() {
                        self.follow_clock(&mut message);
                    }
                    message
                }));
                true
            })
            .map_err(failed)?;
        let now = self.now_ms();
        messages.retain(|message| !message.is_expired(now));
        for message in &mut messages {
            message.retain = true;
        }
        Ok(messages)
    }

    fn retained_count(&self) -> Option<u64> {
        u64::try_from(self.store.retained_sum().rows).ok()
    }

    fn feeds_for(&self, _filter: &TopicFilter) -> Vec<(FeedId, Position)> {
        let logs = self.store.logs().into_iter();
        logs.map(|log| (feed_of(log), Position(self.store.end(log).position)))
            .collect()
    }

    fn feeds_generation(&self) -> u64 {
        0
    }

    /// A message of QoS 0 is accepted before it is written.
    fn accepted(&self) -> Vec<u64> {
        self.store.accepted()
    }

    fn is_readable(&self, accepted: &[u64]) -> bool {
        self.store.is_done(accepted)
    }

    async fn read(
        &self,
        feed: FeedId,
        from: Position,
        max_bytes: usize,
        wanted: Wanted<'_>,
    ) -> Result<FeedRead, ReadError> {
        let log = log_of(feed).ok_or(ReadError::Gone)?;
        let read = self
            .store
            .read(log, From::Position(from.0), max_bytes)
            .await;
        let read = read.map_err(failed)?;
        let next = Position(read.next.position.max(from.0));
        let first = read.frames.first().map_or(next.0, |frame| frame.position);
        let mut messages = Vec::new();
        for frame in &read.frames {
            let add = frame.blind.map(|boot| self.store.boot_offset(boot));
            let known = messages.len();
            let add_ms = add.flatten().unwrap_or(0);
            if let Err(error) = messages_at(add_ms, frame, from.0, wanted, &mut messages) {
                tracing::error!(frame = frame.number, %error, "a stored batch can not be read and is passed over");
            }
            if add == Some(None) {
                let blind = messages.iter_mut().skip(known);
                blind.for_each(|(_, _, message)| self.follow_clock(message));
            }
        }
        Ok(FeedRead {
            messages: messages
                .into_iter()
                .map(|(at, _, message)| (at, message))
                .collect(),
            next,
            lost: first.saturating_sub(from.0),
        })
    }

    async fn wait(&self, positions: &[(FeedId, Position)], feeds_generation: u64) -> Vec<FeedId> {
        if feeds_generation != self.feeds_generation() {
            return Vec::new();
        }
        let mut waited = Vec::new();
        for (feed, position) in positions {
            match log_of(*feed) {
                Some(log) => waited.push((*feed, position.0, self.store.watch(log))),
                None => return vec![*feed],
            }
        }
        loop {
            let moved = waited.iter_mut().filter_map(|(feed, position, end)| {
                (end.borrow_and_update().position > *position).then_some(*feed)
            });
            let moved: Vec<_> = moved.collect();
            if !moved.is_empty() {
                return moved;
            }
            if waited.is_empty() {
                return pending().await;
            }
            let changes = waited.iter_mut().map(|(_, _, end)| Box::pin(end.changed()));
            let (changed, _, _) = select_all(changes).await;
            // The store is gone, and nothing will come any more.
            if changed.is_err() {
                pending::<()>().await;
            }
        }
    }

    async fn shared_join(
        &self,
        share: &TopicFilter,
        client: &ClientId,
        holds: Vec<(FeedId, Position)>,
    ) -> Result<(), StorageError> {
        let load = |name: &str| self.store.load_session(name).map_err(failed);
        let joins = Joins {
            client,
            is_stored: load(client.as_str())?.is_some(),
            holds,
        };
        let saved = || Ok(load(&shares::session(share))?.map(|saved| saved.bytes));
        self.shares.join(self, share, joins, saved)?;
        // From now on the store keeps what is there for it.
        self.write_shares(None)
    }

    async fn shared_take(
        &self,
        share: &TopicFilter,
        client: &ClientId,
        max_messages: usize,
        max_bytes: usize,
    ) -> Result<Vec<Taken>, ReadError> {
        self.shares
            .take(self, share, client, max_messages, max_bytes)
            .await
    }

    async fn shared_settle(
        &self,
        share: &TopicFilter,
        client: &ClientId,
        places: Vec<(FeedId, Position)>,
    ) -> Result<(), StorageError> {
        self.shares.settle(share, client, &places);
        Ok(())
    }

    async fn shared_flush(&self, share: &TopicFilter) -> Result<(), StorageError> {
        // A group that goes with the process gives nothing to anybody after it.
        if !self.shares.is_kept(share) {
            return Ok(());
        }
        self.write_shares(None)?;
        self.store.flush_sessions().await.map_err(failed)
    }

    async fn shared_release(
        &self,
        share: &TopicFilter,
        client: &ClientId,
        places: Option<Vec<(FeedId, Position)>>,
    ) -> Result<(), StorageError> {
        self.shares.release(share, client, places.as_deref());
        Ok(())
    }

    async fn shared_leave(
        &self,
        share: &TopicFilter,
        client: &ClientId,
    ) -> Result<(), StorageError> {
        let end = || self.end_share(&shares::session(share));
        self.shares.leave(share, client, end)
    }

    async fn shared_recovered(&self) -> Result<(), StorageError> {
        self.end_strays()
    }
}

impl RetainedThere for EdgeBackend {
    fn retained_sum(&self) -> RetainedSum {
        let sum = self.store.retained_sum();
        RetainedSum {
            messages: sum.rows,
            bytes: sum.bytes,
        }
    }

    fn retained_bytes(&self, topic: &TopicName) -> Option<u64> {
        // A ledger that can not be read says so to whoever writes to it.
        self.store.retained_bytes(topic.as_str()).ok().flatten()
    }
}

/// What every matching topic begins with. `sport/#` also matches `sport` itself, so the slash before a wildcard is left out.
fn literal_prefix(filter: &str) -> &str {
    let literal = filter.split(['+', '#']).next().unwrap_or_default();
    literal.strip_suffix('/').unwrap_or(literal)
}

/// Which records of a batch set or clear a retained message.
pub fn retained_records(
    stream: &record::StreamName,
    batch: &record::Batch,
) -> Result<Vec<u32>, record::BatchError> {
    let mut retained = Vec::new();
    for (index, record) in (0..).zip(batch.records()?) {
        let message = convert::message(stream, &record?);
        if message.is_some_and(|message| message.retain) {
            retained.push(index);
        }
    }
    Ok(retained)
}

#[cfg(test)]
mod tests;
