//! Messages to the client: matched, given a packet id, sent, and sent again after a reconnect [MQTT-4.4.0-1].

use crate::in_flight::{Awaiting, InFlight, Source};
use crate::session::After;
use crate::subscriptions::Match;
use crate::{Delivery, FeedId, Message, OutgoingPublish, Position, Session, SharedMessage};
use mqtt_codec::{PacketId, QoS, ReasonCode};
use std::sync::Arc;

/// Bytes that the property of a topic alias takes, and what it can make the lengths longer.
const ALIAS_COST: usize = 5;

/// What became of a message that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is on its way.
    Sent,
    /// It is not for this client (no subscription, expired, its own, too large): passed over.
    Passed,
    /// No more may be in flight: offer it again after an acknowledgement.
    Full,
}

impl Session {
    /// The next message of a feed.
    pub fn offer(
        &mut self,
        feed: FeedId,
        at: Position,
        message: &Arc<SharedMessage>,
        now_ms: i64,
    ) -> Offer {
        let matched = self
            .subscriptions
            .matches(feed, at, message, self.connection.origin);
        let Some(matched) = matched.filter(|_| !message.is_expired(now_ms)) else {
            self.advance(feed, Position(at.0.saturating_add(1)));
            return Offer::Passed;
        };
        let retain = matched.retain_as_published && message.retain;
        let offer = self.send(message, matched, retain, Source::Feed(feed, at), now_ms);
        if offer != Offer::Full {
            self.advance(feed, Position(at.0.saturating_add(1)));
        }
        offer
    }

    /// Everything below this position was offered, or is not there.
    pub fn advance(&mut self, feed: FeedId, to: Position) {
        if let Some(at) = self.feeds.get_mut(&feed)
            && *at < to
        {
            *at = to;
            self.connection.dirty = true;
            if self.subscriptions.has_starts() {
                self.subscriptions.passed(feed, to);
            }
        }
    }

    /// The feed is gone.
    pub fn forget_feed(&mut self, feed: FeedId) {
        self.feeds.remove(&feed);
        self.connection.dirty = true;
    }

    pub(crate) fn send(
        &mut self,
        message: &Arc<SharedMessage>,
        matched: Match,
        retain: bool,
        source: Source,
        now_ms: i64,
    ) -> Offer {
        if !self.connection.gate.lets(&message.topic) {
            return Offer::Passed;
        }
        let qos = message.qos.min(matched.qos);
        if qos != QoS::AtMostOnce {
            // Older messages that wait to be sent again go first [MQTT-4.6.0-1].
            let resends = self.connection.resends;
            if resends || self.in_flight.entries.len() >= self.connection.send_quota {
                return Offer::Full;
            }
        }
        let mut publish = OutgoingPublish {
            message: message.clone(),
            dup: false,
            qos,
            retain,
            packet_id: (qos != QoS::AtMostOnce).then_some(PacketId::MIN),
            identifiers: matched.identifiers,
            alias: None,
        };
        if !self.is_taken(&publish, now_ms) {
            self.connection.dropped += 1; // as if it had been sent [MQTT-3.1.2-25]
            return Offer::Passed;
        }
        let (source, after) = match source {
            // This session is never saved, so nothing will say that the message was sent: its group has to know, durably, before that [MQTT-4.8.2-5].
            Source::Shared(place) if qos == QoS::ExactlyOnce && !self.is_persistent() => {
                self.settle(place, true);
                (Source::Nowhere(None), After::Settling)
            }
            source => {
                let after = self.after_save(source.is_stored() && qos == QoS::ExactlyOnce);
                (source, after)
            }
        };
        let stored = source.is_stored();
        if qos != QoS::AtMostOnce {
            let packet_id = self.in_flight.allocate();
            publish.packet_id = Some(packet_id);
            self.in_flight.entries.push_back(InFlight {
                packet_id,
                awaiting: if qos == QoS::ExactlyOnce {
                    Awaiting::PubRec
                } else {
                    Awaiting::PubAck
                },
                qos,
                retain,
                identifiers: publish.identifiers.clone(),
                source,
                message: Some(message.clone()),
                sent: true,
            });
            self.connection.dirty |= stored;
        }
        self.deliver(after, Delivery::Publish(publish));
        Offer::Sent
    }

    /// The turn of a PUBLISH has come. `false`: it is not sent, and done with. It has waited until it was over [MQTT-3.3.2-5], which what was sent before
    /// may be; or it is sent again, and larger than what the client takes now [MQTT-3.1.2-25].
    pub(crate) fn leaves(&mut self, publish: &mut OutgoingPublish, now_ms: i64) -> bool {
        let leaves = match publish.dup {
            true => self.is_taken(publish, now_ms),
            false => !publish.message.is_expired(now_ms),
        };
        if leaves {
            // Not sooner: an alias in a message that is not sent is none that the client knows.
            self.put_alias(publish, now_ms);
            return true;
        }
        self.connection.dropped += 1;
        if let Some(packet_id) = publish.packet_id {
            self.end_in_flight(packet_id);
            self.connection.dirty = true;
            self.resend();
        }
        false
    }

    /// Is it no larger than what the client takes [MQTT-3.1.2-24]?
    fn is_taken(&self, publish: &OutgoingPublish, now_ms: i64) -> bool {
        let limit = self.connection.client_maximum_packet_size;
        limit == usize::MAX || publish.encoded_len(self.connection.version, now_ms) <= limit
    }

    /// Topic aliases towards the client (section 3.3.2.3.4): the first topics of a connection get those it takes. What is sent again after
    /// a reconnect has its whole topic.
    fn put_alias(&mut self, publish: &mut OutgoingPublish, now_ms: i64) {
        let connection = &mut self.connection;
        let most = connection.aliases_to_client;
        if most == 0 || publish.dup {
            return;
        }
        let topic = &publish.message.topic;
        if let Some(alias) = connection.sent_aliases.get(topic) {
            publish.alias = Some((*alias, true));
            return;
        }
        let next = u16::try_from(connection.sent_aliases.len() + 1).unwrap_or(u16::MAX);
        let size = connection.client_maximum_packet_size;
        // What an alias costs is saved only from the second message on.
        let fits = size == usize::MAX
            || publish.encoded_len(connection.version, now_ms) + ALIAS_COST <= size;
        if next <= most && fits && topic.as_str().len() > ALIAS_COST {
            connection.sent_aliases.insert(topic.clone(), next);
            publish.alias = Some((next, false));
        }
    }

    /// A message that is in no feed: for who is there, as long as the connection lasts.
    pub fn offer_unstored(&mut self, message: &Arc<SharedMessage>, now_ms: i64) -> Offer {
        let nowhere = FeedId {
            stream: u64::MAX,
            partition: u32::MAX,
        };
        let at = Position(u64::MAX);
        let matched = self
            .subscriptions
            .matches(nowhere, at, message, self.connection.origin);
        let Some(matched) = matched.filter(|_| !message.is_expired(now_ms)) else {
            return Offer::Passed;
        };
        let retain = matched.retain_as_published && message.retain;
        self.send(message, matched, retain, Source::Nowhere(None), now_ms)
    }

    /// Messages in flight that must be read again before they can be sent again: after a restart.
    pub fn missing(&self) -> Vec<(PacketId, Source)> {
        let entries = self.in_flight.entries.iter();
        entries
            .filter(|entry| entry.message.is_none() && entry.awaiting != Awaiting::PubComp)
            .map(|entry| (entry.packet_id, entry.source.clone()))
            .collect()
    }

    /// The answer to [`Session::missing`]. `None` = it does not exist any more.
    pub fn supply(&mut self, packet_id: PacketId, message: Option<Message>) {
        match (message, self.in_flight.find_mut(packet_id)) {
            (Some(message), Some(entry)) => entry.message = Some(Arc::new(message.into())),
            (None, Some(_)) => {
                self.end_in_flight(packet_id);
                self.connection.dropped += 1;
                self.connection.dirty = true;
            }
            (_, None) => {}
        }
    }

    /// Sends what was in flight in an earlier connection, in the original order: each PUBREL at once [MQTT-3.3.4-10], each PUBLISH as far as the client's
    /// receive maximum allows. Called after CONNACK, and by every acknowledgement.
    pub fn resend(&mut self) {
        if !self.connection.resends {
            return;
        }
        // What awaits PUBCOMP the client still has: it counts.
        let is_with_client = |entry: &&InFlight| entry.sent || entry.awaiting == Awaiting::PubComp;
        let with_client = self.in_flight.entries.iter().filter(is_with_client);
        let mut room = self
            .connection
            .send_quota
            .saturating_sub(with_client.count());
        let mut deliveries = Vec::new();
        self.connection.resends = false;
        for entry in self
            .in_flight
            .entries
            .iter_mut()
            .filter(|entry| !entry.sent)
        {
            if entry.awaiting != Awaiting::PubComp {
                if room == 0 {
                    self.connection.resends = true;
                    continue;
                }
                room -= 1;
            }
            entry.sent = true;
            match (&entry.message, entry.awaiting) {
                (_, Awaiting::PubComp) => deliveries.push(Delivery::PubRel {
                    packet_id: entry.packet_id,
                    reason_code: ReasonCode::SUCCESS,
                }),
                (Some(message), _) => deliveries.push(Delivery::Publish(OutgoingPublish {
                    message: message.clone(),
                    dup: true,
                    qos: entry.qos,
                    retain: entry.retain,
                    packet_id: Some(entry.packet_id),
                    identifiers: entry.identifiers.clone(),
                    alias: None,
                })),
                (None, _) => {}
            }
        }
        // All of this was saved when the earlier connection ended, or it was read from there.
        for delivery in deliveries {
            self.deliver(After::Nothing, delivery);
        }
    }
}
