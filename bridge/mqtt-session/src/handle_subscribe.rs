//! SUBSCRIBE (sections 3.8, 3.9).

use crate::subscriptions::Subscription;
use crate::{FeedId, Position, Session};
use mqtt_codec::{Packet, PacketId, ReasonCode, RetainHandling, SubAck, SubscribeFilter};

/// What one filter of a SUBSCRIBE leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribed {
    pub reason_code: ReasonCode,
    /// The retained messages that match are to be sent (section 3.3.1.3).
    pub send_retained: bool,
}

impl Session {
    /// Before storage is asked: is this filter possible at all?
    pub fn check_subscribe(&self, entry: &SubscribeFilter) -> Result<(), ReasonCode> {
        if entry.filter.is_shared() {
            return Err(ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED);
        }
        let new = self.subscriptions.get(&entry.filter).is_none();
        if new && self.subscriptions.len() >= self.connection.limits.max_subscriptions {
            return Err(ReasonCode::QUOTA_EXCEEDED);
        }
        Ok(())
    }

    /// `feeds`: the feeds the filter can match on, with their ends now. The subscription begins there; where it replaces
    /// one with the same filter, nothing is missed and nothing repeated [MQTT-3.8.4-3].
    pub fn handle_subscribe(
        &mut self,
        entry: &SubscribeFilter,
        identifier: Option<u32>,
        feeds: Vec<(FeedId, Position)>,
    ) -> Subscribed {
        let old_starts = self
            .subscriptions
            .get(&entry.filter)
            .map(|old| old.starts.clone());
        let existed = old_starts.is_some();
        let mut starts = old_starts.unwrap_or_default();
        for (feed, end) in feeds {
            match self.feeds.get(&feed) {
                Some(at) if !existed && *at < end => starts.push((feed, end)),
                Some(_) => {}
                None => {
                    self.feeds.insert(feed, end);
                }
            }
        }
        let subscription = Subscription {
            options: entry.options,
            identifier,
            starts,
        };
        self.subscriptions
            .insert(entry.filter.clone(), subscription);
        self.connection.dirty = true;
        Subscribed {
            reason_code: ReasonCode(entry.options.qos as u8),
            send_retained: match entry.options.retain_handling {
                RetainHandling::Send => true,
                RetainHandling::SendIfNew => !existed,
                RetainHandling::DoNotSend => false,
            },
        }
    }

    /// Feeds that a filter can match on and that did not exist when it was asked last: read from their beginning.
    pub fn add_new_feeds(&mut self, feeds: Vec<(FeedId, Position)>) {
        for (feed, _) in feeds {
            self.feeds.entry(feed).or_insert_with(|| {
                self.connection.dirty = true;
                Position::START
            });
        }
    }

    pub fn suback(&mut self, packet_id: PacketId, reason_codes: Vec<ReasonCode>) {
        self.reply(Packet::SubAck(SubAck {
            packet_id,
            properties: Default::default(),
            reason_codes,
        }));
    }
}
