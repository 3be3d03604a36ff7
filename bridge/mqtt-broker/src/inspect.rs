//! What whoever looks after a broker asks of it, and does to its clients.

use crate::backend::{Backend, ClientId, Message, StorageError};
use crate::broker::Broker;
use crate::clients::{Ask, ConnectedClient, Entry, SubscriptionInfo, subscriptions};
use crate::extra::{Bans, SlowSubscriber};
use crate::unsettled::{settle, settle_left};
use crate::{deadlines, limits};
use futures_util::stream::iter;
use futures_util::{StreamExt, TryStreamExt};
use mqtt_codec::{ReasonCode, TopicFilter};
use mqtt_session::{Ended, Session};
use std::sync::Arc;
use tokio::sync::oneshot;

/// A persistent session.
#[derive(Clone, Debug)]
pub struct StoredSession {
    pub client: ClientId,
    pub connected: bool,
    /// Since when its client is away, milliseconds since the epoch.
    pub disconnected_ms: Option<i64>,
    /// Seconds after the connection; `u32::MAX` = for ever.
    pub expiry_interval: u32,
    pub subscriptions: Vec<SubscriptionInfo>,
    pub in_flight: usize,
    /// A will waits for its delay.
    pub will_pending: bool,
}

impl<B: Backend> Broker<B> {
    /// Those that are connected, by client id.
    pub fn clients(&self) -> Vec<ConnectedClient> {
        self.clients.list()
    }

    pub fn client(&self, client: &ClientId) -> Option<ConnectedClient> {
        self.clients.info(client)
    }

    /// The persistent sessions as they are stored, by client id. Of one that is connected up to a second old.
    pub async fn sessions(&self) -> Result<Vec<StoredSession>, StorageError> {
        let mut sessions = Vec::new();
        for (client, saved) in self.backend.sessions().await? {
            match Session::from_bytes(client.clone(), saved.bytes) {
                Ok(session) => sessions.push(self.stored(&session)),
                Err(error) => tracing::error!(%client, %error, "a stored session can not be read"),
            }
        }
        sessions.sort_by(|a, b| a.client.cmp(&b.client));
        Ok(sessions)
    }

    fn stored(&self, session: &Session) -> StoredSession {
        let connected = self.clients.get(session.client_id()).is_some();
        StoredSession {
            client: session.client_id().clone(),
            connected,
            disconnected_ms: session.disconnected_at().filter(|_| !connected),
            expiry_interval: session.expiry_seconds(),
            subscriptions: subscriptions(session),
            in_flight: session.in_flight_len(),
            will_pending: !connected && session.has_will(),
        }
    }

    /// The subscriptions of a client, connected or not. `None`: there is no such client.
    pub async fn subscriptions_of(
        &self,
        client: &ClientId,
    ) -> Result<Option<Vec<SubscriptionInfo>>, StorageError> {
        if let Some(entry) = self.clients.get(client) {
            let (answer, answered) = oneshot::channel();
            entry.ask(Ask::Subscriptions(answer));
            if let Ok(Ok(list)) = tokio::time::timeout(limits::ASKED, answered).await {
                return Ok(Some(list));
            }
        }
        let saved = self.backend.load_session(client).await?;
        let session = saved.map(|saved| Session::from_bytes(client.clone(), saved.bytes));
        let session = session
            .transpose()
            .map_err(|e| StorageError(e.to_string()))?;
        Ok(session.map(|session| subscriptions(&session)))
    }

    /// The subscriptions of those who are connected, by client id. They are asked together: some may have to be waited for.
    pub async fn subscriptions_of_connected(
        &self,
    ) -> Result<Vec<(ClientId, Vec<SubscriptionInfo>)>, StorageError> {
        let asked = self.clients().into_iter().map(|connected| async move {
            let list = self.subscriptions_of(&connected.client).await?;
            Ok((connected.client, list.unwrap_or_default()))
        });
        iter(asked)
            .buffered(limits::ASKED_AT_ONCE)
            .try_collect()
            .await
    }

    /// Ends a connection, with reason code 0x98 (administrative action). `false`: it is not connected.
    pub fn kick(&self, client: &ClientId) -> bool {
        let entry = self.clients.get(client);
        if let Some(entry) = &entry {
            entry.ask(Ask::Kick);
        }
        entry.is_some()
    }

    /// Ends the connections of who is banned now.
    pub fn kick_banned(&self) -> usize {
        let all = self.clients.all().into_iter();
        all.filter(|entry| self.is_banned(entry))
            .map(|entry| entry.ask(Ask::Kick))
            .count()
    }

    pub(crate) fn is_banned(&self, entry: &Entry) -> bool {
        let mut keys = entry.ban_keys();
        keys.any(|key| self.bans.is_banned(&key))
    }

    /// Ends a persistent session for good, connection and all; its will is published then [MQTT-3.1.3-9]. `false`: there is none.
    pub async fn delete_session(self: &Arc<Self>, client: &ClientId) -> Result<bool, StorageError> {
        // Who has none keeps its connection: it is about sessions, and this one ends with it anyway.
        if self.backend.load_session(client).await?.is_none() {
            return Ok(false);
        }
        let _claim = self.registry.take_away(client).await;
        settle_left(self, client).await?;
        let Some(saved) = self.backend.load_session(client).await? else {
            // It has ended with its connection.
            return Ok(true);
        };
        let mut session = Session::from_bytes(client.clone(), saved.bytes)
            .map_err(|error| StorageError(error.to_string()))?;
        let ended = Ended {
            will: session.take_will(),
            keep: false,
        };
        crate::Metrics::sub(&self.metrics.persistent_sessions, 1);
        settle(self, &mut session, ended, true).await?;
        Ok(true)
    }

    /// Takes a subscription away, of a client that is connected or not. `None`: there is no such client; `false`: no such subscription.
    pub async fn unsubscribe(
        self: &Arc<Self>,
        client: &ClientId,
        filter: &TopicFilter,
    ) -> Result<Option<bool>, StorageError> {
        if let Some(entry) = self.clients.get(client) {
            let (answer, answered) = oneshot::channel();
            entry.ask(Ask::Unsubscribe(filter.clone(), answer));
            if let Ok(Ok(was_there)) = tokio::time::timeout(limits::ASKED, answered).await {
                return Ok(Some(was_there));
            }
        }
        let Some(_claim) = self.registry.try_claim(client) else {
            return Err(StorageError(format!("client {client} is busy")));
        };
        settle_left(self, client).await?;
        let Some(saved) = self.backend.load_session(client).await? else {
            return Ok(None);
        };
        let mut session = Session::from_bytes(client.clone(), saved.bytes)
            .map_err(|error| StorageError(error.to_string()))?;
        if session.is_member(filter) {
            self.backend.shared_leave(filter, client).await?;
        }
        let was_there = self.unsubscribe_session(&mut session, filter) == ReasonCode::SUCCESS;
        self.keep_wanted_feeds(&mut session);
        deadlines::save(self, &mut session).await?;
        Ok(Some(was_there))
    }

    /// The retained messages that match, stored or not.
    pub async fn retained(&self, filter: &TopicFilter) -> Result<Vec<Message>, StorageError> {
        let mut found = self.backend.retained(filter).await?;
        let unstored = &self.hub.unstored;
        if unstored.is_used() {
            // What is stored of such a topic is of a time before its rule.
            found.retain(|message| unstored.is_stored(&message.topic));
            found.extend(unstored.retained.matching(filter, self.backend.now_ms()));
        }
        Ok(found)
    }

    /// The slowest first.
    pub fn slow_subscribers(&self) -> Vec<SlowSubscriber> {
        let waiting = self.clients.waiting(self.extra.slow_after);
        self.slow.list(waiting, self.backend.now_ms())
    }

    pub fn bans(&self) -> &Bans {
        &self.bans
    }
}
