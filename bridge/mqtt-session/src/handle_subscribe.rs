//! SUBSCRIBE (sections 3.8, 3.9).

use crate::subscriptions::Subscription;
use crate::{FeedId, Position, Session, limits};
use mqtt_codec::{
    Packet, PacketId, Properties, ReasonCode, RetainHandling, SubAck, SubscribeFilter,
    SubscriptionOptions, TopicFilter,
};

/// What one filter of a SUBSCRIBE leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribed {
    pub reason_code: ReasonCode,
    /// The retained messages that match are to be sent (section 3.3.1.3), from the beginning: see [`Session::retained_due`].
    pub send_retained: bool,
}

impl Session {
    /// Before storage is asked: is this filter possible at all?
    pub fn check_subscribe(&self, entry: &SubscribeFilter) -> Result<(), ReasonCode> {
        if entry.filter.is_shared() && entry.filter.share().is_none() {
            return Err(ReasonCode::TOPIC_FILTER_INVALID); // [MQTT-4.8.2-1, 4.8.2-2]
        }
        let new = self.subscriptions.get(&entry.filter).is_none()
            && !self.shared.contains_key(&entry.filter);
        let count = self.subscriptions.len() + self.shared.len();
        let bytes = || self.filter_bytes() + entry.filter.as_str().len();
        if new
            && (count >= self.connection.limits.max_subscriptions || bytes() > limits::FILTER_BYTES)
        {
            return Err(ReasonCode::QUOTA_EXCEEDED);
        }
        Ok(())
    }

    fn filter_bytes(&self) -> usize {
        let plain = self.subscriptions.iter().map(|(filter, _)| filter);
        let all = plain.chain(self.shared.keys());
        all.map(|filter| filter.as_str().len()).sum()
    }

    /// Of a shared subscription only the options are kept here: its group is the host's.
    ///
    /// `feeds`: the feeds the filter can match on, with their ends now. The subscription begins there; where it replaces
    /// one with the same filter, nothing is missed and nothing repeated [MQTT-3.8.4-3].
    pub fn handle_subscribe(
        &mut self,
        entry: &SubscribeFilter,
        identifier: Option<u32>,
        feeds: Vec<(FeedId, Position)>,
    ) -> Subscribed {
        if entry.filter.is_shared() {
            return self.handle_subscribe_shared(entry, identifier);
        }
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
        let options = self.granted(entry);
        let subscription = Subscription {
            options,
            identifier,
            starts,
        };
        self.subscriptions
            .insert(entry.filter.clone(), subscription);
        self.connection.dirty = true;
        let send_retained = match entry.options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => !existed,
            RetainHandling::DoNotSend => false,
        };
        if send_retained {
            self.due.begin(&entry.filter);
        }
        Subscribed {
            reason_code: ReasonCode(options.qos as u8),
            send_retained,
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

    /// The options, with no more than the server's maximum QoS [MQTT-3.2.2-9, 3.2.2-10], and with those that a bridge means.
    pub(crate) fn granted(&self, entry: &SubscribeFilter) -> SubscriptionOptions {
        let maximum = self.connection.limits.maximum_qos;
        let is_bridge = self.connection.is_bridge && !entry.filter.is_shared();
        SubscriptionOptions {
            qos: entry.options.qos.min(maximum),
            no_local: entry.options.no_local || is_bridge,
            retain_as_published: entry.options.retain_as_published || is_bridge,
            ..entry.options
        }
    }

    /// Marks a subscription as exclusive, or not any more. The host sees to it that it is.
    pub fn set_exclusive(&mut self, filter: &TopicFilter, exclusive: bool) {
        self.connection.dirty = true;
        if exclusive {
            self.exclusive.insert(filter.clone());
        } else {
            self.exclusive.remove(filter);
        }
    }

    pub fn exclusive(&self) -> impl Iterator<Item = &TopicFilter> {
        self.exclusive.iter()
    }

    pub fn suback(&mut self, packet_id: PacketId, reason_codes: Vec<ReasonCode>) {
        let refused = reason_codes.iter().find(|code| code.is_error());
        let properties = Properties {
            reason_string: refused.map(|code| code.text().to_owned()),
            ..Properties::default()
        };
        self.reply(Packet::SubAck(SubAck {
            packet_id,
            properties,
            reason_codes,
        }));
    }
}
