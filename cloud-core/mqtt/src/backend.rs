//! The broker's [`Backend`] on the kernel.

use std::sync::Arc;

use bytes::Bytes;
use frontend::{Context, retained as retained_layout};
use futures_util::future::BoxFuture;
use kernel::{Command, Entry};
use mqtt_broker::Backend;
use mqtt_broker::backend::{
    ClientId, FeedId, FeedRead, Message, Position, Publish, PublishError, ReadError, Rest,
    SavedSession, StorageError, Taken, Wanted, WillOf,
};
use mqtt_broker::convert;
use mqtt_broker::extra::{RetainedLimits, RetainedPlace, RetainedRoom, RetainedSum, RetainedThere};
use mqtt_broker::later::{self, DueNow, Kind, Later};
use mqtt_broker::sweeping::{self, Sweep, Sweeper};
use mqtt_codec::{PacketId, TopicFilter, TopicName};
use record::{Namespace, NewRecord, StreamName, stream_for_topic};
use tokio::sync::oneshot::error::RecvError;

use crate::delayed::Delayed;
use crate::feeds::Feeds;
use crate::metrics::Metrics;
use crate::publish::Publisher;
use crate::retained;
use crate::sessions::Sessions;
use crate::shares::Shares;

/// Where the core keeps what its MQTT broker handles: messages in streams, sessions and retained messages in tables.
pub struct CoreBackend {
    ctx: Context,
    namespace: Namespace,
    publisher: Publisher,
    sessions: Sessions,
    feeds: Feeds,
    shares: Shares,
    delayed: Delayed,
    retained_room: RetainedRoom,
    sweeper: Sweeper,
}

impl CoreBackend {
    /// Fails only when the metrics of another one are in the registry already.
    pub fn new(ctx: Context, namespace: Namespace) -> Result<CoreBackend, prometheus::Error> {
        let metrics = Metrics::register(&ctx.registry)?;
        Ok(CoreBackend {
            publisher: Publisher::new(ctx.clone(), namespace.clone(), metrics.clone()),
            sessions: Sessions::new(ctx.kernel.clone(), namespace.clone()),
            feeds: Feeds::new(ctx.kernel.clone(), namespace.clone(), metrics.clone()),
            shares: Shares::new(ctx.kernel.clone(), namespace.clone()),
            delayed: Delayed::new(ctx.kernel.clone(), ctx.now_ms(), namespace.clone()),
            retained_room: RetainedRoom::default(),
            sweeper: Sweeper::default(),
            namespace,
            ctx,
        })
    }

    pub fn with_retained_limits(self, limits: RetainedLimits) -> CoreBackend {
        CoreBackend {
            retained_room: RetainedRoom::new(limits),
            ..self
        }
    }

    /// Publishes what was to be published later, until the shutdown.
    pub async fn publish_delayed(self: Arc<Self>) {
        let until = self.ctx.shutdown.clone();
        until.run_until_cancelled(later::run(&*self)).await;
    }

    /// To be called at start, before anybody connects: deletes packet ids of clients that have no stored session.
    pub async fn forget_unreleased_of_nobody(&self) -> Result<(), StorageError> {
        self.sessions.forget_unreleased_of_nobody().await
    }

    /// Deletes retained messages that have expired, until the shutdown.
    pub async fn sweep_retained(self: Arc<Self>) {
        let until = self.ctx.shutdown.clone();
        until.run_until_cancelled(sweeping::run(&*self)).await;
    }

    fn retained_place(&self, message: &Message) -> Result<RetainedPlace<'_>, PublishError> {
        self.retained_room.take(message, self)
    }

    /// `with_it` goes into the same write.
    async fn store(&self, publish: Publish, with_it: Vec<Command>) -> Result<(), PublishError> {
        let topic = publish.message.topic.as_str();
        let record = convert::new_record(&publish, self.ctx.now_ms());
        let mut with_it = with_it;
        if publish.message.retain {
            let command = retained_layout::command(&self.namespace, topic, &record)
                .map_err(|error| PublishError::QuotaExceeded(error.to_string()))?;
            with_it.push(command);
        }
        let bytes = self.publisher.check_size(&record)?;
        let stream = stream_for_topic(topic);
        let verdict = self
            .publisher
            .publish(stream, vec![record], bytes, with_it)?;
        verdict.await.unwrap_or_else(abandoned)
    }
}

fn abandoned(_: RecvError) -> Result<(), PublishError> {
    Err(PublishError::Unavailable(
        "the write was abandoned: the process is shutting down".into(),
    ))
}

/// Messages for one stream.
struct Together {
    stream: StreamName,
    records: Vec<NewRecord>,
    /// Among all that were published together.
    places: Vec<usize>,
    bytes: usize,
    /// Packet ids of QoS 2, in the same write.
    with_it: Vec<Command>,
}

impl Together {
    fn new(stream: StreamName) -> Together {
        Together {
            stream,
            records: Vec::new(),
            places: Vec::new(),
            bytes: 0,
            with_it: Vec::new(),
        }
    }
}

impl Backend for CoreBackend {
    fn now_ms(&self) -> i64 {
        self.ctx.now_ms()
    }

    async fn publish(
        &self,
        publish: Publish,
        exactly_once: Option<(ClientId, PacketId)>,
    ) -> Result<(), PublishError> {
        let _place = self.retained_place(&publish.message)?;
        let packet = exactly_once.map(|(client, id)| self.sessions.remember(&client, id));
        self.store(publish, packet.into_iter().collect()).await
    }

    async fn publish_all(
        &self,
        publishes: Vec<(Publish, Option<PacketId>)>,
    ) -> Vec<Result<(), PublishError>> {
        let now_ms = self.ctx.now_ms();
        let mut results: Vec<Result<(), PublishError>> = Vec::with_capacity(publishes.len());
        let mut together: Vec<Together> = Vec::new();
        let mut last: Option<(TopicName, usize)> = None;
        // Each is let go at once: its record has what is stored, and the buffer in which it came is free for the next as soon as that is in a batch.
        for (place, (publish, packet_id)) in publishes.into_iter().enumerate() {
            let record = convert::new_record(&publish, now_ms);
            let bytes = match self.publisher.check_size(&record) {
                Ok(bytes) => bytes,
                Err(error) => {
                    results.push(Err(error));
                    continue;
                }
            };
            results.push(Ok(()));
            let topic = &publish.message.topic;
            let known = last.as_ref().filter(|(known, _)| known == topic);
            let at = match known {
                Some((_, at)) => *at,
                None => {
                    let stream = stream_for_topic(topic.as_str());
                    let at = together.iter().position(|one| one.stream == stream);
                    let at = at.unwrap_or_else(|| {
                        together.push(Together::new(stream));
                        together.len() - 1
                    });
                    last = Some((topic.clone(), at));
                    at
                }
            };
            if let Some(one) = together.get_mut(at) {
                one.records.push(record);
                one.places.push(place);
                one.bytes += bytes;
                let packet = packet_id.map(|id| self.sessions.remember(&publish.publisher, id));
                one.with_it.extend(packet);
            }
        }
        // All of them have their places in the queues before the first is waited for.
        let queued: Vec<_> = together
            .into_iter()
            .map(|one| {
                let verdict =
                    self.publisher
                        .publish(one.stream, one.records, one.bytes, one.with_it);
                (one.places, verdict)
            })
            .collect();
        for (places, verdict) in queued {
            let verdict = match verdict {
                Ok(verdict) => verdict.await.unwrap_or_else(abandoned),
                Err(error) => Err(error),
            };
            if verdict.is_err() {
                for place in places {
                    if let Some(result) = results.get_mut(place) {
                        result.clone_from(&verdict);
                    }
                }
            }
        }
        results
    }

    async fn publish_will(
        &self,
        will: Publish,
        _: WillOf,
        session: Option<SavedSession>,
    ) -> Result<(), PublishError> {
        let _place = self.retained_place(&will.message)?;
        let client = will.publisher.clone();
        let settling = self.sessions.settling(&client, session.as_ref()).await;
        let (_one_at_a_time, entry) =
            settling.map_err(|error| PublishError::Unavailable(error.to_string()))?;
        self.store(will, entry.commands).await
    }

    async fn keep_will(&self, will: Publish, rest: Rest) -> Result<(), StorageError> {
        let client = will.publisher.clone();
        let settling = match &rest {
            Rest::Nothing => None,
            Rest::Save(session) => Some(self.sessions.settling(&client, Some(session)).await?),
            Rest::Delete => Some(self.sessions.settling(&client, None).await?),
        };
        let (_one_at_a_time, entry) = settling.unzip();
        let with_it = entry.unwrap_or_default().commands;
        let now_ms = self.ctx.now_ms();
        let kept = self.delayed.put(&will, Kind::Will, now_ms, with_it).await;
        kept.map_err(|error| StorageError(error.to_string()))
    }

    async fn publish_later(
        &self,
        publish: Publish,
        delay_ms: i64,
        exactly_once: Option<(ClientId, PacketId)>,
    ) -> Result<(), PublishError> {
        let now_ms = self.ctx.now_ms();
        let record = convert::new_record(&publish, now_ms);
        self.publisher.check_size(&record)?;
        let _place = self.retained_place(&publish.message)?;
        let packet = exactly_once.map(|(client, id)| self.sessions.remember(&client, id));
        let due_ms = now_ms.saturating_add(delay_ms);
        let delayed = &self.delayed;
        delayed.put(&publish, Kind::Later, due_ms, packet).await
    }

    async fn make_retained_room(&self, message: &Message) {
        sweeping::make_room(self, message).await;
    }

    async fn release(
        &self,
        client: &ClientId,
        packet_ids: &[PacketId],
    ) -> Result<(), StorageError> {
        self.sessions.release(client, packet_ids).await
    }

    async fn unreleased(&self, client: &ClientId) -> Result<Vec<PacketId>, StorageError> {
        Ok(self.sessions.unreleased(client))
    }

    async fn load_session(&self, client: &ClientId) -> Result<Option<SavedSession>, StorageError> {
        Ok(self.sessions.load(client))
    }

    async fn save_session(
        &self,
        client: &ClientId,
        session: SavedSession,
    ) -> Result<(), StorageError> {
        self.sessions.save(client, &session).await
    }

    async fn delete_session(&self, client: &ClientId) -> Result<(), StorageError> {
        self.sessions.delete(client).await
    }

    async fn sessions(&self) -> Result<Vec<(ClientId, SavedSession)>, StorageError> {
        Ok(self.sessions.all().await)
    }

    async fn retained(&self, filter: &TopicFilter) -> Result<Vec<Message>, StorageError> {
        let (kernel, now_ms) = (&self.ctx.kernel, self.ctx.now_ms());
        Ok(retained::matching(kernel, &self.namespace, filter, now_ms).await)
    }

    fn retained_count(&self) -> Option<u64> {
        let count = self.ctx.kernel.table_len(retained_layout::TABLE);
        u64::try_from(count).ok()
    }

    fn feeds_for(&self, filter: &TopicFilter) -> Vec<(FeedId, Position)> {
        self.feeds.for_filter(filter)
    }

    fn feeds_generation(&self) -> u64 {
        self.feeds.generation()
    }

    async fn read(
        &self,
        feed: FeedId,
        from: Position,
        max_bytes: usize,
        wanted: Wanted<'_>,
    ) -> Result<FeedRead, ReadError> {
        self.feeds.read(feed, from, max_bytes, wanted).await
    }

    async fn wait(&self, positions: &[(FeedId, Position)], feeds_generation: u64) -> Vec<FeedId> {
        self.feeds.wait(positions, feeds_generation).await
    }

    fn feeds_changed(self: &Arc<Self>, feeds_generation: u64) -> BoxFuture<'static, ()> {
        self.feeds.changed(feeds_generation)
    }

    async fn shared_join(
        &self,
        share: &TopicFilter,
        client: &ClientId,
        holds: Vec<(FeedId, Position)>,
    ) -> Result<(), StorageError> {
        self.shares.join(share, client, &holds).await
    }

    async fn shared_take(
        &self,
        share: &TopicFilter,
        client: &ClientId,
        max_messages: usize,
        max_bytes: usize,
    ) -> Result<Vec<Taken>, ReadError> {
        self.shares
            .take(share, client, max_messages, max_bytes)
            .await
    }

    async fn shared_settle(
        &self,
        share: &TopicFilter,
        client: &ClientId,
        places: Vec<(FeedId, Position)>,
    ) -> Result<(), StorageError> {
        self.shares.settle(share, client, &places).await
    }

    async fn shared_release(
        &self,
        share: &TopicFilter,
        client: &ClientId,
        places: Option<Vec<(FeedId, Position)>>,
    ) -> Result<(), StorageError> {
        self.shares.release(share, client, places.as_deref()).await
    }

    async fn shared_leave(
        &self,
        share: &TopicFilter,
        client: &ClientId,
    ) -> Result<(), StorageError> {
        self.shares.leave(share, client).await
    }

    async fn shared_recovered(&self) -> Result<(), StorageError> {
        self.shares.recovered().await
    }
}

impl Sweep for CoreBackend {
    fn sweeper(&self) -> &Sweeper {
        &self.sweeper
    }

    async fn delete_expired(&self) -> Result<usize, StorageError> {
        let (kernel, now_ms) = (&self.ctx.kernel, self.ctx.now_ms());
        let deleted = retained::delete_expired(kernel, &self.namespace, now_ms).await;
        deleted.map_err(|error| StorageError(error.to_string()))
    }

    fn lacks_room(&self, message: &Message) -> bool {
        self.retained_room.lacks(message, self)
    }
}

impl RetainedThere for CoreBackend {
    fn retained_sum(&self) -> RetainedSum {
        let kernel = &self.ctx.kernel;
        RetainedSum {
            messages: kernel.table_len(retained_layout::TABLE),
            bytes: kernel.table_bytes(retained_layout::TABLE),
        }
    }

    fn retained_bytes(&self, topic: &TopicName) -> Option<u64> {
        let key = retained_layout::key(&self.namespace, topic.as_str());
        let value = self.ctx.kernel.table_get(retained_layout::TABLE, &key)?;
        Some((key.len() + value.len()) as u64)
    }
}

impl Later for CoreBackend {
    type Key = Bytes;

    fn due(&self, now_ms: i64) -> Result<DueNow<Bytes>, StorageError> {
        Ok(self.delayed.due(now_ms))
    }

    async fn publish_due(&self, key: &Bytes, mut publish: Publish) -> Result<(), PublishError> {
        let place = self.retained_place(&publish.message);
        let _place = later::or_not_retained(place, &mut publish.message);
        self.store(publish, vec![Delayed::take(key)]).await
    }

    async fn forget_due(&self, key: &Bytes) -> Result<(), StorageError> {
        let entry = Entry::new().with(Delayed::take(key));
        let written = self.ctx.kernel.write(entry).await;
        written
            .map(drop)
            .map_err(|error| StorageError(error.to_string()))
    }

    async fn delayed_changed(&self) {
        self.delayed.added.notified().await;
    }
}
