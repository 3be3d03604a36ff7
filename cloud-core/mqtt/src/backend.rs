//! The broker's [`Backend`] on the kernel.

use frontend::{Context, retained as retained_layout};
use mqtt_broker::Backend;
use mqtt_broker::backend::{
    ClientId, FeedId, FeedRead, Message, Position, Publish, PublishError, ReadError, SavedSession,
    StorageError,
};
use mqtt_broker::convert;
use mqtt_codec::{PacketId, TopicFilter};
use record::{Namespace, stream_for_topic};

use crate::feeds::Feeds;
use crate::metrics::Metrics;
use crate::publish::Publisher;
use crate::retained;
use crate::sessions::Sessions;

/// Where the core keeps what its MQTT broker handles: messages in streams, sessions and retained messages in tables.
pub struct CoreBackend {
    ctx: Context,
    namespace: Namespace,
    publisher: Publisher,
    sessions: Sessions,
    feeds: Feeds,
}

impl CoreBackend {
    /// Fails only when the metrics of another one are in the registry already.
    pub fn new(ctx: Context, namespace: Namespace) -> Result<CoreBackend, prometheus::Error> {
        let metrics = Metrics::register(&ctx.registry)?;
        Ok(CoreBackend {
            publisher: Publisher::new(ctx.clone(), namespace.clone(), metrics.clone()),
            sessions: Sessions::new(ctx.kernel.clone(), namespace.clone()),
            feeds: Feeds::new(ctx.kernel.clone(), namespace.clone(), metrics.clone()),
            namespace,
            ctx,
        })
    }

    async fn store(
        &self,
        publish: Publish,
        exactly_once: Option<(ClientId, PacketId)>,
    ) -> Result<(), PublishError> {
        let topic = publish.message.topic.as_str();
        let record = convert::new_record(&publish, self.ctx.now_ms());
        let mut with_it = Vec::new();
        if let Some((client, packet_id)) = exactly_once {
            with_it.push(self.sessions.remember(&client, packet_id));
        }
        if publish.message.retain {
            let command = retained_layout::command(&self.namespace, topic, &record)
                .map_err(|error| PublishError::QuotaExceeded(error.to_string()))?;
            with_it.push(command);
        }
        let verdict = self
            .publisher
            .publish(stream_for_topic(topic), record, with_it)?;
        let gone = |_| {
            Err(PublishError::Unavailable(
                "the write was abandoned: the process is shutting down".into(),
            ))
        };
        verdict.await.unwrap_or_else(gone)
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
        self.store(publish, exactly_once).await
    }

    async fn release(&self, client: &ClientId, packet_id: PacketId) -> Result<(), StorageError> {
        self.sessions.release(client, packet_id).await
    }

    async fn unreleased(&self, client: &ClientId) -> Result<Vec<PacketId>, StorageError> {
        Ok(self.sessions.unreleased(client))
    }

    async fn load_session(&self, client: &ClientId) -> Result<Option<SavedSession>, StorageError> {
        self.sessions.load(client)
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
        Ok(self.sessions.all())
    }

    async fn retained(&self, filter: &TopicFilter) -> Result<Vec<Message>, StorageError> {
        Ok(retained::matching(
            &self.ctx.kernel,
            &self.namespace,
            filter,
            self.ctx.now_ms(),
        ))
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
    ) -> Result<FeedRead, ReadError> {
        self.feeds.read(feed, from, max_bytes).await
    }

    async fn wait(&self, positions: &[(FeedId, Position)], feeds_generation: u64) -> Vec<FeedId> {
        self.feeds.wait(positions, feeds_generation).await
    }
}
