//! Shared subscriptions (MQTT 5 section 4.8.2), the session's side. Who gets which message is the host's business. What a session was
//! given is its own as long as the session lives: it is sent again when the client comes back [MQTT-4.8.2-4], and goes to nobody else
//! meanwhile. What is left when the session ends goes to others if it is QoS 1, and to nobody if it is QoS 2 [MQTT-4.8.2-5].

use crate::handle_subscribe::Subscribed;
use crate::in_flight::Source;
use crate::outbound::Offer;
use crate::subscriptions::Match;
use crate::{FeedId, Position, Session, SharedMessage};
use mqtt_codec::{PacketId, QoS, ReasonCode, SubscribeFilter, SubscriptionOptions, TopicFilter};
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedSubscription {
    pub options: SubscriptionOptions,
    pub identifier: Option<u32>,
}

impl SharedSubscription {
    fn matched(&self) -> Match {
        Match {
            qos: self.options.qos,
            retain_as_published: self.options.retain_as_published,
            identifiers: self.identifier.into_iter().collect(),
        }
    }
}

/// A message that a group gave to this session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SharedPlace {
    /// `$share/{ShareName}/{filter}`: names the group.
    pub share: TopicFilter,
    pub feed: FeedId,
    pub at: Position,
}

/// The client is done with it, or nobody else may get it.
#[derive(Debug)]
pub(crate) struct Settling {
    pub place: SharedPlace,
    /// The client is sent it only after that.
    pub awaited: bool,
    /// The host is telling the group.
    pub begun: bool,
}

/// What the groups are to be told that nobody is to get any more.
#[derive(Debug, Default)]
pub struct ToSettle {
    pub places: Vec<SharedPlace>,
    /// Messages wait for it: it has to be durable.
    pub is_awaited: bool,
}

impl Session {
    pub(crate) fn handle_subscribe_shared(
        &mut self,
        entry: &SubscribeFilter,
        identifier: Option<u32>,
    ) -> Subscribed {
        let options = self.granted(entry);
        let subscription = SharedSubscription {
            options,
            identifier,
        };
        self.shared.insert(entry.filter.clone(), subscription);
        self.connection.dirty = true;
        Subscribed {
            reason_code: ReasonCode(options.qos as u8),
            send_retained: false, // section 3.8.3.1: not when the subscription is shared
        }
    }

    /// The shared subscriptions, by their whole filters.
    pub fn shared(&self) -> impl Iterator<Item = (&TopicFilter, &SharedSubscription)> {
        self.shared.iter()
    }

    pub fn is_member(&self, share: &TopicFilter) -> bool {
        self.shared.contains_key(share)
    }

    /// How many more QoS 1 and 2 messages may be in flight now.
    pub fn send_room(&self) -> usize {
        if self.connection.resends {
            return 0; // older messages are to be sent again first
        }
        let in_flight = self.in_flight.entries.len();
        self.connection.send_quota.saturating_sub(in_flight)
    }

    /// The next message of a group. `Passed` = it is done with: expired, or larger than the client takes [MQTT-3.1.2-25].
    pub fn offer_shared(
        &mut self,
        place: &SharedPlace,
        message: &Arc<SharedMessage>,
        now_ms: i64,
    ) -> Offer {
        let Some(subscription) = self.shared.get(&place.share) else {
            return Offer::Full; // not a member: its keeper gives it back
        };
        let (options, matched) = (subscription.options, subscription.matched());
        if message.is_expired(now_ms) {
            self.settle(place.clone(), false);
            return Offer::Passed;
        }
        let retain = options.retain_as_published && message.retain;
        let qos = message.qos.min(options.qos);
        let source = Source::Shared(place.clone());
        let offer = self.send(message, matched, retain, source, now_ms);
        // QoS 0 is done with when it is handed over.
        if offer == Offer::Passed || (offer == Offer::Sent && qos == QoS::AtMostOnce) {
            self.settle(place.clone(), false);
        }
        offer
    }

    /// A message that is in no feed, given to this member of a group. `Full`: offer it again after an acknowledgement.
    pub fn offer_unstored_shared(
        &mut self,
        share: &TopicFilter,
        message: &Arc<SharedMessage>,
        now_ms: i64,
    ) -> Offer {
        let subscription = self.shared.get(share);
        let Some(subscription) = subscription.filter(|_| !message.is_expired(now_ms)) else {
            return Offer::Passed;
        };
        let (options, matched) = (subscription.options, subscription.matched());
        let retain = options.retain_as_published && message.retain;
        let source = Source::Nowhere(Some(share.clone()));
        self.send(message, matched, retain, source, now_ms)
    }

    /// The connection is over: what groups gave that is not stored and the client has not acknowledged, for their other members. Only QoS 1: nobody
    /// else may get what is QoS 2 and was sent [MQTT-4.8.2-5].
    pub fn take_unstored_shared(&mut self) -> Vec<(TopicFilter, Arc<SharedMessage>)> {
        let mut taken = Vec::new();
        self.in_flight.entries.retain_mut(|entry| {
            let Source::Nowhere(Some(share)) = &entry.source else {
                return true;
            };
            if entry.qos != QoS::AtLeastOnce {
                return true;
            }
            let message = entry.message.take();
            taken.extend(message.map(|message| (share.clone(), message)));
            false
        });
        taken
    }

    pub(crate) fn settle(&mut self, place: SharedPlace, awaited: bool) {
        self.settling.push_back(Settling {
            place,
            awaited,
            begun: false,
        });
    }

    /// A delivery has ended, in whatever way: also a refusal by the client ends it for all members [MQTT-4.8.2-6].
    pub(crate) fn end_in_flight(&mut self, packet_id: PacketId) {
        if let Some(entry) = self.in_flight.remove(packet_id)
            && let Source::Shared(place) = entry.source
        {
            self.settle(place, false);
        }
    }

    /// What the client is done with and the groups are to be told of, durably; then call [`Session::settled`], before this is called again. Until then
    /// a saved session remembers it: a crash in between gives it to nobody again. Of a session that is not saved also what is QoS 2 and about to be sent.
    pub fn begin_settling(&mut self) -> ToSettle {
        let mut to_settle = ToSettle::default();
        for settling in self.settling.iter_mut().filter(|settling| !settling.begun) {
            settling.begun = true;
            to_settle.is_awaited |= settling.awaited;
            to_settle.places.push(settling.place.clone());
        }
        self.connection.settling_deliveries = self.connection.next_delivery;
        to_settle
    }

    /// The groups know it durably.
    pub fn settled(&mut self, places: &[SharedPlace]) {
        self.connection.settled_deliveries = self.connection.settling_deliveries;
        let places: BTreeSet<&SharedPlace> = places.iter().collect();
        self.settling
            .retain(|settling| !(settling.begun && places.contains(&settling.place)));
        self.connection.dirty = true;
    }

    /// The groups of which this session is a member or has something.
    pub fn shares(&self) -> BTreeSet<TopicFilter> {
        let in_flight = self.in_flight.entries.iter();
        let in_flight = in_flight.filter_map(|entry| match &entry.source {
            Source::Shared(place) => Some(place.share.clone()),
            _ => None,
        });
        let settling = self.settling.iter().map(|s| s.place.share.clone());
        let members = self.shared.keys().cloned();
        members.chain(in_flight).chain(settling).collect()
    }

    /// What this session has of a group.
    pub fn holds(&self, share: &TopicFilter) -> Vec<(FeedId, Position)> {
        self.held(share, |_| true)
    }

    /// What of a group nobody else may get when this session ends: what is done with, and QoS 2 that was sent [MQTT-4.8.2-5].
    pub fn ended_for_all(&self, share: &TopicFilter) -> Vec<(FeedId, Position)> {
        self.held(share, |qos| qos == QoS::ExactlyOnce)
    }

    fn held(&self, share: &TopicFilter, wanted: impl Fn(QoS) -> bool) -> Vec<(FeedId, Position)> {
        let in_flight = self.in_flight.entries.iter();
        let in_flight = in_flight.filter_map(|entry| match &entry.source {
            Source::Shared(place) if place.share == *share && wanted(entry.qos) => {
                Some((place.feed, place.at))
            }
            _ => None,
        });
        let settling = self.settling.iter().filter(|s| s.place.share == *share);
        in_flight
            .chain(settling.map(|s| (s.place.feed, s.place.at)))
            .collect()
    }
}
