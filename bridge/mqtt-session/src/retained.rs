//! The retained messages that subscriptions are still to get (section 3.3.1.3). A part of the session's state: a client that finds its session again
//! does not subscribe again, so nobody but the session knows what it has not had of them.

use crate::in_flight::{Awaiting, InFlight, Source};
use crate::outbound::Offer;
use crate::state_bytes::StateError;
use crate::subscriptions::Match;
use crate::{Gate, Message, Session, SharedMessage, limits};
use bytes::Bytes;
use mqtt_codec::{TopicFilter, TopicName};
use std::collections::VecDeque;
use std::sync::Arc;

/// The subscriptions, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Due(VecDeque<(TopicFilter, Option<TopicName>)>);

impl Due {
    /// From the beginning, also where it was due before.
    pub fn begin(&mut self, filter: &TopicFilter) {
        self.remove(filter);
        self.0.push_back((filter.clone(), None));
    }

    pub fn remove(&mut self, filter: &TopicFilter) -> bool {
        let place = self.0.iter().position(|(other, _)| other == filter);
        let removed = place.and_then(|place| self.0.remove(place)).is_some();
        if self.0.is_empty() {
            // Mostly there is none: room for some would be in every idle session.
            self.0 = VecDeque::new();
        }
        removed
    }

    /// As read from storage.
    pub fn put(&mut self, filter: TopicFilter, given: Option<TopicName>) {
        self.0.push_back((filter, given));
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&TopicFilter, Option<&TopicName>)> {
        self.0
            .iter()
            .map(|(filter, given)| (filter, given.as_ref()))
    }

    fn moved(&mut self, filter: &TopicFilter, to: &TopicName) -> bool {
        let due = self.0.iter_mut().find(|(other, _)| other == filter);
        due.map(|(_, given)| *given = Some(to.clone())).is_some()
    }
}

impl Session {
    /// The subscriptions that are to get retained messages, the oldest first, each with the topic up to which it has had them: they are given in the
    /// order of their topics, all of one subscription before the next.
    pub fn retained_due(&self) -> impl Iterator<Item = (&TopicFilter, Option<&TopicName>)> {
        self.due.iter()
    }

    /// A retained message of a subscription that is to get them: RETAIN is set, and only this subscription counts [MQTT-3.3.1-8].
    pub fn offer_retained(
        &mut self,
        filter: &TopicFilter,
        message: &Arc<SharedMessage>,
        now_ms: i64,
    ) -> Offer {
        let offer = self.offer_value(filter, message, now_ms);
        // With the entry in flight, so that no snapshot has the one without the other.
        if offer != Offer::Full {
            self.connection.dirty |= self.due.moved(filter, &message.topic);
        }
        offer
    }

    /// What a subscription gets like a retained message and is not kept for the session's next connection: a value of the server's own.
    pub fn offer_value(
        &mut self,
        filter: &TopicFilter,
        message: &Arc<SharedMessage>,
        now_ms: i64,
    ) -> Offer {
        let Some(subscription) = self.subscriptions.get(filter) else {
            return Offer::Passed;
        };
        let own = subscription.options.no_local && message.origin == Some(self.connection.origin);
        if own || message.is_expired(now_ms) {
            return Offer::Passed;
        }
        let matched = Match {
            qos: subscription.options.qos,
            retain_as_published: true,
            identifiers: subscription.identifier.into_iter().collect(),
        };
        let source = Source::Retained(message.topic.clone());
        self.send(message, matched, true, source, now_ms)
    }

    /// The subscription has had all of them.
    pub fn retained_given(&mut self, filter: &TopicFilter) {
        self.connection.dirty |= self.due.remove(filter);
    }

    /// The rules, or the user, may be others than when a message was sent first: what is in flight with its message, and may not be received now, is not sent
    /// again.
    pub fn drop_forbidden(&mut self, gate: &Gate) {
        let entries = self.in_flight.entries.iter();
        let forbidden = entries.filter(|entry| {
            let message = entry.message.as_ref();
            message.is_some_and(|message| !gate.lets(&message.topic))
        });
        let forbidden: Vec<_> = forbidden.map(|entry| entry.packet_id).collect();
        for packet_id in forbidden {
            self.supply(packet_id, None);
        }
    }
}

/// How many bytes of messages a snapshot may still take.
pub(crate) struct KeptRoom(usize);

impl Default for KeptRoom {
    fn default() -> KeptRoom {
        KeptRoom(limits::KEPT_BYTES)
    }
}

impl KeptRoom {
    /// The message of an entry in flight, as a snapshot keeps it; empty = it does not. A retained message is kept itself: by its topic another one would be found
    /// after a restart, or none, where this one is to be sent again [MQTT-4.4.0-1]. Those of the feeds are found by their positions.
    pub fn take(&mut self, entry: &InFlight) -> Bytes {
        let most = self.0.min(limits::KEPT_MESSAGE_BYTES);
        let message = entry.message.as_ref();
        let message = message.filter(|message| {
            matches!(entry.source, Source::Retained(_))
                && entry.awaiting != Awaiting::PubComp
                && message.size() <= most
        });
        let bytes = message.map_or(Bytes::new(), |message| message.to_bytes());
        if bytes.len() > most {
            return Bytes::new();
        }
        self.0 -= bytes.len();
        bytes
    }
}

/// What [`KeptRoom::take`] gave.
pub(crate) fn kept(bytes: Bytes) -> Result<Option<Arc<SharedMessage>>, StateError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let message = Message::from_bytes(bytes);
    let message = message.ok_or(StateError::Damaged("a message in flight"))?;
    Ok(Some(Arc::new(message.into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClientId, MessageProperties};
    use mqtt_codec::{QoS, SubscribeFilter, SubscriptionOptions};

    fn filter() -> TopicFilter {
        TopicFilter::new("#").unwrap()
    }

    fn subscribed() -> Session {
        let mut session = Session::new(ClientId::new("c"), 1, 1);
        session.expiry_interval = u32::MAX;
        let options = SubscriptionOptions {
            qos: QoS::AtLeastOnce,
            ..SubscriptionOptions::default()
        };
        let filter = filter();
        session.handle_subscribe(&SubscribeFilter { filter, options }, None, Vec::new());
        session
    }

    fn offer(session: &mut Session, topic: usize, size: usize) {
        let message = Message {
            topic: TopicName::new(&format!("{topic:04}")).unwrap(),
            payload: vec![7; size].into(),
            qos: QoS::AtLeastOnce,
            retain: true,
            expires_at: None,
            origin: None,
            number: None,
            properties: MessageProperties::default(),
        };
        let offer = session.offer_retained(&filter(), &Arc::new(message.into()), 0);
        assert_eq!(offer, Offer::Sent);
    }

    fn again(session: &mut Session) -> (Session, usize) {
        let (bytes, _) = session.snapshot();
        let size = bytes.len();
        let again = Session::from_bytes(ClientId::new("c"), bytes).unwrap();
        (again, size)
    }

    #[test]
    fn how_far_a_subscription_is_and_what_is_in_flight_are_saved_together() {
        let mut session = subscribed();
        let due = |session: &Session| {
            let due = session.retained_due();
            due.map(|(_, given)| given.map(|topic| topic.as_str().to_owned()))
                .collect::<Vec<_>>()
        };
        assert_eq!(due(&again(&mut session).0), [None]);
        offer(&mut session, 1, 1);
        assert!(session.is_dirty());
        let (mut session, _) = again(&mut session);
        assert_eq!(due(&session), [Some("0001".to_owned())]);
        assert_eq!((session.in_flight_len(), session.missing()), (1, vec![]));
        session.retained_given(&filter());
        assert!(session.is_dirty());
        assert_eq!(due(&again(&mut session).0), []);
    }

    /// What is beyond the bounds is read again by its topic.
    #[test]
    fn a_session_that_is_saved_stays_small_whatever_is_in_flight() {
        let missing = |size: usize, count: usize| {
            let mut session = subscribed();
            (0..count).for_each(|topic| offer(&mut session, topic, size));
            let (again, bytes) = again(&mut session);
            assert_eq!(again.in_flight_len(), count);
            assert!(bytes < limits::KEPT_BYTES + 100 * count + 1_000, "{bytes}");
            again.missing().len()
        };
        assert_eq!(missing(16_000, 10), 0);
        assert_eq!(missing(17_000, 10), 10);
        assert_eq!(missing(16_000, 20), 4);
        assert_eq!(missing(1_000, 500), 500 - 258);
    }
}
