//! Messages that are published later: the store keeps them until they are due.

use mqtt_broker::backend::{Backend, ClientId, Publish, PublishError, Rest, StorageError};
use mqtt_broker::later::{self, Due, DueNow, Kind, Later};
use mqtt_broker::limits::DELAYED_AT_ONCE;
use mqtt_codec::PacketId;
use store::{Delayed, DelayedKey, NewDelayed, NewMessage, WillRest, WriteError};
use tokio_util::sync::CancellationToken;

use crate::backend::{EdgeBackend, failed};
use crate::limits;

impl EdgeBackend {
    /// Publishes what was to be published later, until `stop`.
    pub async fn publish_delayed(&self, stop: CancellationToken) {
        stop.run_until_cancelled(later::run(self)).await;
    }

    pub async fn delay(
        &self,
        publish: Publish,
        delay_ms: i64,
        exactly_once: Option<(ClientId, PacketId)>,
    ) -> Result<(), PublishError> {
        let _place = self.retained_place(&publish.message)?;
        later::check_count(self.store.delayed_len())?;
        // As if it were published now: what can not be stored is refused now, and this is the lane that its packet id goes with.
        let NewMessage { lane, packet, .. } = self.outbox.message(&publish, exactly_once)?;
        let stamp = self.outbox.clock.stamp();
        let message = NewDelayed {
            due_ms: stamp.ms.saturating_add(delay_ms),
            blind: stamp.blind,
            value: later::encode(&publish, Kind::Later).into(),
            packet: packet.map(|packet| (lane, packet)),
        };
        let kept = self.store.delay(message).await;
        kept.map_err(|error| self.refused(error))
    }

    /// A will that finds no room waits as what is published later does, and is due.
    pub async fn keep(&self, will: Publish, rest: Rest) -> Result<(), StorageError> {
        later::check_count(self.store.delayed_len()).map_err(failed)?;
        let stamp = self.outbox.clock.stamp();
        let message = NewDelayed {
            due_ms: stamp.ms,
            blind: stamp.blind,
            value: later::encode(&will, Kind::Will).into(),
            packet: None,
        };
        let client = &will.publisher;
        let rest = match rest {
            Rest::Nothing => WillRest::Nothing,
            Rest::Save(session) => WillRest::Save(self.storable(client, session)?),
            Rest::Delete => {
                self.write_shares(None)?;
                WillRest::Delete
            }
        };
        let kept = self.store.keep_will(message, client.as_str(), rest).await;
        kept.map_err(failed)
    }
}

/// With its times by the clock as it is now.
fn due(message: Delayed, now_ms: i64) -> Due<DelayedKey> {
    let late_ms = now_ms.saturating_sub(message.due_ms());
    let mut publish = later::decode(message.value, late_ms);
    if let Some(publish) = &mut publish {
        let expires_at = &mut publish.message.expires_at;
        *expires_at = expires_at.take().map(|at| at.later(message.add_ms));
    }
    Due {
        key: message.key,
        publish,
    }
}

impl Later for EdgeBackend {
    type Key = DelayedKey;

    fn due(&self, now_ms: i64) -> Result<DueNow<DelayedKey>, StorageError> {
        if !self.outbox.clock.is_settled() {
            // The store is being told what its times mean by a clock that was just set.
            return Ok(DueNow {
                messages: Vec::new(),
                next_ms: None,
            });
        }
        let found = self.store.delayed_due(now_ms, DELAYED_AT_ONCE);
        let found = found.map_err(|error| StorageError(error.to_string()))?;
        Ok(DueNow {
            messages: found
                .messages
                .into_iter()
                .map(|one| due(one, now_ms))
                .collect(),
            next_ms: found.next_ms,
        })
    }

    async fn publish_due(
        &self,
        key: &DelayedKey,
        mut publish: Publish,
    ) -> Result<(), PublishError> {
        let place = self.retained_place(&publish.message);
        let _place = later::or_not_retained(place, &mut publish.message);
        let message = NewMessage {
            delayed: Some(*key),
            ..self.outbox.message(&publish, None)?
        };
        match self.store.publish(message).await {
            Ok(()) => self.store.delayed_published(*key),
            // Counted and reported to the core, as one that comes now.
            Err(WriteError::Dropped(_)) => {
                let forgotten = self.store.forget_delayed(*key).await;
                forgotten.map_err(|error| PublishError::Unavailable(error.to_string()))?;
            }
            // It was acknowledged: it waits until there is room.
            Err(error @ (WriteError::Full(_) | WriteError::DiskFull | WriteError::TooFast)) => {
                let again = self.now_ms().saturating_add(limits::DELAYED_AGAIN_MS);
                self.store.put_off_delayed(*key, again);
                return Err(PublishError::Unavailable(error.to_string()));
            }
            Err(error) => return Err(self.refused(error)),
        }
        Ok(())
    }

    async fn forget_due(&self, key: &DelayedKey) -> Result<(), StorageError> {
        let forgotten = self.store.forget_delayed(*key).await;
        forgotten.map_err(|error| StorageError(error.to_string()))
    }

    async fn delayed_changed(&self) {
        self.store.delayed_changed().await;
    }
}
