//! SUBSCRIBE and UNSUBSCRIBE, of the client and of whoever subscribes and unsubscribes for it.

use crate::backend::{Backend, StorageError};
use crate::connection::{Connection, End};
use crate::extra::exclusive;
use crate::sys::wants_sys;
use mqtt_codec::{ReasonCode, Subscribe, SubscribeFilter, TopicFilter, Unsubscribe};
use tokio::io::{AsyncRead, AsyncWrite};

/// What one filter of a SUBSCRIBE came to.
pub(crate) struct SubscribedOne {
    pub reason_code: ReasonCode,
    /// The retained messages that match this filter are to be sent.
    pub send_retained: Option<TopicFilter>,
}

impl<B: Backend, S: AsyncRead + AsyncWrite + Send + 'static> Connection<B, S> {
    pub(crate) async fn subscribe(&mut self, subscribe: Subscribe) -> Result<(), End> {
        self.shared.stop();
        let identifier = subscribe
            .properties
            .subscription_identifiers
            .first()
            .copied();
        let mut codes = Vec::with_capacity(subscribe.filters.len());
        let mut with_retained = Vec::new();
        for entry in subscribe.filters {
            let subscribed = self.subscribe_one(entry, identifier).await?;
            codes.push(subscribed.reason_code);
            with_retained.extend(subscribed.send_retained);
        }
        if self.session.is_persistent() {
            self.save_now().await?;
        }
        self.session.suback(subscribe.packet_id, codes);
        self.subscribed(with_retained).await?;
        Ok(())
    }

    /// One filter of a SUBSCRIBE, or one that the server subscribes the client to.
    pub(crate) async fn subscribe_one(
        &mut self,
        mut entry: SubscribeFilter,
        identifier: Option<u32>,
    ) -> Result<SubscribedOne, StorageError> {
        let refused = |reason_code| {
            Ok(SubscribedOne {
                reason_code,
                send_retained: None,
            })
        };
        let broker = self.broker.clone();
        let rewrites = &broker.extra.rewrites;
        entry.filter = rewrites.filter(&entry.filter, &self.principal);
        let exclusive = match exclusive(&entry.filter) {
            None => false,
            Some(None) => return refused(ReasonCode::TOPIC_FILTER_INVALID),
            Some(Some(inner)) => {
                entry.filter = inner;
                true
            }
        };
        if let Err(code) = self.session.check_subscribe(&entry) {
            return refused(code);
        }
        // Of a shared subscription the filter behind the group's name counts.
        let share = entry.filter.share();
        let filter = share.as_ref().map_or(&entry.filter, |(_, filter)| filter);
        // The values of `$SYS` are told to each client: no group has anything to share of them.
        if share.is_some() && wants_sys(filter) {
            return refused(ReasonCode::TOPIC_FILTER_INVALID);
        }
        if !broker.access.may_subscribe(&self.principal, filter) {
            return refused(ReasonCode::NOT_AUTHORIZED);
        }
        let client = self.session.client_id();
        if exclusive && !broker.exclusives.take(&entry.filter, client) {
            return refused(ReasonCode::QUOTA_EXCEEDED);
        }
        if !exclusive {
            broker.exclusives.release(&entry.filter, client);
        }
        let feeds = if entry.filter.is_shared() {
            Box::pin(self.join(&entry.filter)).await?;
            Vec::new()
        } else {
            self.mailbox.with_given(|given| given.close());
            if let Err(error) = self.delivery.subscribe(&entry.filter) {
                tracing::debug!(filter = %entry.filter, %error, "a filter is refused");
                broker.exclusives.release(&entry.filter, client);
                return refused(ReasonCode::TOPIC_FILTER_INVALID);
            }
            // The ends of the feeds come first, the retained messages after: what is published between is in both, never in neither.
            self.feeds_for(&entry.filter)
        };
        let subscribed = self.session.handle_subscribe(&entry, identifier, feeds);
        self.session.set_exclusive(&entry.filter, exclusive);
        Ok(SubscribedOne {
            reason_code: subscribed.reason_code,
            send_retained: subscribed.send_retained.then_some(entry.filter),
        })
    }

    /// After the answer: the retained messages of new subscriptions, and what they bring from now on.
    pub(crate) async fn subscribed(
        &mut self,
        with_retained: Vec<TopicFilter>,
    ) -> Result<(), StorageError> {
        for filter in &with_retained {
            self.begin_retained(filter);
        }
        self.sync_feeds();
        self.shared.sync(&self.session);
        self.delivery.sync_unstored(&self.session);
        self.follow_sys();
        self.place.entry.update(&self.session);
        self.begin_fence();
        Ok(())
    }

    /// The group must be there before SUBACK says so.
    async fn join(&mut self, share: &TopicFilter) -> Result<(), StorageError> {
        if self.session.is_member(share) {
            return Ok(());
        }
        let (backend, client) = (&self.broker.backend, self.session.client_id());
        let holds = self.session.holds(share);
        backend.shared_join(share, client, holds).await
    }

    pub(crate) async fn unsubscribe(&mut self, unsubscribe: Unsubscribe) -> Result<(), End> {
        let filters = unsubscribe.filters.iter();
        let filters: Vec<TopicFilter> = filters.map(|filter| self.subscribed_as(filter)).collect();
        let codes = self.unsubscribe_from(&filters).await?;
        self.session.unsuback(unsubscribe.packet_id, codes);
        Ok(())
    }

    pub(crate) async fn unsubscribe_from(
        &mut self,
        filters: &[TopicFilter],
    ) -> Result<Vec<ReasonCode>, StorageError> {
        self.shared.stop();
        let mut codes = Vec::with_capacity(filters.len());
        for filter in filters {
            let member = self.session.is_member(filter);
            self.delivery.unsubscribe(filter);
            codes.push(self.broker.unsubscribe_session(&mut self.session, filter));
            if member {
                // What was sent is still this client's to acknowledge [MQTT-3.10.4-3]; what was not goes to others.
                self.shared.leave(filter).await?;
            }
        }
        for filter in filters {
            self.retained.forget(filter);
        }
        self.broker.keep_wanted_feeds(&mut self.session);
        if self.session.is_persistent() {
            self.save_now().await?;
        }
        self.sync_feeds();
        self.delivery.sync_unstored(&self.session);
        let lost = self.delivery.look_for_left(&self.session);
        self.lost(lost);
        self.give_on();
        self.follow_sys();
        self.place.entry.update(&self.session);
        // What it was given for them early does not come back.
        self.begin_fence();
        Ok(codes)
    }
}
